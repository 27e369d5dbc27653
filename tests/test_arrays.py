"""Archives of one's own: read right, refused in one line, recognised by their content."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.data import ArrayDataModule, ImageSet, Splits, recognition
from snn_sparsity.data.recognition import fingerprints, originals, recognise
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.training.run_record import images_of
from snn_sparsity.validation import InputError
from tests.conftest import SHARED
from tests.tiny import TinyNetwork

rng = np.random.default_rng(0)
IMAGES = {"train_images": rng.integers(0, 256, (6, 3, 32, 32), np.uint8), "test_images": rng.integers(0, 256, (4, 3, 32, 32), np.uint8)}
CONTENT = IMAGES | {"train_labels": np.array([0, 1, 2, 0, 1, 2]), "test_labels": np.array([2, 1, 0, 2], np.uint8)}


def archive(folder, **changed):
    content = {name: array for name, array in (CONTENT | changed).items() if array is not None}
    np.savez(folder / "mine.npz", **content)
    return str(folder / "mine.npz")


def loaded(path):
    data = ArrayDataModule(path=path)
    assert data.num_classes == len(data.class_names)
    data.prepare_data()
    return data, data.load()


def test_images_of_32_pixels_are_taken_as_they_are(tmp_path):
    data, splits = loaded(archive(tmp_path))
    assert data.class_names == ["0", "1", "2"]
    for name, part in splits._asdict().items():
        assert torch.equal(part.images, torch.from_numpy(CONTENT[f"{name}_images"]))
        assert part.labels.tolist() == CONTENT[f"{name}_labels"].tolist()
    last = {name: images.transpose(0, 2, 3, 1) for name, images in IMAGES.items()}
    data, other = loaded(archive(tmp_path, **last, class_names=np.array(["ant", "bee", "cat"])))
    assert data.class_names == ["ant", "bee", "cat"]
    assert torch.equal(other.train.images, splits.train.images)
    assert torch.equal(other.test.images, splits.test.images)


def test_grey_images_become_rgb_and_other_sizes_are_resized(tmp_path):
    flat = {"train_images": np.full((6, 28, 20, 1), 7, np.uint8), "test_images": np.full((4, 28, 20, 1), 9, np.uint8)}
    _, splits = loaded(archive(tmp_path, **flat))
    assert splits.train.images.shape == (6, 3, 32, 32)
    assert (splits.train.images == 7).all()
    assert (splits.test.images == 9).all()


def test_it_is_read_once_and_again_when_its_content_changes(tmp_path, monkeypatch):
    path = archive(tmp_path)
    _, before = loaded(path)
    with monkeypatch.context() as patched:
        patched.setattr(ArrayDataModule, "_decode", lambda self: pytest.fail("read twice"))
        os.utime(path, (0, 0))
        assert torch.equal(ArrayDataModule(path=path).load().train.images, before.train.images)
    _, after = loaded(archive(tmp_path, train_images=255 - CONTENT["train_images"]))
    assert torch.equal(after.train.images, 255 - before.train.images)


REFUSED = {
    "lacks test_labels": {"test_labels": None},
    "lacks train_images, train_labels": {"train_images": None, "train_labels": None},
    "train_images is float": {"train_images": CONTENT["train_images"] / 255},
    r"test_images is uint8 \[4, 3, 1024\]": {"test_images": CONTENT["test_images"].reshape(4, 3, 1024)},
    r"train_images is uint8 \[0, 3, 32, 32\]": {"train_images": CONTENT["train_images"][:0]},
    "neither end may be channels": {"train_images": np.zeros((6, 4, 32, 32), np.uint8)},
    "either end may be channels": {"train_images": np.zeros((6, 3, 32, 3), np.uint8)},
    "3x32x32, test images 3x16x16": {"test_images": CONTENT["test_images"][:, :, :16, :16]},
    "there are 6 images and 5 train_labels": {"train_labels": CONTENT["train_labels"][:5]},
    "there are 4 images and 5 test_labels": {"test_labels": np.arange(5) % 3},
    "train_labels is float64": {"train_labels": CONTENT["train_labels"] * 1.0},
    r"train_labels is int64 \[6, 1\]": {"train_labels": CONTENT["train_labels"][:, None]},
    "train_labels is bool": {"train_labels": CONTENT["train_labels"] > 0},
    "test_labels holds -1": {"test_labels": np.array([0, 1, 2, -1])},
    "test_labels holds 3, but the 3 classes go from 0 to 2": {"test_labels": np.array([0, 1, 2, 3])},
    "train_labels holds 2, but the 2 classes": {"class_names": np.array(["a", "b"])},
    "train_labels go up to 1000000000": {"train_labels": np.array([0, 1, 2, 0, 1, 10**9])},
    "1 of 3 classes has no training image: '1'": {"train_labels": np.array([0, 0, 2, 0, 2, 2])},
    "1 of 4 classes has no training image: 'd'": {"class_names": np.array(list("abcd"))},
    "3 class names, 2 of them": {"class_names": np.array(["a", "a", "b"])},
    "1 class names": {"train_labels": np.zeros(6, int), "test_labels": np.zeros(4, int)},
    "class_names is int64": {"class_names": np.arange(3)},
    "cannot be read .*pickle": {"class_names": np.array(["a", "b", None])},
    "cannot be read .*pickle=": {"train_images": np.array([None] * 6)},
    r"train_original is bool \[5\]": {"train_original": np.ones(5, bool)},
    "test_original is int64": {"test_original": np.ones(4, int)},
}


@pytest.mark.parametrize(("words", "changed"), REFUSED.items())
def test_what_is_wrong_is_told_in_one_line(words, changed, tmp_path):
    with pytest.raises(InputError, match=words) as refusal:
        loaded(archive(tmp_path, **changed))
    assert str(refusal.value).startswith("data.path=")
    assert "\n" not in str(refusal.value)


def test_a_class_missing_from_the_test_set_is_told(tmp_path, caplog):
    loaded(archive(tmp_path, test_labels=np.zeros(4, int)))
    assert "2 of 3 classes have no test image: '1', '2'" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + bytes(18), None])
def test_other_files_are_refused(content, tmp_path):
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="there is no such file" if content is None else "no .npz archive|lacks train_images"):
        ArrayDataModule(path=str(path))
    np.save(tmp_path / "x.npy", np.zeros(3))
    for other, message in ((tmp_path / "x.npy", "no .npz archive"), (tmp_path, "no .npz archive"), ("x" * 5000, "no such file")):
        with pytest.raises(InputError, match=message):
            ArrayDataModule(path=str(other))


def test_a_damaged_archive_is_refused(tmp_path):
    path = Path(archive(tmp_path))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        loaded(str(path))


# Recognition ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def known(monkeypatch):
    """A dataset of 200 training and 100 test images, two of them JPEG versions, that the table knows."""
    splits = Splits(*(ImageSet(torch.from_numpy(rng.integers(0, 256, (count, 3, 4, 4), np.uint8)), torch.arange(count) % 10)
                      for count in (200, 100)))  # fmt: skip
    every = [fingerprints(part, test) for part, test in zip(splits, (False, True), strict=True)]
    table = np.concatenate([every[0][1:], every[1][1:]]), np.array([every[0][0], every[1][0]])
    monkeypatch.setattr(recognition, "_table", lambda: table)
    return splits


def test_all_images_in_any_order_and_parts_of_them_are_recognised(known, caplog):
    assert recognise(known) == ("cifar10", 300, 2, 0, 1)
    assert "2 of 300 images are JPEG versions of cifar10's" in caplog.text
    assert originals(known.train, test=False) == 199
    assert recognise(Splits(*(part.select(torch.randperm(len(part.labels))) for part in known))) == ("cifar10", 300, 2, 0, 1)
    assert recognise(Splits(*(part.select(torch.arange(50, 80)) for part in known))) == ("cifar10", 60, 0, 0, 0)


def test_a_few_unknown_pixels_are_counted_and_many_are_another_dataset(known):
    for changed, expected in ((3, ("cifar10", 300, 1, 3, 1)), (10, None)):
        images = known.train.images.clone()
        images[:changed, 0, 0, 0] ^= 1
        assert recognise(Splits(ImageSet(images, known.train.labels), known.test)) == expected


def test_other_labels_splits_and_copies_are_another_dataset(known):
    train, test = known
    assert recognise(Splits(ImageSet(train.images, train.labels.roll(1)), test)) is None
    assert recognise(Splits(test, train)) is None
    assert recognise(Splits(train, test.select(torch.zeros(100, dtype=torch.long)))) is None
    assert recognise(Splits(ImageSet(train.images.flip(1), train.labels), test)) is None


def test_the_record_knows(tmp_path, known, monkeypatch):
    path = archive(tmp_path)
    data, _ = loaded(path)
    assert "recognised" not in images_of(data)
    monkeypatch.setattr(ArrayDataModule, "_decode", lambda self: known)
    archive(tmp_path, class_names=np.array(list("abcdefghij")))
    data, _ = loaded(path)
    assert images_of(data)["recognised"] == {"dataset": "cifar10", "images": 300, "jpeg": 2, "unknown": 0, "test": 1}


UNPACK = SHARED / "data" / "unpack.py"


@pytest.mark.skipif(not UNPACK.exists(), reason="the pixels of CIFAR-10 lie in ../shared/data, not in this checkout")
@pytest.mark.long
def test_cifar_s_own_pixels_are_recognised_under_any_name(tmp_path):
    path = tmp_path / "holiday.npz"
    subprocess.run([sys.executable, str(UNPACK), str(path)], check=True)
    data, splits = loaded(str(path))
    assert data.recognised == ("cifar10", 60000, 93, 0, 20)
    with np.load(path) as content:
        assert torch.equal(splits.train.images, torch.from_numpy(content["train_images"]))
        flags = [content[f"{name}_original"] for name in splits._fields]
    every = [fingerprints(part, test) for part, test in zip(splits, (False, True), strict=True)]
    original, jpeg = recognition._table()
    assert np.array_equal(original, np.sort(np.concatenate([one[flag] for one, flag in zip(every, flags, strict=True)])))
    assert np.array_equal(jpeg, np.sort(np.concatenate([one[~flag] for one, flag in zip(every, flags, strict=True)])))


# A dataset of one's own ----------------------------------------------------------------------------------------------------


def test_the_documented_datamodule_of_one_s_own_trains(trainer_options, tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    (tmp_path / "stripes_of_the_page.py").write_text(example)
    spec = importlib.util.spec_from_file_location("stripes_of_the_page", tmp_path / "stripes_of_the_page.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    data = module.Stripes(count=16, encoder=PhaseEncoder(num_steps=2), validation=0.25)
    trainer = Trainer(max_epochs=1, **trainer_options)
    trainer.fit(SpikingClassifier(TinyNetwork(data.num_classes)), datamodule=data)
    (metrics,) = trainer.test(trainer.lightning_module, datamodule=data, verbose=False)
    assert "test/accuracy" in metrics
    assert data.split("train").labels.bincount().min() > 0
