"""Nothing given from outside is run, leads elsewhere, or calls home."""

import ast
import io
import os
import pickle
import re
import socket
import sys
import tarfile
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
from PIL import Image

import snn_sparsity
from snn_sparsity.commands.main import main
from snn_sparsity.data import CIFARDataModule, ImageFolderDataModule
from snn_sparsity.data.images import Splits, cached
from snn_sparsity.training.checkpoint_files import last_whole
from snn_sparsity.validation import InputError
from tests.test_data import archive, server  # noqa: F401  # fixtures
from tests.test_report import config, write
from tests.tiny import colourful

PROJECT = Path(__file__).parents[1]
TINY = ["--config", str(PROJECT / "tests/tiny.yaml"), "--data.encoder", "PhaseEncoder", "--data.encoder.num_steps", "2"]
SCRIPT = "<script>alert('x')</script>"


@pytest.fixture(autouse=True)
def _elsewhere(elsewhere, monkeypatch):
    monkeypatch.setattr("snn_sparsity.audit.collect.control.STEPS", 3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        patch.setattr(sys, "path", list(sys.path))
        assert main(["fit", *TINY, "--probes", "null"]) == 0
        return Path("runs/tiny/seed_3407/0/last.ckpt").absolute()


def refusal(capsys, *arguments):
    """One line, exit code 2, and nothing left behind."""
    before = sorted(Path.cwd().rglob("*"))
    capsys.readouterr()
    assert main(list(arguments)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert "Traceback" not in line
    assert sorted(Path.cwd().rglob("*")) == before
    return line


# Checkpoints ----------------------------------------------------------------------------------------------------------------


class Bomb:
    """Whoever unpickles it makes a folder ``exploded``."""

    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def plant(path, how):
    content = {"state_dict": {"network.fc.weight": Bomb()}, "epoch": 0, "global_step": 1, "hyper_parameters": {}}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")


def test_the_bomb_works():
    plant(Path("bomb.ckpt"), "zip")
    torch.load("bomb.ckpt", weights_only=False)
    assert Path("exploded").exists()


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict", "audit"])
def test_a_malicious_checkpoint_is_refused_and_not_run(command, how, capsys, monkeypatch):
    # What overrules PyTorch's default must not overrule us.
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    plant(Path("bomb.ckpt"), how)
    assert "--ckpt_path bomb.ckpt is no readable checkpoint" in refusal(capsys, command, *TINY, "--ckpt_path", "bomb.ckpt")
    assert not Path("exploded").exists()


def test_a_malicious_second_network_is_refused_and_not_run(checkpoint, capsys):
    plant(Path("bomb.ckpt"), "zip")
    arguments = ["audit", "--ckpt_path", str(checkpoint), "--transfer_from", "bomb.ckpt", "--out", "audited", "--samples", "4"]
    assert "--transfer_from bomb.ckpt is no readable checkpoint" in refusal(capsys, *arguments)
    assert not Path("exploded").exists()


def test_a_malicious_checkpoint_in_a_run_that_goes_on(checkpoint, capsys):
    run = Path("runs/tiny/seed_3407/0")
    run.mkdir(parents=True)
    (run / "config.yaml").write_text((checkpoint.parent / "config.yaml").read_text())
    plant(run / "last.ckpt", "zip")
    assert "no readable checkpoint" in refusal(capsys, "fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(run / "last.ckpt"))
    assert last_whole(run) is None  # a run that goes on begins again
    assert not Path("exploded").exists()


def test_weights_only_cannot_be_switched_off(checkpoint, capsys):
    for command in ("fit", "validate", "test"):
        line = refusal(capsys, command, *TINY, "--ckpt_path", str(checkpoint), "--weights_only", "false")
        assert "weights_only=false is not allowed" in line


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_lightning_is_told_to_load_weights_only(command, checkpoint, monkeypatch):
    asked = []
    original = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: asked.append(kwargs.get("weights_only")) or original(*args, **kwargs))
    assert main([command, *TINY, "--probes", "null", "--ckpt_path", str(checkpoint), "--trainer.limit_test_batches", "1"]) == 0
    assert len(asked) > 2
    assert set(asked) == {True}


def test_a_malicious_cache_of_images_is_decoded_again():
    path = Path("images.pt")
    torch.save({"splits": Bomb(), "checksums": []}, path)
    images = Splits(colourful(2, 2, 0), colourful(2, 2, 1))
    assert cached(path, lambda: images).train is images.train
    assert not Path("exploded").exists()


@pytest.mark.parametrize("path", sorted(Path(snn_sparsity.__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_no_file_unpickles(path):
    tree = ast.parse(path.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("torch.load", "np.load", "numpy.load", "yaml.load"):
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
            safe = given.get("weights_only") == "True" or given.get("Loader") == "_LOADER" or given.get("allow_pickle") == "False"
            assert safe, ast.unparse(call)


# Archives and folders -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_tampered_archive_is_not_unpacked(by_hand, archive, server, tmp_path):  # noqa: F811
    evil = tarfile.TarInfo("../../escaped")
    with tarfile.open(archive, "w:gz") as file:
        file.addfile(evil, io.BytesIO(b""))
    root = tmp_path / "root" / "deep"
    root.mkdir(parents=True)
    if by_hand:
        (root / archive.name).write_bytes(archive.read_bytes())
    with pytest.raises(InputError, match="no intact archive at"):
        CIFARDataModule(root=str(root), url=server).prepare_data()
    assert not list(tmp_path.rglob("*escaped*"))
    assert {path.name for path in root.rglob("*")} <= {archive.name}


def test_a_tampered_unpacked_file_is_not_unpickled(archive, tmp_path):  # noqa: F811
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(archive) as file:
        file.extractall(root, filter="data")
    for name in ("data_batch_3", "test_batch", "batches.meta"):
        intact = (root / "cifar-10-batches-py" / name).read_bytes()
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps({"data": Bomb(), "labels": [1], "label_names": Bomb()}))
        with pytest.raises(InputError, match="no intact archive at"):
            CIFARDataModule(root=str(root)).load()
        (root / "cifar-10-batches-py" / name).write_bytes(intact)
    assert not Path("exploded").exists()


@pytest.fixture
def folder(tmp_path):
    """Two classes with an image each, and a secret beside them."""
    root = tmp_path / "images"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(root / split / name / "0.png")
    (tmp_path / "secret").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "secret" / "key.png")
    return root


def test_links_inside_a_folder_are_followed(folder, tmp_path):
    (folder / "train/cat/1.png").symlink_to(folder / "train/dog/0.png")
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert len(ImageFolderDataModule(root=str(link)).load().train.labels) == 3


@pytest.mark.parametrize(("link", "target"), [("train/cat/1.png", "secret/key.png"), ("test/dog/more", "secret"), ("train/bird", "secret")])
def test_links_out_of_a_folder_are_refused(link, target, folder, tmp_path, capsys):
    (folder / link).symlink_to(tmp_path / target)
    with pytest.raises(InputError, match=rf"{link}.* leads out of {folder}, to {tmp_path / 'secret/key.png'}"):
        ImageFolderDataModule(root=str(folder)).load()


def test_links_out_of_a_folder_are_not_predicted(folder, tmp_path, checkpoint, capsys):
    (folder / "train/cat/1.png").symlink_to(tmp_path / "secret/key.png")
    line = refusal(capsys, "predict", "--ckpt_path", str(checkpoint), "--images", str(folder))
    assert "train/cat/1.png leads out of" in line


# Pages ----------------------------------------------------------------------------------------------------------------------


def safe(text):
    assert "<script" not in text
    assert text.count("&lt;script&gt;") > 0


def test_the_report_escapes_names_from_configurations_records_and_paths():
    # A file's name can hold no slash.
    name = SCRIPT.replace("/", "")
    settings = config(network=SCRIPT, kind="ImageFolderDataModule", root=f"images/{name}", name="folder")
    settings["probes"][SCRIPT] = settings["probes"].pop("pgd")
    settings["probes"]["fgsm"]["init_args"]["attack"]["class_path"] = f"m.{SCRIPT}"
    settings["model"]["network"]["init_args"] |= {"pool": SCRIPT, "stem": SCRIPT, "neuron": {"surrogate": SCRIPT}}
    values = {"val/accuracy": 0.5, f"{SCRIPT}/accuracy": 0.25, "fgsm/accuracy": 0.3, f"grad_zero/conv/01_{SCRIPT}": 0.1,
              f"grad_zero_mean/{SCRIPT}": 0.1, "grad_zero_mean/conv": 0.1}  # fmt: skip
    write(f"{name}/seed_1/0", settings, {0: values}, device=SCRIPT)
    write(f"{name}/seed_1/1", settings | {"seed_everything": 5}, {0: values}, status="failed", error=SCRIPT)
    assert main(["report", "runs", "--out", name]) == 0
    safe((Path(name) / "report.html").read_text())
    markdown = (Path(name) / "report.md").read_text()
    safe(markdown)
    for target in re.findall(r"\]\(<(.*?)>\)", markdown):
        assert target.startswith("#") or (Path(name) / unquote(target)).is_file()


def test_the_card_of_a_kept_run_escapes_too():
    settings = config(network=SCRIPT)
    settings["probes"][SCRIPT] = settings["probes"].pop("pgd")
    write("one/seed_1/0", settings, {0: {"val/accuracy": 0.5, f"{SCRIPT}/accuracy": 0.25}}, device=SCRIPT)
    assert main(["keep", "runs", "--out", "kept"]) == 0
    for card in Path("kept").rglob("*.md"):
        safe(card.read_text())


# The network ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls(monkeypatch):
    """Addresses that were asked for; nobody answers."""
    asked = []

    def refuse(*args, **kwargs):
        asked.append(args[-1] if args else kwargs)
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr("urllib.request._opener", None)
    return asked


@pytest.mark.long
def test_no_command_calls_anyone(calls):
    few = ["--data.train_images", "8", "--data.test_images", "4", "--probes.codebook", "null"]
    assert main(["fit", *TINY, *few]) == 0
    run = Path("runs/tiny/seed_3407/0")
    checkpoint = ["--ckpt_path", str(run / "last.ckpt")]
    assert main(["validate", *TINY, *few, *checkpoint]) == 0
    assert main(["test", *TINY, *few, *checkpoint]) == 0
    assert main(["predict", *TINY, *few, *checkpoint]) == 0
    assert main(["report", "runs"]) == 0
    assert main(["plot", str(run), "--out", "figures"]) == 0
    assert main(["keep", "runs", "--out", "kept"]) == 0
    assert calls == []


@pytest.mark.long
def test_an_audit_escapes_paths_and_classes_and_calls_no_one(calls):
    name = SCRIPT.replace("/", "")
    for split, classes in (("train", 3), ("test", 1)):
        for label in range(4):
            folder = Path("images") / split / (f"{label}{name}")
            folder.mkdir(parents=True)
            for number in range(classes):
                Image.new("RGB", (32, 32), (60 * label, 9 * number, 0)).save(folder / f"{number}.png")
    Path(name).mkdir()
    arguments = ["--data", "ImageFolderDataModule", "--data.root", "images", "--data.validation", "test", "--probes", "null"]
    config_file = Path(name) / f"{name}.yaml"
    config_file.write_text((PROJECT / "tests/tiny.yaml").read_text().replace("tests.tiny.TinyDataModule", "ImageFolderDataModule"))
    tiny = ["--config", str(config_file), *arguments, "--data.encoder", "PhaseEncoder", "--data.encoder.num_steps", "2"]
    assert main(["fit", *tiny, "--trainer.default_root_dir", name]) == 0
    (made,) = Path(name).rglob("last.ckpt")
    quick = ["--samples", "4", "--space", "spikes", "--trainer.enable_progress_bar", "false"]
    assert main(["audit", "--ckpt_path", str(made), *quick]) == 0
    page = (made.parent / "audit" / "audit.html").read_text()
    safe(page)
    assert page.count("&lt;script&gt;") > 4  # the path, and each class
    safe((made.parent / "audit" / "audit.md").read_text())
    assert calls == []


def test_a_dataset_that_is_missing_is_the_one_reason_to_call(calls, capsys):
    assert main(["fit", "--config", "sew18_maxpool"]) == 2
    assert "Put cifar-10-python.tar.gz" in capsys.readouterr().err
    assert calls


@pytest.mark.parametrize("command", ["fit", "test", "audit"])
def test_offline_even_the_dataset_is_not_downloaded(command, calls, capsys, monkeypatch, checkpoint, tmp_path):
    monkeypatch.setenv("SNN_SPARSITY_OFFLINE", "1")
    arguments = [*TINY, "--data", "CIFARDataModule", "--model.network", "snn_sparsity.networks.SEWResNet"]
    given = [] if command == "fit" else ["--ckpt_path", str(trained_on_cifar(checkpoint, tmp_path))]
    line = refusal(capsys, command, *arguments, *given)
    cache = os.environ["SNN_SPARSITY_CACHE"]
    assert f"no intact archive at {cache}/cifar-10-python.tar.gz, and SNN_SPARSITY_OFFLINE forbids to download it" in line
    assert line.endswith("Put cifar-10-python.tar.gz (MD5 c58f30108f718f92721af3b95e74349a) there")
    assert calls == []


def trained_on_cifar(checkpoint, folder):
    """Return a checkpoint of an untrained network for CIFAR-10."""
    from snn_sparsity.classifier import SpikingClassifier
    from snn_sparsity.networks import SEWResNet

    content = torch.load(checkpoint, weights_only=True)
    content |= {"state_dict": SpikingClassifier(SEWResNet()).state_dict(), "hyper_parameters": {}, "datamodule_hyper_parameters": {}}
    torch.save(content, folder / "cifar.ckpt")
    return folder / "cifar.ckpt"


@pytest.mark.parametrize("value", ["", "0"])
def test_offline_is_off_when_it_says_so(value, archive, server, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SNN_SPARSITY_OFFLINE", value)
    assert len(CIFARDataModule(url=server, root=str(tmp_path / "root")).load().test.labels) == 2


def test_offline_an_archive_put_in_place_is_used(archive, calls, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setenv("SNN_SPARSITY_OFFLINE", "1")
    root = tmp_path / "root"
    root.mkdir()
    (root / archive.name).write_bytes(archive.read_bytes())
    assert len(CIFARDataModule(root=str(root)).load().test.labels) == 2
    assert calls == []


# What is shipped ------------------------------------------------------------------------------------------------------------


def recipe(target):
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", (PROJECT / "Makefile").read_text(), re.M)[1]


def test_tensorboard_listens_on_this_machine_alone():
    assert "--host localhost" in recipe("tensorboard")
    assert "bind_all" not in (PROJECT / "Makefile").read_text() + (PROJECT / "README.md").read_text()


def test_dependencies_that_could_not_be_looked_up_are_an_error():
    assert "pip-audit --strict" in recipe("audit-deps")
    assert "-r constraints.txt" in recipe("audit-deps")


def test_the_image_runs_as_an_ordinary_user():
    users = re.findall(r"^USER\s+(\S+)", (PROJECT / "docker/Dockerfile").read_text(), re.M)
    assert users
    assert users[-1].split(":")[0] not in ("root", "0")


def test_compromised_releases_of_lightning_are_excluded():
    assert re.search(r'"lightning>=2\.6\.4', (PROJECT / "pyproject.toml").read_text())
    assert not re.search(r"^lightning==2\.6\.[23]$", (PROJECT / "constraints.txt").read_text(), re.M)
