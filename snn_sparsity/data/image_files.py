"""Which files below a folder are images, and what their pixels are."""

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from snn_sparsity.data.images import some_names
from snn_sparsity.validation import InputError

log = logging.getLogger(__name__)

SIZE = [32, 32]
IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Those of torchvision."""
LOOKED_FOR = f"looked for {', '.join(IMG_EXTENSIONS)}"
LEFT_BEHIND = frozenset(
    [
        "@eadir", "@tmp", "@__thumb", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "recycler", "lost+found",
        "__macosx", "__pycache__", "cvs", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "system volume information",
        "network trash folder", "temporary items",
    ]
)  # fmt: skip
"""Names, in lower case, under which programs leave their own files; hidden ones (``.ipynb_checkpoints``, ``._x.png``) come on top."""

Background = Literal["white", "black"]


class Contents(NamedTuple):
    """What lies in a folder and below it, in no order.

    Attributes:
        images: Files named like an image.
        others: Files of other endings.
        left_behind: Files and folders that are nobody's data, see :func:`is_left_behind`.
    """

    images: list[Path]
    others: list[Path]
    left_behind: list[Path]


def is_left_behind(name: str) -> bool:
    """Return whether a file or folder of this name is hidden, a back-up copy, or kept by some program for itself.

    Example:
        >>> [name for name in ("cat", ".Trash-1000", "@eaDir", "__MACOSX", "._x.png", "x.png~", "x.png") if not is_left_behind(name)]
        ['cat', 'x.png']
    """
    return name.startswith((".", "~$")) or name.endswith("~") or name.lower() in LEFT_BEHIND


def is_image(path: Path) -> bool:
    """Return whether a file is named like an image."""
    return path.suffix.lower() in IMG_EXTENSIONS


def contents(folder: Path) -> Contents:
    """Return what lies in a folder and below it, also behind links.

    Raises:
        InputError: If a folder cannot be listed, or a link leads back to a folder that it lies in.
    """
    found = Contents([], [], [])
    _collect(folder, frozenset(), found)
    return found


def _collect(folder: Path, above: frozenset[str], found: Contents) -> None:
    here = os.path.realpath(folder)
    if here in above:
        raise InputError(f"{folder} is a link to a folder that it lies in: remove it")
    for path in entries(folder):
        if is_left_behind(path.name):
            found.left_behind.append(path)
        elif os.path.isdir(path):
            _collect(path, above | {here, *map(str, Path(here).parents)}, found)
        else:
            (found.images if is_image(path) else found.others).append(path)


def entries(folder: Path) -> list[Path]:
    """Return what a folder holds; nothing, if there is no such folder.

    Raises:
        InputError: If it cannot be listed.
    """
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{folder} cannot be listed: {error.strerror}") from error


def require_inside(folder: Path, files: Iterable[str | Path]) -> None:
    """Raise InputError, naming the file, if a link leads out of the folder."""
    root = os.path.realpath(folder)
    for file in files:
        # Unlike Path.resolve, it takes a link that leads to itself.
        if not Path(there := os.path.realpath(file)).is_relative_to(root):
            raise InputError(f"{file} leads out of {folder}, to {there}: put the image itself into the folder")


@rank_zero_only
def tell_left_out(folder: Path, why: str, paths: Sequence[Path]) -> None:
    """Warn of files or folders that are not used, if there are any: how many, why, their endings and some names."""
    if not paths:
        return
    endings = Counter(path.suffix.lower() or "no ending" for path in paths)
    counts = ", ".join(f"{count} {ending}" for ending, count in sorted(endings.items(), key=lambda item: (-item[1], item[0])))
    log.warning(
        "%s: left out %d %s (%s): %s", folder, len(paths), why, counts, some_names(path.relative_to(folder).as_posix() for path in paths)
    )


def read_image(path: str | Path, background: Background = "white") -> torch.Tensor:
    """Return the image at ``path`` as [3,32,32] uint8; of 16 bits a channel, the upper eight.

    Args:
        path: The file.
        background: What shows through where the image is transparent, whatever the way it says so: an alpha channel, a palette with
            clear entries, or a colour that counts as clear. A pixel of opacity a becomes ``a * colour + (1 - a) * background``.

    Raises:
        InputError: Naming the file, if it is no readable image, or has 32 bits a channel.
    """
    from torchvision.transforms.v2 import functional as transforms

    try:
        # Opening a pipe would wait for somebody to write to it.
        if not os.path.isfile(path):
            raise FileNotFoundError(path)
        with Image.open(path) as image:
            mode, pixels = image.mode, transforms.pil_to_tensor(_opaque(image, background))
        small = pixels if list(pixels.shape[1:]) == SIZE else transforms.resize(pixels, SIZE, antialias=True)
    except Exception as error:  # Pillow raises whatever the damage makes it raise
        raise InputError(f"{path} is no readable image ({type(error).__name__})") from error
    if mode in ("I", "F"):
        raise InputError(f"{path} has 32 bits a channel: where its black and white are is not known; save it with 8 or 16")
    return small


def _opaque(image: Image.Image, background: Background) -> Image.Image:
    """Return the image in RGB, in front of the background."""
    # How the file holds its samples, said only until they are decoded.
    depth = str([tile.args for tile in getattr(image, "tile", [])])
    if image.mode in ("1", "L", "I;16", "RGB") and "transparency" in image.info:
        clear: int | tuple[int, ...] = image.info.pop("transparency")
        # Pillow brings samples to 8 bits (but grey ones of 16), and leaves this colour as the file says it.
        if isinstance(clear, tuple):
            clear = tuple(value >> 8 for value in clear) if "16" in depth else clear
        else:
            clear *= 85 if "L;2" in depth else 17 if "L;4" in depth else 1
        samples = np.asarray(image.convert("L") if image.mode == "1" else image)
        same = samples == np.asarray(clear)
        cleared = Image.fromarray(np.where(same.all(2) if same.ndim == 3 else same, 0, 255).astype(np.uint8))
    elif image.has_transparency_data:
        # Of a premultiplied image Pillow takes the colours out of it only on this way.
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
        cleared = image.getchannel("A")
    else:
        return _eight_bits(image).convert("RGB")
    ground = Image.new("RGB", image.size, background)
    ground.paste(_eight_bits(image).convert("RGB"), mask=cleared)
    return ground


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a grey image of 16 bits with its upper eight, as Pillow itself does for colours; ``convert`` would clip it to white."""
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)) if image.mode.startswith("I;16") else image
