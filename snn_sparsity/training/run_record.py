"""What a run was made with, and whether it finished: ``run.json`` in the run directory."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from spikingjelly.logger import logger as spikingjelly_log

import snn_sparsity
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.distributed import first_alone
from snn_sparsity.numerics import numerics
from snn_sparsity.probes.adversarial_accuracy import AdversarialAccuracy
from snn_sparsity.probes.base import probes_of
from snn_sparsity.runs.directory import RECORD, read_record, take_hold
from snn_sparsity.runs.files import write_whole
from snn_sparsity.runs.interrupts import Interrupted
from snn_sparsity.validation import InputError

PACKAGES = ("torch", "torchvision", "lightning", "spikingjelly", "torchmetrics", "jsonargparse", "tensorboard")


class RunRecord(Callback):
    """Write ``run.json``: command, status, git commit, versions, device, precision, SpikingJelly's kernel, data checksums, times.

    ``status`` is ``running`` until the run ends, then ``finished``, ``interrupted`` (Ctrl-C, SIGTERM) or ``failed``: a killed run
    never counts as finished. The resolved configuration lies beside it as ``config.yaml``. Of a run that went on in its directory,
    ``earlier`` holds the records of the parts before, the first one first. Until it ends, its process holds ``run.lock`` beside it.

    Args:
        run_directory: Where the file goes.
        checkpoints: Names of the checkpoints that stay when the run is finished.
        held: Whether the lock is another's affair.
    """

    def __init__(self, run_directory: str, checkpoints: Sequence[str] = ("best", "last"), held: bool = False) -> None:
        self.checkpoints = checkpoints
        self.path = Path(run_directory) / RECORD
        self.held_already = held
        self.began = time.perf_counter()
        self.since = self.began
        self.training = 0.0
        self.record: dict[str, Any] = {}
        self.kernels: list[str] = []
        self.held: int | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take hold of a new run. Before, not all processes have found out its number: it is there as soon as it is held.

        Raises:
            LiveRunError: If another process has.
        """

        def hold() -> None:
            self.held = take_hold(self.path.parent)

        if not self.held_already:
            first_alone(trainer, hold)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record of a fit; where there is one already, the run goes on.

        Raises:
            InputError: If the run would go on with other images, or more or fewer of them a step.
        """
        self._begin(trainer, pl_module, goes_on=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record of a validation by itself."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._begin(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the record of a test."""
        self._begin(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Note why the run ended."""
        stopped = isinstance(exception, Interrupted | KeyboardInterrupt | BrokenPipeError)
        # What cannot be written must not hide why the run ended: on a full disk the record goes on saying "running".
        with suppress(InputError):
            if self.record:
                self._end(trainer, "interrupted" if stopped else "failed", error=f"{type(exception).__name__}: {exception}")
        self._let_go()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the end."""
        self._end(trainer, "finished")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let go of the run."""
        self._let_go()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training steps begin here."""
        self.since = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the time of a training step, with the loading of its batch."""
        now = time.perf_counter()
        self.training, self.since = self.training + now - self.since, now

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Training steps go on from here; or it was a validation by itself, and this is its end."""
        self.since = time.perf_counter()
        if self.record.get("command") == "validate":
            self._end(trainer, "finished")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the end."""
        self._end(trainer, "finished")

    def _begin(self, trainer: Trainer, pl_module: LightningModule, goes_on: bool = False) -> None:
        def begin() -> None:
            earlier = read_record(self.path.parent) if goes_on else None
            self._write_first(trainer, pl_module, [*earlier.pop("earlier", []), earlier] if earlier else [])

        first_alone(trainer, begin)

    def _write_first(self, trainer: Trainer, pl_module: LightningModule, earlier: list[dict[str, Any]]) -> None:
        spikingjelly_log.enable("spikingjelly._ops")
        spikingjelly_log.add(
            lambda message: self.kernels.append(str(message).strip()),
            filter=lambda entry: entry["message"].startswith("ops "),
            format="{message}",
        )
        data: Any = getattr(trainer, "datamodule", None)
        objective = getattr(pl_module, "objective", None)
        record = {
            "command": trainer.state.fn.value if trainer.state.fn else None,
            "status": "running",
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "arguments": sys.argv[1:],
            **environment(pl_module.device),
            "precision": trainer.precision,
            "numerics": numerics(),
            "optimizer": str(optimisation) if (optimisation := getattr(pl_module, "optimisation", None)) else "",
            "world_size": trainer.world_size,
            "effective_batch_size": getattr(data, "batch_size", 0) * trainer.world_size * trainer.accumulate_grad_batches,
            "data": images_of(data),
            # What the run is trained for, and the passes of all time steps that each batch takes.
            **({"objective": str(objective), "passes": objective.passes._asdict()} if objective else {}),
            "probes": {probe.name: probe.describe() for probe in probes_of(trainer)},
            "eot_draws": {probe.name: probe.eot_draws for probe in probes_of(trainer) if isinstance(probe, AdversarialAccuracy)},
            "earlier": earlier,
        }
        for name in ("effective_batch_size", "data") if earlier else ():
            if earlier[-1].get(name) != record[name]:
                raise InputError(f"{self.path.parent} cannot go on: {name} is not what {self.path.name} says, but {record[name]}")
        self.record = record
        self._write()

    @rank_zero_only
    def _end(self, trainer: Trainer, status: str, **more: str) -> None:
        kept = {name: self.path.resolve().with_name(f"{name}.ckpt") for name in self.checkpoints}
        self.record |= {
            "status": status,
            "wall_seconds": round(time.perf_counter() - self.began, 1),
            "training_seconds": round(self.training, 3),
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "spikingjelly_kernels": self.kernels,
            **{f"{name}_checkpoint": str(path) if path.is_file() else "" for name, path in kept.items()},
            **more,
        }
        self._write()

    def _let_go(self) -> None:
        if self.held is not None:
            os.close(self.held)
            self.held = None

    def _write(self) -> None:
        write_whole(self.path, json.dumps(self.record, indent=2) + "\n")


def images_of(data: Any) -> dict[str, Any]:
    """Return what identifies a datamodule's images: its class, sizes and checksums, and which known dataset they are."""
    if not isinstance(data, SpikeDataModule):
        return {"name": type(data).__name__, "splits": {}}
    known = {"recognised": data.recognised._asdict()} if data.recognised else {}
    return {"name": type(data).__name__, "splits": data.identity(), **known}


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a number was measured with: git commit, versions of packages, device."""
    processor = f"{platform.processor() or platform.machine()} ({os.cpu_count()} cores, {torch.get_num_threads()} threads)"
    folder = Path(__file__).parent
    try:
        # The commit of this package's checkout, with + if files differ from it; None outside a checkout.
        commit = _git(folder, "rev-parse", "HEAD") + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        commit = None
    return {
        "git_commit": commit,
        "packages": {"snn_sparsity": snn_sparsity.__version__, "python": platform.python_version()}
        | {name: version(name) for name in PACKAGES}
        | {"torch": str(torch.__version__)},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else processor,
    }


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
