"""``snn-sparsity predict``: what a checkpoint sees in a folder of images."""

import csv
import io
import os
import stat
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from lightning import LightningModule
from torch import Tensor

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.commands.network import network_of
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.data.image_files import LOOKED_FOR, Background, contents, read_image, require_inside, tell_left_out
from snn_sparsity.randomness import stream
from snn_sparsity.runs.files import whole_file
from snn_sparsity.validation import InputError

COLUMNS = ("file", "class", "probability")
BATCH = 32
STANDARD_OUTPUT = "-"


def run(given: Namespace) -> int:
    """Write file, class and probability of every image in a folder and below it, resized to 32x32, or of the test set, numbered."""
    target = None if given.out == STANDARD_OUTPUT else _writable(given.out)
    made = network_of(given)
    rows, names = [], made.datamodule.class_names
    # Transparent pixels are seen as they were in training.
    background: Background = getattr(made.datamodule, "background", "white")
    for files, pixels in numbered_images(made.datamodule) if given.images is None else folder_images(Path(given.images), background):
        likeliest = classify(made.model, made.datamodule, pixels).max(1)
        for file, index, probability in zip(files, likeliest.indices.tolist(), likeliest.values.tolist(), strict=True):
            rows.append((file, names[index], f"{probability:.6f}"))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([COLUMNS, *rows])
    if target is None:
        print(table.getvalue(), end="")
        return 0
    with whole_file(target) as whole:
        # A file's name may be no text at all.
        whole.write(table.getvalue().encode(errors="backslashreplace"))
    print(f"{len(rows)} images: {given.out}")
    return 0


def _writable(out: str) -> Path:
    """Return where a file of this name will be; raise InputError if it cannot be, before all the work."""
    # Behind a link: what takes a file's place must take that of the file, and not of the link.
    target = Path(os.path.realpath(out))
    if not os.path.isdir(target.parent):
        raise InputError(f"--out {out}: {target.parent if Path(out).is_symlink() else Path(out).parent} is no folder")
    if os.path.isdir(target):
        raise InputError(f"--out {out} is a folder: give the name of a file")
    with suppress(FileNotFoundError):
        # A path in circles, or too long.
        if not stat.S_ISREG(target.stat().st_mode):
            raise InputError(f"--out {out} is no file: give the name of one, or - for standard output")
    if not all(os.access(place, os.W_OK) for place in (target, target.parent) if place.exists()):
        raise InputError(f"--out {out} cannot be written to")
    return target


def folder_images(folder: Path, background: Background = "white") -> Iterator[tuple[list[str], Tensor]]:
    """Yield the images in a folder and below it in batches: paths from the folder on, sorted, and pixels [N,3,32,32] uint8.

    Raises:
        InputError: If there are none, or one that cannot be read, naming it.
    """
    found = contents(folder)
    tell_left_out(folder, "hidden or left behind by programs", found.left_behind)
    tell_left_out(folder, f"of other endings ({LOOKED_FOR})", found.others)
    files = sorted(found.images)
    if not files:
        raise InputError(f"--images {folder}: no images there ({LOOKED_FOR})")
    require_inside(folder, files)
    for first in range(0, len(files), BATCH):
        some = files[first : first + BATCH]
        yield [path.relative_to(folder).as_posix() for path in some], torch.stack([read_image(path, background) for path in some])


def numbered_images(datamodule: SpikeDataModule) -> Iterator[tuple[list[str], Tensor]]:
    """Yield the test set in batches: numbers, and pixels [N,3,32,32] uint8."""
    datamodule.prepare_data()
    datamodule.setup("predict")
    images = datamodule.split("test").images
    for first, some in enumerate(images.split(BATCH)):
        yield [str(BATCH * first + place) for place in range(len(some))], some


def classify(model: LightningModule, datamodule: SpikeDataModule, pixels: Tensor) -> Tensor:
    """Return the class probabilities [N,K] of images; the draws of a stochastic code depend on the seed alone."""
    pixels = pixels.to(model.device)
    encoder = datamodule.spike_encoder.to(model.device)
    spikes = encoder(pixels, stream(datamodule.seed) if encoder.stochastic else None)
    with torch.inference_mode():
        probabilities: Tensor = model.predict_step(SpikeBatch(spikes, torch.zeros(len(pixels), dtype=torch.long), pixels), 0)
    return probabilities.cpu()
