"""The README's commands exist and its claims about files hold."""

import re
from pathlib import Path

import pytest

from snn_sparsity.commands.main import main
from snn_sparsity.commands.tree import Tree
from snn_sparsity.configs import shipped

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = README + (ROOT / "docs/train.md").read_text() + (ROOT / "docs/tutorial.md").read_text()
CONSOLE = [line for block in re.findall(r"```console\n(.*?)```", PAGES, re.S) for line in block.splitlines()]
CONSOLE += [f"$ {command}" for command in re.findall(r"`(snn-sparsity [^`]+)`", README)]


def test_it_is_short():
    assert len(README.splitlines()) <= 160


def test_the_lines_of_python_work(elsewhere, monkeypatch):
    from lightning import Trainer

    from snn_sparsity import DigitsDataModule

    code = re.findall(r"```python\n(.*?)```", README, re.S)[0]
    few = {"train_samples": 16, "test_samples": 16, "validation": "test"}
    monkeypatch.setattr("snn_sparsity.data.DigitsDataModule", lambda: DigitsDataModule(**few))
    monkeypatch.setattr("lightning.Trainer", lambda **given: Trainer(**given | {"max_epochs": 1, "accelerator": "cpu", "logger": False}))
    seen = {}
    exec(code, seen)
    assert seen["probe"].tag("grad_zero/x") == "grad_zero/x"


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"make ([a-z]+)", README)) - {"sure"} <= targets
    assert targets >= {"help", "setup", "demo", "test", "lint", "types", "tensorboard", "docker", "clean"}


@pytest.mark.parametrize("line", [line for line in CONSOLE if "snn-sparsity fit" in line])
def test_fit_commands_parse(line, capsys, tmp_path, monkeypatch):
    for split in ("train", "test"):
        (tmp_path / "FOLDER" / split / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    command = line.removeprefix("$ ").split("#")[0].split()
    for word in list(command):
        if "=" in word:
            monkeypatch.setenv(*word.split("=", 1))
            command.remove(word)
    with pytest.raises(SystemExit) as stop:
        main([*command[1:], "--print_config"] if "--print_config" not in command else command[1:])
    assert stop.value.code == 0
    assert "class_path" in capsys.readouterr().out


def test_every_command_shown_exists():
    assert {match for line in CONSOLE for match in re.findall(r"snn-sparsity ([a-z]+)", line)} <= set(Tree().commands)


def test_files_named_exist():
    table = (ROOT / "docs/design.md").read_text().split("## Where things are")[1].split("##")[0]
    for name in re.findall(r"`(snn_sparsity/[\w./]+|docs/[\w.]+)`", table):
        assert (ROOT / name).exists(), name
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", README):
        assert (ROOT / link).exists(), link
    for image in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / image).is_file(), image


def test_the_wheel_would_hold_the_configurations():
    assert (shipped.DIRECTORY / "paper.yaml").is_file()
    assert (ROOT / "configs").resolve() == shipped.DIRECTORY.resolve()
    assert '"*.yaml"' in (ROOT / "pyproject.toml").read_text()
