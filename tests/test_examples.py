"""The examples run, from beginning to end, with tiny settings, and are notebooks in percent format."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
TINY = {"EPOCHS": "1", "IMAGES": "16", "ATTACKED": "2"}
SAYS = {
    "train_and_read_the_curves": "% zeros in the input gradient at the last epoch",
    "attack_one_batch": "largest change of a pixel: 8 grey levels",
    "encoder_and_network_of_your_own": "pgd/accuracy: ",
    "audit_a_network": "written: audit.html audit.json audit.md",
    "probe_a_foreign_module": "body.3    75.0 % zeros in the input gradient",
}
"""What each prints in the end."""

pytestmark = pytest.mark.usefixtures("elsewhere")


def test_there_is_one_for_each():
    assert {path.stem for path in EXAMPLES} == SAYS.keys()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path, monkeypatch, capsys):
    for name, value in TINY.items():
        monkeypatch.setenv(name, value)
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.stem] in capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_notebook(path):
    text = path.read_text()
    assert text.startswith("# %% [markdown]\n# # ")
    cells = re.split(r"^# %%.*\n", text, flags=re.M)[1:]
    assert len(cells) >= 6
    assert set(re.findall(r'os\.environ\.get\("(\w+)"', text)) <= TINY.keys(), "the tests make every setting small"
