"""The table at the end of a run, and how to look at its curves."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from snn_sparsity.measure.names import ACCURACY_INTERVAL, CLEAN_ACCURACY, GRAD_NORM, GRAD_ZERO, IMAGES, accuracy_of, mean_of
from snn_sparsity.measure.operations import INPUT, KINDS
from snn_sparsity.measure.reachability import describe_reachability
from snn_sparsity.measure.surrogates import SURROGATE
from snn_sparsity.probes.adversarial_accuracy import AdversarialAccuracy
from snn_sparsity.probes.base import Probe, probes_of
from snn_sparsity.training.tensorboard import command, tensorboards


class Summary(Callback):
    """Print at the start how much of the network no image can train; at the end accuracies, gradients, and the TensorBoard command.

    Args:
        run_directory: The run; TensorBoard is pointed at it.
    """

    def __init__(self, run_directory: str) -> None:
        self.run_directory = Path(run_directory)
        self.seen: dict[str, float] = {}
        self.ended = False

    @rank_zero_only
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what trains the network, and how much of it no image can train."""
        network: Any = pl_module.network
        print(f"Network: {type(network).__name__}, {sum(weights.numel() for weights in network.parameters()) / 1e6:.2f} million weights.")
        if optimisation := getattr(pl_module, "optimisation", None):
            print(f"Optimizer: {optimisation}.")
        # Whatever cannot be looked at this way may train all the same.
        with suppress(Exception):
            data: Any = trainer.datamodule  # type: ignore[attr-defined]  # Lightning's own, where there is one
            channels, height, width = data.split("train").images.shape[1:]
            print(f"Reachability: {describe_reachability(network, (height, width), channels, data.spike_encoder.num_steps)}.", flush=True)

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that training came to its end."""
        self.ended = True

    @rank_zero_only
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Print the table of the last epoch, when all other callbacks have ended too."""
        if self.ended:
            self.ended = False
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

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep what was measured: a probe that is not due in the last epoch was in one before."""
        self.seen |= logged_so_far(trainer)

    def _print(self, trainer: Trainer) -> None:
        values = self.seen | logged_so_far(trainer)
        lines = ["", *accuracy_table(values, probes_of(trainer)), "", *gradient_table(values), "", f"Run:    {self.run_directory}"]
        shown = tensorboards(trainer)
        lines += [f"Curves: {command(shown[0].log_dir)}" if shown else f"Numbers: {self.run_directory / 'metrics.csv'}"]
        if trainer.state.fn == TrainerFn.FITTING and (
            sizes := {path.name: path.stat().st_size for path in self.run_directory.glob("*.ckpt")}
        ):
            fewer = "" if len(sizes) == 1 else " (--checkpoints best leaves one when a run is finished)"
            lines.append(f"Kept:   {', '.join(sorted(sizes))}, {sum(sizes.values()) / 1e6:.1f} MB{fewer}")
        print("\n".join(lines), flush=True)


def logged_so_far(trainer: Trainer) -> dict[str, float]:
    """Return what is known at the moment, by logged name."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def accuracy_table(values: Mapping[str, float], probes: Sequence[Probe]) -> list[str]:
    """Return a table of clean accuracy and each attack's: with its 95 % interval, the same images without attack, and how many they are.

    Args:
        values: By logged name.
        probes: Of which those that attack have a row.
    """
    stage = "val" if accuracy_of("val") in values else "test"
    attacks = [probe for probe in probes if isinstance(probe, AdversarialAccuracy)]
    rows = [("clean", stage, "", ""), *((str(probe.name), str(probe.name), CLEAN_ACCURACY, probe.describe()) for probe in attacks)]
    lines = [f"{'accuracy':<16} {'%':>5} {'95 % interval':>14} {'clean %':>8} {'images':>7}  protocol"]
    for name, logged, same, how in rows:
        ends = [_percent(values.get(f"{logged}/{end}")) for end in ACCURACY_INTERVAL]
        clean = _percent(values.get(f"{logged}/{same}")) if same else ""
        images = values.get(f"{logged}/{IMAGES}")
        lines.append(
            f"{name:<16} {_percent(values.get(accuracy_of(logged))):>5} {' - '.join(ends):>14} {clean:>8} "
            f"{'-' if images is None else f'{images:.0f}':>7}  {how}".rstrip()
        )
    return lines


def gradient_table(values: Mapping[str, float]) -> list[str]:
    """Return a table of the share of zeros and the norm of the gradient, by kind of operation."""
    zeros, norms = mean_of(GRAD_ZERO), mean_of(GRAD_NORM)
    kinds = [kind for kind in (INPUT, *KINDS, SURROGATE) if f"{zeros}/{kind}" in values]
    rows = [(kind, values[f"{zeros}/{kind}"], values[f"{norms}/{kind}"]) for kind in kinds]
    # One line each: zeros of the stem's pooling and of the final one make no mean.
    pools = sorted(name.removeprefix(prefix) for name in values if name.startswith(prefix := f"{GRAD_ZERO}/pool/"))
    rows += [(f"pool {pool.partition('_')[2]}", values[f"{GRAD_ZERO}/pool/{pool}"], values[f"{GRAD_NORM}/pool/{pool}"]) for pool in pools]
    if not rows:
        return []
    return [f"{'input gradient of':<18} {'zeros %':>8} {'L2 norm':>10}"] + [
        f"{kind:<18} {_percent(zeros):>8} {norm:>10.4g}" for kind, zeros, norm in rows
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
