"""``snn-sparsity predict``: what a checkpoint sees in a folder of images."""

import csv
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

import torch
from lightning import LightningModule, Trainer
from torch import Tensor

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.commands.train import TrainingCLI, quieten
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.data.image_files import LOOKED_FOR, Background, contents, read_image, require_inside, tell_left_out
from snn_sparsity.randomness import stream
from snn_sparsity.training.checkpoint_files import read_checkpoint
from snn_sparsity.validation import InputError

COLUMNS = ("file", "class", "probability")
BATCH = 32


def run(arguments: list[str]) -> int:
    """Run the command; ``arguments[0]`` is its name."""
    quieten()
    PredictionCLI(arguments)
    return 0


class PredictionTrainer(Trainer):
    """A trainer that classifies a folder of images."""

    def predict(  # type: ignore[override]  # the command line's options, not Lightning's
        self,
        model: LightningModule,
        datamodule: SpikeDataModule,
        ckpt_path: str | None = None,
        images: str | None = None,
        out: str = "predictions.csv",
    ) -> None:
        """Write file, class and probability of every image in a folder and below it, resized to 32x32.

        Args:
            model: The classifier.
            datamodule: The data it was trained on: spike code and names of the classes.
            ckpt_path: Checkpoint of the network; its settings come along.
            images: The folder; null is the test set, whose images are numbered.
            out: The CSV file.
        """
        if ckpt_path is None:
            raise InputError("predict needs --ckpt_path: the checkpoint to predict with")
        target = Path(out)
        if not os.path.isdir(target.parent):
            raise InputError(f"--out {out}: {target.parent} is no folder")
        if os.path.isdir(target):
            raise InputError(f"--out {out} is a folder: give the name of a file")
        with suppress(FileNotFoundError):
            # A path in circles, or too long, is told before all the work.
            target.stat()
        if not os.access(target if target.exists() else target.parent, os.W_OK):
            raise InputError(f"--out {out} cannot be written to")
        model.load_state_dict(read_checkpoint(ckpt_path)["state_dict"])
        model.to(self.strategy.root_device).eval()
        rows, names = [], datamodule.class_names
        # Transparent images show what they showed in training.
        background: Background = getattr(datamodule, "background", "white")
        for files, pixels in numbered_images(datamodule) if images is None else folder_images(Path(images), background):
            likeliest = classify(model, datamodule, pixels).max(1)
            for file, index, probability in zip(files, likeliest.indices.tolist(), likeliest.values.tolist(), strict=True):
                rows.append((file, names[index], f"{probability:.6f}"))
        # A file's name may be no text at all.
        with target.open("w", newline="", encoding="utf-8", errors="backslashreplace") as written:
            csv.writer(written, lineterminator="\n").writerows([COLUMNS, *rows])
        print(f"{len(rows)} images: {target}")


class PredictionCLI(TrainingCLI):
    """The command line of ``predict``: that of ``test``, for another method."""

    trainer_type = PredictionTrainer
    methods: ClassVar[Mapping[str, set[str]]] = {"predict": {"model", "datamodule"}}


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
