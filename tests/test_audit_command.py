"""``snn-sparsity audit`` as a user meets it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from snn_sparsity.commands.main import main
from snn_sparsity.runs.files import only_writer
from tests.test_cli import FEW, TINY, error

CHECKPOINT = "runs/tiny/seed_3407/0/last.ckpt"
FOLDER = Path("runs/tiny/seed_3407/0/audit")
EIGHT = ["audit", "--ckpt_path", CHECKPOINT, "--samples", "8"]
PLAIN = ["audit", "--model.network", "tests.test_audit_command.Plain", "--model.network.width", "6", "--takes", "images",
         "--data", "DigitsDataModule", "--samples", "8", "--trainer.enable_progress_bar", "false"]  # fmt: skip
ALL = [*EIGHT, "--space", "all"]


class Plain(nn.Module):
    """A network that knows nothing of this program: images to logits."""

    def __init__(self, width: int = 4, channels: int = 3, classes: int = 10):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(channels, width, 8, 8), nn.BatchNorm2d(width), nn.Linear(width * 16, classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).relu().flatten(1))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with a trained tiny network and its audit."""
    folder = tmp_path_factory.mktemp("audited")
    with pytest.MonkeyPatch.context() as patch:
        quick(patch, folder)
        assert main(["fit", *TINY, *FEW]) == 0
        assert main([*ALL, "--trainer.enable_progress_bar", "false"]) == 0
    return folder


@pytest.fixture(autouse=True)
def _there(workplace, monkeypatch):
    quick(monkeypatch, workplace)


def quick(monkeypatch, folder):
    """Work in the folder, with a control network that hardly trains."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("snn_sparsity.audit.collect.control.STEPS", 3)


def without_times(value):
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if key != "seconds"}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def test_an_audit_leaves_evidence_and_two_documents():
    audit = json.loads((FOLDER / "audit.json").read_text())
    assert audit["complete"]
    assert set(audit["protocols"]) == set(audit["answers"]) == {"image", "steps", "spikes", "flips", "paper"}
    assert audit["settings"]["samples"] == len(audit["labels"]) == 8
    assert audit["answers"]["paper"]["belief"] == "NOT VALID"
    roles = {one["role"] for one in audit["protocols"]["image"]["attacks"]}
    assert roles == {"claim", "native", "reference", "arm", "radius"}
    assert {one["status"] for protocol in audit["protocols"].values() for one in protocol["attacks"]} <= {"done", "does not apply"}
    html = (FOLDER / "audit.html").read_text()
    assert "NOT VALID" in html
    assert "http:" not in html
    assert "https:" not in html
    assert (FOLDER / "audit.md").read_text().startswith("# ")
    assert not (FOLDER / "audit.unfinished.json").exists()


def test_the_table_ends_with_a_verdict_for_each_space(capsys):
    assert main([*EIGHT, "--space", "image", "--out", "elsewhere", "--trainer.enable_progress_bar", "false"]) == 0
    printed = capsys.readouterr().out
    assert "image" in printed
    assert "elsewhere/audit.json" in printed
    assert {path.name for path in Path("elsewhere").iterdir()} == {"audit.json", "audit.md", "audit.html"}


def test_killed_and_resumed_it_gives_the_same_numbers():
    command = [sys.executable, "-m", "snn_sparsity", *EIGHT, "--space", "spikes", "--out", "killed"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    journal = Path("killed/audit.unfinished.json")
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not (journal.exists() and len(json.loads(journal.read_text())["results"]) >= 5):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert journal.exists(), "it was killed before it was done"
    assert not Path("killed/audit.json").exists()
    assert main([*EIGHT, "--space", "spikes", "--out", "killed", "--trainer.enable_progress_bar", "false", "--resume"]) == 0
    resumed = json.loads(Path("killed/audit.json").read_text())
    whole = json.loads((FOLDER / "audit.json").read_text())
    assert without_times(resumed["protocols"]["spikes"]) == without_times(whole["protocols"]["spikes"])


def test_an_unfinished_audit_is_not_overwritten_by_accident(capsys):
    Path("begun").mkdir(exist_ok=True)
    Path("begun/audit.unfinished.json").write_text('{"identity": {}, "results": {}}')
    assert "--resume" in error(capsys, *EIGHT, "--out", "begun")


def test_of_two_audits_in_one_folder_the_second_is_refused(capsys):
    with only_writer(Path("taken")):
        assert "taken: another process is at work there" in error(capsys, *EIGHT, "--out", "taken")
    assert not Path("taken").exists()


def test_a_finished_audit_is_judged_anew_without_running_anything(tmp_path, capsys):
    text = (FOLDER / "audit.json").read_text()
    (tmp_path / "audit.json").write_text(text.replace("NOT VALID", "ANOTHER WORD"))
    assert main(["audit", "--judge", str(tmp_path / "audit.json")]) == 0
    assert "Quote no accuracy under attack" in capsys.readouterr().out
    for name in ("audit.json", "audit.md", "audit.html"):
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text()
    assert max(map(len, text.splitlines())) > 8 * len("true, "), "an answer for each image stands on one line"


def test_two_audits_side_by_side():
    audit = str(FOLDER / "audit.json")
    assert main(["audit", "--compare", audit, audit, "--out", "both"]) == 0
    assert {path.name for path in Path("both").iterdir()} == {"audit.md", "audit.html"}


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["--probes.pgd.attack.steps", "5"], 5),
        (["--trainer.callbacks.settings.claim", "PGD", "--trainer.callbacks.settings.claim.steps", "2"], 2),
    ],
    ids=["the probe of the same test", "a claim of its own"],
)
def test_the_callback_audits_after_a_test(words, steps):
    arguments = ["test", "--ckpt_path", CHECKPOINT, "--trainer.callbacks+=RobustnessAudit", "--trainer.callbacks.settings.samples", "4"]
    assert main([*arguments, "--trainer.callbacks.progress", "false", *words]) == 0
    settings = json.loads((FOLDER.parent / "test" / "audit" / "audit.json").read_text())["settings"]
    assert settings["samples"] == 4
    assert f"steps={steps}," in settings["claim"]


def test_a_claim_keeps_its_own_eps_and_it_is_told(capsys):
    words = ["--claim", "PGD", "--claim.eps", "4/255", "--samples", "4", "--out", "balls", "--trainer.enable_progress_bar", "false"]
    assert main([*EIGHT, *words]) == 0
    audit = json.loads(Path("balls/audit.json").read_text())
    attacks = audit["protocols"]["image"]["attacks"]
    assert audit["eps"] == 8 / 255
    assert {round(255 * one["eps"]) for one in attacks if one["role"] == "claim"} == {4}
    assert 4 in {round(255 * one["eps"]) for one in attacks if one["role"] == "radius"}, "V27 needs a native attack in that ball"
    assert "the quoted attack's eps is 4/255, the audited one 8/255" in capsys.readouterr().out


@pytest.fixture
def saved(tmp_path):
    """Save weights of a network as another program names them, and return the file."""

    def save(**options):
        state = Plain(width=6, **options).state_dict()
        torch.save({"state_dict": {f"module.{name.replace('head', 'fc')}": tensor for name, tensor in state.items()}}, tmp_path / "w.pt")
        return str(tmp_path / "w.pt")

    return save


def test_a_network_of_ones_own_with_weights_from_a_file_and_a_claim(saved):
    torch.manual_seed(0)
    claim = ["--claim", "PGD", "--claim.steps", "20"]
    assert main([*PLAIN, "--weights", saved(), "--weights.rename", "fc=head", "--out", "own", *claim]) == 0
    audit = json.loads(Path("own/audit.json").read_text())
    quoted = next(one for one in audit["protocols"]["image"]["attacks"] if one["role"] == "claim")
    assert "steps=20" in quoted["attack"]
    assert "steps=20" in audit["settings"]["claim"]
    with torch.no_grad():
        torch.manual_seed(0)
        from snn_sparsity.data import DigitsDataModule

        data = DigitsDataModule()
        data.setup("test")
        images, labels = data.split("test").select(torch.arange(8))
        right = Plain(width=6).eval()(images / 255).argmax(1) == labels
    assert audit["clean"] == right.tolist(), "it is these weights that were audited"


class FromSpikes(nn.Module):
    """Takes spikes [T,N,...], and returns logits [N,K] and something else."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3072, 10)

    def forward(self, spikes):
        return self.head(spikes.flatten(2)).mean(0), spikes


def test_a_network_from_spikes_may_return_what_it_likes(tmp_path):
    torch.save(FromSpikes().state_dict(), tmp_path / "w.pt")
    network = ["--model.network", "tests.test_audit_command.FromSpikes", "--data", "DigitsDataModule", "--weights", str(tmp_path / "w.pt")]
    assert main(["audit", *network, "--samples", "2", "--out", "spikes", "--trainer.enable_progress_bar", "false"]) == 0
    assert json.loads(Path("spikes/audit.json").read_text())["num_classes"] == 10


def test_a_factory_of_torchvision(tmp_path):
    import torchvision

    torch.save(torchvision.models.squeezenet1_1(num_classes=10).state_dict(), tmp_path / "w.pt")
    network = ["--model.network", "torchvision.models.squeezenet1_1", "--takes", "images", "--data", "DigitsDataModule"]
    assert main(["audit", *network, "--weights", str(tmp_path / "w.pt"), "--samples", "2", "--out", "factory"]) == 0
    attacks = json.loads(Path("factory/audit.json").read_text())["protocols"]["image"]["attacks"]
    refused = [one["why"] for one in attacks if one["status"] == "does not apply" and "max pooling" in one["name"]]
    assert refused, "a rule that refuses the network is told beside, and stops nothing"
    assert all("ceil_mode" in why for why in refused)


@pytest.mark.parametrize(
    ("options", "arguments", "expected"),
    [
        ({}, [], "--weights do not fit: missing: head.bias, head.weight; unknown: fc.bias, fc.weight"),
        ({}, ["--weights.rename", "fc"], "--weights.rename fc is not OLD=NEW"),
        ({"classes": 7}, ["--weights.rename", "fc=head"], "of another shape: head.bias, head.weight"),
        ({"channels": 1}, ["--weights.rename", "fc=head", "--model.network.channels", "1"], "does not take images [3, 32, 32]"),
        ({"classes": 3}, ["--weights.rename", "fc=head", "--model.network.classes", "3"], "knows 3 classes"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(options, arguments, expected, saved, capsys):
    assert expected in error(capsys, *PLAIN, "--weights", saved(**options), "--out", "unfit", *arguments)


OWN = "PGD(eps=4/255, alpha=0.01, steps=3, random_start=True, restarts=1, loss='ce', keep='last')"
RANDOM_CODE = ["--data.encoder", "RateEncoder", "--data.encoder.num_steps", "4", "--probes.codebook", "null"]


@pytest.mark.parametrize(
    ("words", "claim"),
    [
        ([], OWN),
        (["--probes.pgd.space", "image", "--probes.pgd.batch_norm", "eval"], OWN),
        (
            [*RANDOM_CODE, "--probes.pgd.space", "image", "--probes.pgd.batch_norm", "eval", "--probes.pgd.draws", "2"],
            f"EOT(eps=4/255, attack={OWN}, draws=2)",
        ),
        ([*RANDOM_CODE, "--probes.pgd.draws", "2"], OWN),
    ],
    ids=["on spikes, in its own ball", "on pixels", "on pixels behind a random code", "on spikes of a random code"],
)
def test_the_quoted_attack_is_by_default_that_of_the_runs_own_probe(words, claim, tmp_path):
    own = ["--probes.pgd.attack.steps", "3", "--probes.pgd.attack.eps", "4/255", "--trainer.default_root_dir", str(tmp_path)]
    assert main(["fit", *TINY, *FEW, *own, *words]) == 0
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert "steps=7" in json.loads((FOLDER / "audit.json").read_text())["settings"]["claim"]
    assert main(["audit", "--ckpt_path", str(checkpoint), "--samples", "2", "--trainer.enable_progress_bar", "false"]) == 0
    assert json.loads((checkpoint.parent / "audit" / "audit.json").read_text())["settings"]["claim"] == claim


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["audit"], "--ckpt_path"),
        ([*EIGHT, "--weights", "none.pt"], "--ckpt_path"),
        ([*EIGHT, "--claim", "PGD", "--claim.eps", "0.1"], "eps"),
        (["audit", "--ckpt_path", "none.ckpt"], "none.ckpt is no file"),
        ([*EIGHT, "--budget", "huge"], "quick"),
        ([*EIGHT, "--samples", "0"], "samples=0"),
        ([*EIGHT, "--eps", "0.05"], "eps=0.05"),
        ([*EIGHT, "--transfer_from", "none.ckpt"], "none.ckpt is no file"),
        (["audit", "--compare", "one.json"], "two"),
        (["audit", "--compare", "none.json", "none.json"], "none.json"),
        (["audit", "--judge", "none.json"], "none.json"),
    ],
)
def test_mistakes_are_told_in_one_line(arguments, expected, capsys):
    assert expected in error(capsys, *arguments)
