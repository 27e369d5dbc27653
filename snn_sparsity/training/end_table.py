"""The table at the end of a run, and how to look at its curves."""

import shlex
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from snn_sparsity.measure.operations import INPUT, KINDS
from snn_sparsity.measure.reachability import describe_reachability
from snn_sparsity.measure.surrogates import SURROGATE
from snn_sparsity.probes.adversarial_accuracy import AdversarialAccuracy
from snn_sparsity.probes.base import probes_of
from snn_sparsity.validation import InputError


class Summary(Callback):
    """Print at the start how much of the network no image can train; at the end accuracies, gradients, and the TensorBoard command.

    Args:
        run_directory: The run; TensorBoard is pointed at it.
    """

    def __init__(self, run_directory: str) -> None:
        self.run_directory = Path(run_directory)

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what trains the network, and how much of it no image can train."""
        network: Any = pl_module.network
        if optimisation := getattr(pl_module, "optimisation", None):
            print(f"Optimizer: {optimisation}.", flush=True)
        with suppress(InputError):
            print(f"Reachability: {describe_reachability(network)}.", flush=True)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table of the last epoch."""
        self._print(trainer)

    @rank_zero_only
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table of a validation by itself."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._print(trainer)

    @rank_zero_only
    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the table."""
        self._print(trainer)

    def _print(self, trainer: Trainer) -> None:
        lines = ["", *accuracy_table(trainer), "", *gradient_table(trainer), ""]
        lines += [f"Run:    {self.run_directory}", f"Curves: {_tensorboard()} --logdir {shlex.quote(str(self.run_directory))}"]
        print("\n".join(lines), flush=True)


def _tensorboard() -> str:
    """Return the command as it can be typed here: by name where it is on the path, else beside this Python."""
    return "tensorboard" if shutil.which("tensorboard") else shlex.quote(str(Path(sys.executable).with_name("tensorboard")))


def accuracy_table(trainer: Trainer) -> list[str]:
    """Return a table of clean accuracy and each attack's, with space, protocol and settings."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    rows = [("clean", values.get("val/accuracy", values.get("test/accuracy")), "all images of the set")]
    attacks = [probe for probe in probes_of(trainer) if isinstance(probe, AdversarialAccuracy)]
    rows += [(str(probe.name), values.get(f"{probe.name}/accuracy"), probe.describe()) for probe in attacks]
    return [f"{'accuracy':<16} {'%':>6}  protocol"] + [f"{name:<16} {_percent(value):>6}  {how}" for name, value, how in rows]


def gradient_table(trainer: Trainer) -> list[str]:
    """Return a table of the share of zeros and the norm of the gradient, by kind of operation."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    kinds = [kind for kind in (INPUT, *KINDS, SURROGATE) if f"grad_zero_mean/{kind}" in values]
    rows = [(kind, values[f"grad_zero_mean/{kind}"], values[f"grad_norm_mean/{kind}"]) for kind in kinds]
    # One line each: zeros of the stem's pooling and of the final one make no mean.
    pools = sorted(name for name in values if name.startswith("grad_zero/pool/"))
    rows += [(f"pool {name.split('_', 2)[2]}", values[name], values[name.replace("_zero", "_norm", 1)]) for name in pools]
    if not rows:
        return []
    return [f"{'input gradient of':<18} {'zeros %':>8} {'L2 norm':>10}"] + [
        f"{kind:<18} {_percent(zeros):>8} {norm:>10.4g}" for kind, zeros, norm in rows
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
