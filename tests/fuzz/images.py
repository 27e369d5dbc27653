"""Folders of images as they should not be: empty, lopsided, looping, with files that are no images or other images."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from snn_sparsity.commands.predict import folder_images
from snn_sparsity.data import ImageFolderDataModule
from tests.fuzz.promise import empty_folder, refused, tree

SIZES = st.sampled_from([(8, 8), (32, 32), (1, 1), (1, 400), (33, 31), (200, 3)])
MODES = ["RGB", "L", "RGBA", "LA", "P", "1", "CMYK", "I;16", "I", "F", "YCbCr", "HSV", "LAB"]
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF", ".webp": "WEBP", ".ppm": "PPM", ".pgm": "PPM", ".JPEG": "JPEG"}
NAMES = st.sampled_from(
    ["a", "b", "ü☃", "x" * 200, "\u202e", "a b", "a\nb", "-a", ".a", "\udcff", "<b>", "a" * 40 + "/" + "b" * 240]
) | st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1, max_size=6)
BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\xff\xff\xff\0\xff\xff\xff\x08\x02\0\0\0"


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """The content of a file that may be an image."""
    whole = _encoded(draw(st.sampled_from(MODES)), draw(SIZES), draw(st.sampled_from(sorted(FORMATS))), draw(st.integers(0, 9)))
    kind = draw(st.sampled_from(["whole"] * 6 + ["cut", "changed", "other", "empty", "bomb"]))
    place = draw(st.integers(0, len(whole)))
    changed = whole[:place] + draw(st.binary(min_size=1, max_size=4)) + whole[place + 4 :]
    return {"whole": whole, "cut": whole[:place], "changed": changed, "other": draw(st.binary(max_size=40)), "empty": b"", "bomb": BOMB}[
        kind
    ]


Make = Callable[[Path], object]


def entries() -> st.SearchStrategy[Make]:
    """Something in a folder: a file, most often, or what only looks like one."""
    special: list[Make] = [
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("."),
        lambda path: path.symlink_to(".."),
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.mkdir(),
        os.mkfifo,
    ]
    return files().map(lambda content: lambda path: path.write_bytes(content)) | st.sampled_from(special)


FOLDER = st.dictionaries(st.tuples(NAMES, st.sampled_from([*FORMATS, ".png", ".txt", ""])), entries(), max_size=4)
CLASSES = st.dictionaries(st.sampled_from(["cat", "dog", "ünïcödé", "<script>"]) | NAMES, FOLDER | st.just("self"), max_size=3)
TREES = st.fixed_dictionaries({"train": CLASSES}, optional={"test": CLASSES})


OPTIONS = st.fixed_dictionaries(
    {}, optional={"validation": st.sampled_from(["test", 0.1, 0.99]), "train_samples": st.integers(1, 3), "test_samples": st.integers(1, 3)}
)


@st.composite
def datasets(draw: st.DrawFn) -> tuple[dict, dict]:
    """Training and test images by class, and settings; most often both have the same classes, so that the files are looked at."""
    content = draw(TREES)
    if draw(st.integers(0, 4)):
        content["train"] = content["train"] or {"cat": draw(FOLDER)}
        content["test"] = {name: draw(FOLDER) for name in content["train"]}
    return content, draw(OPTIONS)


def write(root: Path, content: dict) -> None:
    """Make the folders; what the file system refuses cannot be given by anybody either."""
    for split, classes in content.items():
        (root / split).mkdir(parents=True)
        for name, folder in classes.items():
            _try(lambda path, folder=folder: _fill(path, folder), root / split / name)


def hold_dataset(case: tuple[dict, dict]) -> None:
    """A folder is refused, or gives images of 32x32 with a label each; either way nothing unfinished stays in the cache."""
    content, options = case
    with empty_folder() as here:
        write(here / "images", content)
        before = tree()
        os.environ["SNN_SPARSITY_CACHE"] = str(here / "cache")

        def load() -> None:
            data = ImageFolderDataModule(root="images", **options)
            assert data.num_classes == len(data.class_names) >= 2
            data.prepare_data()
            data.setup("fit")
            for split in ("train", "validation", "test"):
                images, labels = data.split(split)
                assert images.dtype == torch.uint8
                assert images.shape == (len(labels), 3, 32, 32)
                assert labels.min() >= 0
                assert labels.max() < data.num_classes

        reason = refused(load)
        left = set(tree()) - set(before)
        assert not any(name.endswith(b".part") for name in left)
        assert not (reason and any(name.endswith(b".pt") for name in left) and "no training images" not in reason), (reason, left)


def hold_prediction(content: dict) -> None:
    """A folder is refused, or gives every image in it by its name."""
    with empty_folder() as here:
        _fill(here / "images", content)

        def read() -> None:
            for names, pixels in folder_images(Path("images")):
                assert pixels.shape == (len(names), 3, 32, 32)

        refused(read)


def _fill(path: Path, folder: dict | str) -> None:
    if folder == "self":
        path.symlink_to(".")
        return
    path.mkdir(parents=True)
    for (name, suffix), make in folder.items():
        _try(make, path / (name + suffix))


def _try(make: Make, path: Path) -> None:
    try:
        make(path)
    except (OSError, UnicodeError):
        return


def _encoded(mode: str, size: tuple[int, int], suffix: str, number: int) -> bytes:
    """An image file; where the format does not know the mode, in RGB."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    else:
        image = image.convert("L" if mode in ("I", "F") else "RGB").convert(mode) if mode != "LAB" else image
    content = io.BytesIO()
    try:
        image.save(content, FORMATS[suffix])
    except (OSError, ValueError):
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, FORMATS[suffix])
    return content.getvalue()
