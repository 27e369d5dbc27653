"""Folders as they really are: what programs leave behind, other files, lopsided classes, transparent images, caches out of reach."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from snn_sparsity.commands.predict import folder_images
from snn_sparsity.data import ImageFolderDataModule
from snn_sparsity.data.image_files import read_image
from snn_sparsity.data.images import Splits, cached
from snn_sparsity.validation import InputError
from tests.tiny import colourful

LEFT_BEHIND = [".ipynb_checkpoints", ".Trash-1000", "@eaDir", "__MACOSX", ".cat", "$RECYCLE.BIN", "lost+found"]


def png(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (32, 32), value).save(path, "PNG")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for number, (split, name) in enumerate((split, name) for split in ("train", "test") for name in ("cat", "dog")):
        for image in range(2):
            png(root / split / name / f"{image}.png", 10 * number + image)
    return root


def loaded(root):
    data = ImageFolderDataModule(root=str(root))
    data.prepare_data()
    return data, data.load()


def values(images):
    return sorted(images[:, 0, 0, 0].tolist())


def test_what_programs_leave_behind_is_no_data(folder, caplog):
    before, splits = loaded(folder)
    assert caplog.text == ""
    for split in ("train", "test"):
        for name in LEFT_BEHIND:
            png(folder / split / name / "0.png", 200)
            png(folder / split / "cat" / name / "0.png", 200)
        for name in ("._0.png", "0.png~", "Thumbs.db", ".hidden.png"):
            png(folder / split / "dog" / name, 200)
    data = ImageFolderDataModule(root=str(folder))
    assert data.class_names == before.class_names == ["cat", "dog"]
    data.prepare_data()
    data.setup("fit")
    after = data.load()
    for ours, theirs in zip(after, splits, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)


def test_it_is_said_once(folder, caplog):
    png(folder / "train" / ".ipynb_checkpoints" / "0.png")
    png(folder / "train" / "cat" / "@eaDir" / "0.png")
    data = ImageFolderDataModule(root=str(folder))
    data.prepare_data()
    data.setup("fit")
    (said,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert "left out 2 hidden or left behind by programs" in said
    assert "'.ipynb_checkpoints', 'cat/@eaDir'" in said


def test_it_is_not_predicted_either(folder, caplog):
    clean = next(iter(folder_images(folder / "test")))[0]
    for name in LEFT_BEHIND:
        png(folder / "test" / name / "0.png")
    png(folder / "test" / "cat" / "._0.png")
    (folder / "test" / "cat" / "a.gif").write_bytes(b"")
    assert next(iter(folder_images(folder / "test")))[0] == clean
    assert f"left out {len(LEFT_BEHIND) + 1} hidden" in caplog.text
    assert "left out 1 of other endings" in caplog.text
    assert "'cat/a.gif'" in caplog.text


def test_other_files_are_told_with_names_and_counts(folder, caplog):
    for name in ("a.gif", "b.gif", "c.jfif", "d.jpe", "notes"):
        png(folder / "train" / "cat" / name)
    png(folder / "train" / "stray.png")
    png(folder / "stray.png")
    png(folder / "valid" / "cat" / "0.png")
    _, splits = loaded(folder)
    assert len(splits.train.labels) == 4
    assert "left out 5 of other endings" in caplog.text
    assert "(2 .gif, 1 .jfif, 1 .jpe, 1 no ending): 'cat/a.gif', 'cat/b.gif', 'cat/c.jfif' and 2 more" in caplog.text
    assert "train: left out 1 outside class folders (1 .png): 'stray.png'" in caplog.text
    assert "left out 2 beside train and test (1 .png, 1 no ending): 'stray.png', 'valid'" in caplog.text


def test_classes_without_images(folder, caplog):
    png(folder / "train" / "fox" / "0.png")
    _, splits = loaded(folder)
    assert len(splits.train.labels) == 5
    assert "1 of 3 classes has no test image: 'fox'" in caplog.text
    (folder / "train" / "ant").mkdir()
    png(folder / "train" / "bee" / "0.gif")
    with pytest.raises(InputError, match="2 of 5 classes have no training image: 'ant', 'bee'"):
        loaded(folder)


# Transparency --------------------------------------------------------------------------------------------------------------


INK = np.zeros((32, 32), bool)
INK[8:24, 14:18] = True


def made(samples, colour, bits, *chunks):
    """A PNG file with the given samples, [H,W] or [H,W,C], of so many bits, and chunks before the data."""
    deep = samples.astype(">u2").view(np.uint8) if bits == 16 else samples.astype(np.uint8)
    rows = deep.reshape(len(samples), -1)
    if bits < 8:
        each = np.unpackbits(rows[..., None], axis=2)[..., 8 - bits :]
        rows = np.packbits(each.reshape(len(rows), -1), axis=1)
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], bits, colour, 0, 0, 0)
    whole = b"\x89PNG\r\n\x1a\n"
    for name, body in [(b"IHDR", head), *chunks, (b"IDAT", data), (b"IEND", b"")]:
        whole += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return whole


def stored(image, kind):
    content = io.BytesIO()
    image.save(content, kind)
    return content.getvalue()


def with_alpha(mode):
    alpha = Image.fromarray(np.where(INK, 255, 0).astype(np.uint8))
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.putalpha(alpha)
    return image.convert(mode)


def keyed(grey, clear, depth):
    """Grey levels: ink is 0 and so would be nothing, but the level ``clear`` is see-through."""
    return made(np.where(INK, 0, clear), 0, depth, (b"tRNS", struct.pack(">H", clear)))


PALETTE = made(np.where(INK, 1, 0), 3, 8, (b"PLTE", bytes(6)), (b"tRNS", bytes([0, 255])))
DRAWINGS = {
    "RGBA": stored(with_alpha("RGBA"), "PNG"),
    "LA": stored(with_alpha("LA"), "PNG"),
    "WebP": stored(with_alpha("RGBA"), "WEBP"),
    "TIFF": stored(with_alpha("RGBA"), "TIFF"),
    "palette": PALETTE,
    "palette of 1 bit": made(np.where(INK, 1, 0), 3, 1, (b"PLTE", bytes(6)), (b"tRNS", bytes([0]))),
    "RGBA of 16 bits": made(np.dstack([np.zeros((32, 32, 3), int), np.where(INK, 65535, 0)]), 6, 16),
    "LA of 16 bits": made(np.dstack([np.zeros((32, 32), int), np.where(INK, 65535, 0)]), 4, 16),
    "tRNS, grey of 1 bit": keyed(1, 1, 1),
    "tRNS, grey of 2 bits": keyed(2, 2, 2),
    "tRNS, grey of 4 bits": keyed(4, 9, 4),
    "tRNS, grey of 8 bits": keyed(8, 1, 8),
    "tRNS, grey of 16 bits": keyed(16, 300, 16),
    "tRNS, colour": made(np.where(INK[..., None], 0, [1, 0, 2]), 2, 8, (b"tRNS", struct.pack(">HHH", 1, 0, 2))),
    "tRNS, colour of 16 bits": made(np.where(INK[..., None], 0, [256, 0, 512]), 2, 16, (b"tRNS", struct.pack(">HHH", 256, 0, 512))),
}


@pytest.mark.parametrize("drawing", DRAWINGS.values(), ids=list(DRAWINGS))
def test_a_black_drawing_on_a_clear_ground_is_black_on_white(drawing, tmp_path):
    path = tmp_path / "drawing.png"
    path.write_bytes(drawing)
    wanted = torch.from_numpy(np.where(INK, 0, 255).astype(np.uint8)).expand(3, 32, 32)
    assert torch.equal(read_image(path), wanted)
    assert torch.equal(read_image(path, "black"), torch.zeros_like(wanted))


@pytest.mark.parametrize("mode", ["PA", "RGBa", "La", "P"])
def test_modes_that_only_some_formats_have(mode, monkeypatch, tmp_path):
    source = with_alpha("RGBA")
    image = source.convert("LA").convert("La") if mode == "La" else source.quantize() if mode == "P" else source.convert(mode)
    assert image.mode == mode
    assert image.has_transparency_data
    monkeypatch.setattr(Image, "open", lambda path: image)
    (tmp_path / "x").touch()
    assert torch.equal(read_image(tmp_path / "x")[0].bool(), torch.from_numpy(~INK))


def test_half_transparent_pixels_are_mixed(tmp_path):
    Image.new("RGBA", (32, 32), (200, 100, 0, 51)).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[:, 0, 0].tolist() == [244, 224, 204]  # 255 + (51 / 255) * (colour - 255)
    assert read_image(tmp_path / "x.png", "black")[:, 0, 0].tolist() == [40, 20, 0]


def test_the_ground_is_a_setting_and_part_of_the_cache(folder):
    Image.new("RGBA", (32, 32), (0, 0, 0, 0)).save(folder / "train" / "cat" / "clear.png")
    for background, value in (("white", 255), ("black", 0)):
        data = ImageFolderDataModule(root=str(folder), background=background)
        assert values(data.load().train.images[data.load().train.labels == 0])[-1] == max(value, 1)
    with pytest.raises(InputError, match="background='grey'"):
        ImageFolderDataModule(root=str(folder), background="grey")


# Caches --------------------------------------------------------------------------------------------------------------------


def away(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk that is away" / "cache")
    return tmp_path / "link"


def file_in_its_place(tmp_path):
    (tmp_path / "file").write_text("something else")
    return tmp_path / "file"


def file_above(tmp_path):
    return file_in_its_place(tmp_path) / "deeper"


def read_only(tmp_path):
    return "/proc/cache"  # whoever runs the tests, here nobody can make a folder


def not_to_be_written(tmp_path):
    return "/proc/self"  # it is there, and takes nobody's files, not even root's


@pytest.mark.parametrize("place", [away, file_in_its_place, file_above, read_only, not_to_be_written])
def test_a_cache_out_of_reach_costs_one_warning(place, folder, tmp_path, monkeypatch, caplog):
    expected = ImageFolderDataModule(root=str(folder)).load()
    monkeypatch.setenv("SNN_SPARSITY_CACHE", str(place(tmp_path)))
    data = ImageFolderDataModule(root=str(folder), validation="test")
    data.prepare_data()
    data.setup("fit")
    assert torch.equal(data.split("test").images, expected.test.images)
    assert caplog.text.count("cannot be kept") == 1


@pytest.mark.parametrize(
    "broken", ["snn_sparsity.runs.files._alone", "pathlib.Path.replace", "torch.save", "shutil.disk_usage", "pathlib.Path.is_file"]
)
def test_whatever_the_disk_refuses_nothing_unfinished_stays(broken, tmp_path, monkeypatch, caplog):
    splits = Splits(colourful(4, 2, 0), colourful(2, 2, 0))

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(broken, refuse)
        assert cached(tmp_path / "cache" / "set.pt", lambda: splits) is splits
    assert (caplog.text.count("Permission denied") == 1) == (broken != "pathlib.Path.is_file")
    assert not list((tmp_path / "cache").glob("*.part"))
