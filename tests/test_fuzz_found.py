"""What the fuzz found, each as the mistake that it was."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from snn_sparsity.attacks import FGSM, PGD
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.data import ImageFolderDataModule
from snn_sparsity.data.image_folder import read_image
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.networks import SEWResNet
from snn_sparsity.networks.neurons import IFNeuron
from snn_sparsity.validation import InputError
from tests.fuzz.promise import run
from tests.tiny import TinyNetwork

TINY = ["--config", str(Path(__file__).parent / "tiny.yaml"), "--probes", "null"]
LONG = "x" * 300
DEEP = "x/" * 3000


pytestmark = pytest.mark.usefixtures("elsewhere")


@pytest.fixture
def images():
    """Two classes of two images each, for training and testing."""
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            folder = Path("images", split, name)
            folder.mkdir(parents=True)
            for number in range(2):
                Image.new("L", (8, 8), 9 * number).save(folder / f"{number}.png")
    return Path("images")


def load(root):
    data = ImageFolderDataModule(root=str(root))
    assert data.num_classes >= 2
    data.prepare_data()
    return data.load()


# Images ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_a_grey_image_of_16_bits_keeps_its_greys(suffix):
    levels = np.arange(256, dtype=np.uint16).repeat(4).reshape(32, 32)
    Image.fromarray(levels * 257).save(f"deep.{suffix}")
    assert torch.equal(read_image(f"deep.{suffix}"), torch.from_numpy(levels.astype(np.uint8)).expand(3, 32, 32))


@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_an_image_of_32_bits_has_no_black_and_white(kind):
    Image.fromarray(np.ones((8, 8), kind)).save("deep.tif")
    with pytest.raises(InputError, match=r"deep\.tif has 32 bits a channel"):
        read_image("deep.tif")


def test_a_pipe_named_like_an_image_is_not_waited_for(images):
    os.mkfifo(images / "train/cat/pipe.png")
    with pytest.raises(InputError, match=r"pipe\.png is no readable image"):
        load(images)


@pytest.mark.parametrize("target", [".", "..", "../.."])
def test_a_link_back_is_refused(images, target):
    # Followed, two of them make 2^40 folders, and one to the parent puts dogs among the cats.
    for name in ("one", "other"):
        (images / "train/cat" / name).symlink_to(target)
    with pytest.raises(InputError, match="is a link to a folder that it lies in"):
        load(images)


def test_a_class_may_be_a_link(images):
    (images / "train/dog").rename(images / "elsewhere")
    (images / "train/dog").symlink_to("../elsewhere")
    assert load(images).train.labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("target", ["nowhere", "lost.png"])
def test_a_link_to_nothing_is_named(images, target):
    (images / "test/dog/lost.png").symlink_to(target)
    with pytest.raises(InputError, match=r"test/dog/lost\.png is no readable image"):
        load(images)


def test_one_class_is_too_few(images):
    for split in ("train", "test"):
        for path in (images / split / "cat").iterdir():
            path.unlink()
        (images / split / "cat").rmdir()
    with pytest.raises(InputError, match="'dog' is the only class folder in images/train; at least two are needed"):
        load(images)


def test_a_name_that_is_no_text_is_as_good_as_any(images):
    (images / "train/cat/0.png").rename(images / os.fsdecode(b"train/cat/\xff.png"))
    assert len(load(images).train.labels) == 4


# Numbers --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: FGSM(eps=float("inf")),
        lambda: FGSM(eps=8),  # grey levels, where a share is meant
        lambda: PGD(alpha=float("inf")),
        lambda: PGD(steps=10**30),
        lambda: PhaseEncoder(num_steps=10**9),  # a code book of two terabytes
        lambda: IFNeuron(reset=float("nan")),
        lambda: SEWResNet(num_classes=2**31),
        lambda: SpikingClassifier(TinyNetwork(), lr=float("inf")),
        lambda: SpikingClassifier(TinyNetwork(), betas=(0.9, 1.0)),  # refused by Adam, after the run had begun
    ],
)
def test_numbers_beyond_all_measure(make):
    with pytest.raises(InputError, match="is not allowed: give a "):
        make()


def test_a_whole_number_is_a_threshold_too():
    node = IFNeuron(threshold=1, reset=0, alpha=2).build()
    assert (node.v_threshold, node.v_reset) == (1.0, 0.0)


# Command lines --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "--config", LONG], "is no file and no shipped configuration"),
        (["fit", "--config", "bytes"], "--config bytes: 'utf-8' codec can't decode"),
        (["fit", *TINY, "--model.lr", "1" + "0" * 400], "a number that was given is too large for any computer"),
        (["fit", *TINY, "--trainer.default_root_dir", "bytes"], "bytes is no folder"),
        (["fit", *TINY, "--trainer.default_root_dir", LONG], "cannot be made: File name too long"),
        (["fit", *TINY, "--trainer.default_root_dir", "loop"], "loop is no folder"),
        (["fit", "--data", "ImageFolderDataModule", "--data.root", DEEP], "is no folder"),
        (["test", "--ckpt_path", LONG], "is no file"),
        (["configs", "demo", ".", "more"], "configs: unrecognized arguments: more"),
        (["configs", LONG], "is no file and no shipped configuration"),
        (["configs", "demo", LONG], "File name too long"),
        (["report", LONG], "there is no such folder"),
        (["plot", LONG], "is no run"),
        (["sweep", "--print", "--grid", LONG], "is no file and no grid"),
        (["sweep", "--print", "--grid", "paper", "--root", LONG], "cannot be made: File name too long"),
        (["x" * 5000], " ... "),
        # What Lightning would refuse only once the run had begun, divide by, or say in a traceback.
        (["fit", *TINY, "--trainer.val_check_interval", "0"], "trainer.val_check_interval=0 is not allowed"),
        (["fit", *TINY, "--trainer.val_check_interval", "500"], "`val_check_interval` (500) must be less than or equal to"),
        (["fit", *TINY, "--trainer.check_val_every_n_epoch", "0"], "trainer.check_val_every_n_epoch=0 is not allowed"),
        (["fit", *TINY, "--trainer.accumulate_grad_batches", "0"], "trainer.accumulate_grad_batches=0 is not allowed"),
        (["fit", *TINY, "--trainer.precision", "64-true"], "trainer.precision=64-true is not allowed"),
        (["fit", *TINY, "--trainer.devices", "9" * 5000], "Exceeds the limit (4300 digits)"),
        (["fit", *TINY, "--trainer.devices", "[0,0]"], "`devices` selected with `CPUAccelerator` should be an int > 0"),
        (["fit", *TINY, "--seed_everything", "-3"], "seed_everything=-3 is not allowed"),
        (["fit", *TINY, "--config", "betas.yaml"], "betas=None is not allowed: give two numbers"),
        (["fit", *TINY, "--trainer.accelerator", "gpu"], "gpu"),
        (["fit", *TINY, "--trainer.callbacks+", "EarlyStopping", "--trainer.callbacks.monitor", "nope"], "conditioned on metric `nope`"),
        (
            ["fit", *TINY, "--trainer.callbacks+", "ModelCheckpoint", "--trainer.callbacks.monitor", "nope"],
            "could not find the monitored key",
        ),
        (["fit", *TINY[:2], "--probes.pgd.attack.loss", "dlr", "--data.classes", "2"], "loss='dlr' needs at least 3 classes"),
    ],
)
def test_mistakes_get_one_line(arguments, message):
    Path("bytes").write_bytes(b"\x89PNG")
    Path("loop").symlink_to("loop")
    Path("betas.yaml").write_text("model: {betas: null}\n")
    assert message in run(arguments)


def test_a_name_that_cannot_be_printed():
    assert run(["sweep", "--print", "--grid", "paper", "--root", os.fsdecode(b"\xff")]) == ""


@pytest.mark.parametrize(
    "damage", [("probes: ", "probes: [1]\nother: "), ("class_path: tests.tiny.TinyNetwork", "- 1"), ("max_epochs: 1", "")]
)
def test_a_configuration_that_is_no_configuration(damage):
    assert run(["fit", *TINY, "--trainer.max_epochs", "1"]) == ""
    (config,) = Path("runs").rglob("config.yaml")
    config.write_text(config.read_text().replace(*damage, 1))
    assert str(config.parent) in run(["keep", "runs", "--out", "kept"])


def test_a_run_that_was_refused_late_leaves_the_others(images):
    assert run(["fit", *TINY, "--trainer.max_epochs", "1"]) == ""
    before = sorted(Path("runs").rglob("*"))
    assert run(["fit", *TINY, "--trainer.val_check_interval", "500"])
    assert sorted(Path("runs").rglob("*")) == before


# Checkpoints ----------------------------------------------------------------------------------------------------------------

STATE = {f"network.{name}": tensor for name, tensor in TinyNetwork().state_dict().items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no state_dict"),
        ({"state_dict": None}, "holds no state_dict"),
        ({"state_dict": {"network.fc.weight": {}}}, "holds no state_dict"),
        ({"state_dict": {}}, "checkpoint has no 'network."),
        ({"state_dict": STATE, "hyper_parameters": [1]}, "holds settings that are none of this program"),
        ({"state_dict": STATE, "hyper_parameters": {"network": None}}, "holds settings that are none of this program"),
    ],
)
@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_checkpoint_of_something_else(content, message, command):
    torch.save(content, "other.ckpt")
    assert message in run([command, *TINY, "--ckpt_path", "other.ckpt"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "whole.ckpt"
    torch.save({"state_dict": STATE}, path)
    return str(path)


def test_predictions_do_not_go_into_a_folder(checkpoint):
    Path("folder").mkdir()
    assert "--out folder is a folder" in run(["predict", *TINY, "--ckpt_path", checkpoint, "--out", "folder"])


@pytest.mark.parametrize(("out", "reason"), [("loop", "Too many levels of symbolic links"), (LONG, "File name too long")])
def test_predictions_go_nowhere(out, reason, checkpoint, monkeypatch):
    Path("loop").symlink_to("loop")
    # It is told before all the work.
    monkeypatch.setattr("snn_sparsity.commands.predict.classify", None)
    assert run(["predict", *TINY, "--ckpt_path", checkpoint, "--out", out]).endswith(reason)


def test_predictions_of_a_file_whose_name_is_no_text(checkpoint, images):
    (images / "train/cat/0.png").rename(images / os.fsdecode(b"train/cat/\xff.png"))
    assert run(["predict", *TINY, "--ckpt_path", checkpoint, "--images", "images/train/cat"]) == ""
    assert Path("predictions.csv").read_text().splitlines()[2].startswith("\\udcff.png,")
