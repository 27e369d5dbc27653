"""What a checkpoint sees in a folder of images."""

import csv
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from snn_sparsity.commands.main import main
from snn_sparsity.commands.predict import COLUMNS
from tests.tiny import colourful

TINY = ["--config", str(Path(__file__).parent / "tiny.yaml")]
FEW = ["--trainer.max_epochs", "1", "--probes", "null"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    assert main(["fit", *TINY, *FEW, "--trainer.default_root_dir", str(folder), "--data.encoder", "RateEncoder"]) == 0
    return folder / "tiny/seed_3407/0/last.ckpt"


@pytest.fixture
def images(tmp_path, monkeypatch):
    """The first 40 images of the test set as files, in folders of eight."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    for index, pixels in enumerate(colourful(40, 4, 2).images):
        folder = tmp_path / "images" / f"part_{index // 8}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{index:02d}.PNG", format="png")
    (folder / "notes.txt").write_text("no image")
    return tmp_path / "images"


def rows(path="predictions.csv"):
    with open(path, newline="") as file:
        header, *found = csv.reader(file)
    assert tuple(header) == COLUMNS
    return found


def test_every_image_gets_the_likeliest_class_and_its_probability(checkpoint, images, capsys):
    assert main(["predict", "--ckpt_path", str(checkpoint), "--images", str(images)]) == 0
    assert capsys.readouterr().out.endswith("40 images: predictions.csv\n")
    found = rows()
    assert [file for file, _, _ in found] == [f"part_{index // 8}/{index:02d}.PNG" for index in range(40)]
    assert {name for _, name, _ in found} <= set("0123")
    assert all(0.25 <= float(probability) <= 1 for _, _, probability in found)


def test_the_numbers_are_those_of_the_network(checkpoint, images):
    from snn_sparsity.classifier import SpikingClassifier
    from snn_sparsity.encoders import RateEncoder
    from snn_sparsity.randomness import stream
    from tests.tiny import TinyNetwork

    assert main(["predict", "--ckpt_path", str(checkpoint), "--images", str(images / "part_1"), "--out", "some.csv"]) == 0
    classifier = SpikingClassifier(TinyNetwork()).eval()
    classifier.load_state_dict(torch.load(checkpoint, weights_only=True)["state_dict"])
    with torch.no_grad():
        logits = classifier(RateEncoder(10)(colourful(40, 4, 2).images[8:16], stream(3407)))
    expected = logits.softmax(1).max(1)
    assert [int(name) for _, name, _ in rows("some.csv")] == expected.indices.tolist()
    assert [float(probability) for _, _, probability in rows("some.csv")] == pytest.approx(expected.values.tolist(), abs=1e-6)


def test_the_same_images_get_the_same_bytes(checkpoint, images):
    for out in ("a.csv", "b.csv"):
        assert main(["predict", "--ckpt_path", str(checkpoint), "--images", str(images), "--out", out]) == 0
    assert Path("a.csv").read_bytes() == Path("b.csv").read_bytes()


def test_without_a_folder_it_is_the_test_set(checkpoint, images):
    assert main(["predict", "--ckpt_path", str(checkpoint)]) == 0
    assert [file for file, _, _ in rows()] == [str(index) for index in range(20)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--images", "images/part_0"], "predict needs --ckpt_path"),
        (["--ckpt_path", "C", "--images", "nowhere"], "--images nowhere: no images there"),
        (["--ckpt_path", "C", "--images", "images", "--out", "no/where.csv"], "--out no/where.csv: no is no folder"),
        (["--ckpt_path", "C", "--images", "images", "--out", "/dev/null"], "--out /dev/null is no file: give the name of one, or -"),
        (["--ckpt_path", "C", "--images", "images/bad"], "images/bad/torn.png is no readable image"),
        (["--ckpt_path", "C", "--image", "images"], "--image"),
    ],
)
def test_mistakes_get_one_line_and_leave_nothing(arguments, message, checkpoint, images, capsys):
    (images / "bad").mkdir()
    (images / "bad/torn.png").write_bytes(b"no image")
    before = sorted(Path.cwd().rglob("*"))
    assert main(["predict", *(str(checkpoint) if word == "C" else word for word in arguments)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_dash_is_standard_output(checkpoint, images, capsys):
    before = sorted(Path.cwd().rglob("*"))
    assert main(["predict", "--ckpt_path", str(checkpoint), "--images", str(images / "part_0"), "--out", "-"]) == 0
    header, *found = csv.reader(capsys.readouterr().out.splitlines())
    assert tuple(header) == COLUMNS
    assert [file for file, _, _ in found] == [f"{index:02d}.PNG" for index in range(8)]
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_link_stays_and_the_file_behind_it_is_whole_or_as_it_was(checkpoint, images, monkeypatch):
    kept, link = Path("kept.csv"), Path("link.csv")
    kept.write_text("old")
    link.symlink_to(kept)
    given = ["predict", "--ckpt_path", str(checkpoint), "--images", str(images / "part_0"), "--out", str(link)]
    with monkeypatch.context() as broken:
        broken.setattr("os.fsync", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert main(given) == 2
    assert kept.read_text() == "old"
    assert main(given) == 0
    assert link.is_symlink()
    assert len(rows(kept)) == 8
    assert not list(Path.cwd().glob("*.part"))
