"""The base of every probe: it looks at the network at each validation epoch and leaves no trace."""

import logging
import re
import time
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import chain
from math import ceil, isfinite
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from snn_sparsity.attacks.targets import ImageClassifier
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.distributed import Meeting, StoppedElsewhereError, everyone
from snn_sparsity.encoders.base import require_finite
from snn_sparsity.measure.names import ACCURACY, seconds_of
from snn_sparsity.networks.sync_batch_norm import OneValueError, one_value_refused
from snn_sparsity.probes.batches import loader_of, spike_batch, without_repeats
from snn_sparsity.probes.context import ProbeContext
from snn_sparsity.probes.undisturbed import lent_momentum, undisturbed
from snn_sparsity.randomness import mix
from snn_sparsity.validation import InputError, require_number

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class Probe(Callback, ABC):
    """Measure something of the network on the first images of the set, at validation epochs and in ``validate`` and ``test``.

    It works on any LightningModule: batches are SpikeBatch, or pairs of float images [N,...] and labels [N] from whatever dataloader, for
    a module that maps such images to logits [N,K].

    A probe is a subclass with one method, ``measure``. The base owns the rest: the schedule, gradients inside any evaluation
    loop, eval mode, float32, random numbers, sums over batches and ranks, logging, and putting everything back, so that training
    with and without probes gives the same weights bit for bit. The sanity check is skipped. On any number of processes the values are
    the same, and an error on one of them stops all.

    Logged: each value as ``<name>/<value>``, and ``time/<name>_seconds``.

    Args:
        every_n_epochs: Measure at every n-th epoch of a fit, or at the next that is validated, and at the last that ``max_epochs`` and
            ``max_steps`` let be validated. ``EarlyStopping`` decides later: the epoch at which it ends a fit is measured only if due.
        max_samples: Measure the first images of the set only; null is all. ``test`` always takes all.
        name: First part of the logged names; the command line fills in the key under ``probes``.

    Raises:
        InputError: For a number outside its range.
    """

    every_n_epochs: int = 1
    max_samples: int | None = 1000
    name: str | None = None

    def __post_init__(self) -> None:
        require_number("every_n_epochs", self.every_n_epochs, at_least=1, whole=True)
        if self.max_samples is not None:
            require_number("max_samples", self.max_samples, at_least=1, whole=True)
        if self.name is None:
            self.name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        self._logged: set[str] = set()
        self._reset()

    @abstractmethod
    def measure(self, context: ProbeContext, batch: SpikeBatch) -> dict[str, Tensor]:
        """Return named values of a batch: one number per image, [N], or one number for the whole batch.

        Gradients are on. Everything may be changed: modes, buffers, ``.grad`` and the global random state are put back.
        """

    def summarise(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Turn the values of all images, each [M] in the order of the set, into what is logged; the mean unless overridden."""
        return {name: value.mean() for name, value in values.items()}

    def tag(self, value_name: str) -> str:
        """Return the name under which a value is logged."""
        return f"{self.name}/{value_name}"

    def describe(self) -> str:
        """Return space, protocol and settings in a few words, for tables."""
        return ""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a name that two probes have, weights that are not float32, and a strategy that spreads one network over processes.

        Raises:
            InputError: Naming the setting.
        """
        if not isinstance(self.name, str) or not self.name:
            raise InputError(f"a probe {type(self).__name__} has name={self.name!r}: give the first part of its logged names")
        if sum(probe.name == self.name for probe in probes_of(trainer)) > 1:
            raise InputError(f"two probes are named {self.name!r}, and their values would be mixed: give each a name of its own (name=...)")
        if trainer.precision in ("16-true", "bf16-true"):
            mixed = trainer.precision.replace("true", "mixed")
            # Gradients that underflow would count as sparsity.
            raise InputError(f"trainer.precision={trainer.precision!r} is not allowed with probes, which need float32: give {mixed!r}")
        dtypes = {parameter.dtype for parameter in pl_module.parameters() if parameter.is_floating_point()}
        if trainer.precision == "64-true" or (dtypes and torch.float32 not in dtypes):
            told = torch.float64 if trainer.precision == "64-true" else min(dtypes, key=str)
            raise InputError(f"probes need a module with weights of torch.float32, and these are {told}: give module.float()")
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            raise InputError(
                f"trainer.strategy: {type(trainer.strategy).__name__} may keep only a part of the network on each process, and a probe "
                "needs all of it; give ddp, or switch all probes off (--probes null)"
            )

    @property
    def state_key(self) -> str:
        """Key in checkpoints, distinct for two probes of one class."""
        return f"{type(self).__name__}({self.name})"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn, once for all probes, of a fit in which nothing is measured."""
        if not trainer.enable_validation and probes_of(trainer)[0] is self:
            wanted = "give a validation dataloader, a validation_step and limit_val_batches above 0"
            rank_zero_only(log.warning)("Probes measure in validation, and this fit has none, so nothing is measured: %s", wanted)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch."""
        self._reset()

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch."""
        self._reset()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure a validation batch, if this epoch is due."""
        self._observe(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Measure a test batch."""
        self._observe(trainer, pl_module, batch, batch_idx, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was measured."""
        if self._is_due(trainer):
            self._log(trainer, pl_module)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log what was measured."""
        self._log(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget what was measured before: Lightning would show it to callbacks that watch a number as if it were of this epoch."""
        for tag in self._logged:
            trainer.callback_metrics.pop(tag, None)

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        if trainer.state.fn != TrainerFn.FITTING or trainer.should_stop or _is_last_validated(trainer):
            return True
        epoch = trainer.current_epoch + 1
        before = epoch - _epochs_between(trainer)
        return epoch // self.every_n_epochs > before // self.every_n_epochs

    def _wanted(self, trainer: Trainer, first: int, size: int) -> int:
        """Return how many images to measure of a batch that begins at place ``first`` of the set."""
        if not self._is_due(trainer):
            return 0
        if trainer.testing or self.max_samples is None:
            return size
        return max(0, min(size, self.max_samples - first))

    def _reset(self) -> None:
        self._values: list[tuple[int, dict[str, Tensor]]] = []
        self._seconds = 0.0
        self._seen = 0

    def _observe(self, trainer: Trainer, pl_module: LightningModule, given: Any, batch_idx: int, loader_idx: int) -> None:
        if loader_idx:
            if batch_idx == 0:
                log.warning("probe %r: only the first of several dataloaders is measured", self.name)
            return
        try:
            batch = spike_batch(given)
        except InputError as error:
            raise InputError(f"probes.{self.name}: {error}") from error
        batch = without_repeats(trainer, batch, batch_idx)
        first, round_first, round_size = self._place(trainer, batch, batch_idx)
        if self._wanted(trainer, round_first, round_size) == 0:
            return
        began = time.perf_counter()
        meeting = Meeting()
        classifier = pl_module if isinstance(given, SpikeBatch) else ImageClassifier(pl_module)
        try:
            if count := self._wanted(trainer, first, len(batch.labels)):
                context = self._context(trainer, classifier, first, len(batch.labels), meeting)
                with undisturbed(pl_module), one_value_refused(classifier), lent_momentum(trainer):
                    seen = batch.first(count).clone()
                    require_finite(seen.spikes.transpose(0, 1), "the images measured", first)
                    values = self.measure(context, seen)
                self._values.append((first, _for_each_image(values, count)))
            meeting.leave()
        except OneValueError as error:
            log.warning("probe %r: left out %d image(s) from place %d on: %s", self.name, count, first, error)
            meeting.leave()
        except StoppedElsewhereError as stopped:
            raise stopped.error from None
        except InputError as error:
            meeting.fail(InputError(f"probes.{self.name}: {error}"), error)
        except Exception as error:  # noqa: BLE001  # whatever stops one process must be told to the others
            meeting.fail(RuntimeError(f"probe {self.name!r} ({type(self).__name__}) failed: {error}"), error)
        self._seconds += time.perf_counter() - began

    def _place(self, trainer: Trainer, batch: SpikeBatch, batch_idx: int) -> tuple[int, int, int]:
        """Return the place of a batch's first image in the set, and first place and size of what all processes measure together."""
        size = getattr(loader_of(trainer), "batch_size", None)
        if size is None and trainer.world_size == 1:
            # A sampler of batches may make them of any size.
            first, self._seen = self._seen, self._seen + len(batch.labels)
            return first, first, len(batch.labels)
        size = size or len(batch.labels)
        round_first = batch_idx * size * trainer.world_size
        return round_first + trainer.global_rank * size, round_first, size * trainer.world_size

    def _context(self, trainer: Trainer, classifier: nn.Module, first: int, size: int, meeting: Meeting) -> ProbeContext:
        count = self._wanted(trainer, first, size)
        partners = tuple(probe for probe in probes_of(trainer) if probe._wanted(trainer, first, size) == count)
        data: Any = getattr(trainer, "datamodule", None)
        # The same numbers at every epoch and in fit, validate and test: a curve moves only because the network does.
        key = mix(getattr(data, "seed", 0), zlib.crc32(str(self.name).encode()), first)
        generator = torch.Generator().manual_seed(key)
        return ProbeContext(classifier, getattr(data, "spike_encoder", None), generator, first, partners, meeting, trainer.global_rank)

    def _require_own_names(self, trainer: Trainer, summary: dict[str, Tensor]) -> None:
        """Raise InputError if another probe logs a value under the same name: Lightning would log the mean of both."""
        for other in probes_of(trainer):
            if other is not self and (both := sorted(other._logged & summary.keys())):
                raise InputError(f"probes.{self.name}: {both[0]} is logged by probes.{other.name} as well, and the two would be mixed")

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        values = dict(sorted(chain.from_iterable(everyone(self._values)), key=lambda item: item[0]))
        if values:
            names = next(iter(values.values()))
            if missing := sorted({name for batch in values.values() for name in names.keys() ^ batch.keys()}):
                raise InputError(f"probes.{self.name}: measure returned {missing[0]!r} for some batches only; give the same names for all")
            together = {name: torch.cat([batch[name] for batch in values.values()]) for name in names}
            summary = {self.tag(name): value.float() for name, value in self.summarise(together).items()}
            self._require_own_names(trainer, summary)
            self._logged = set(summary)
            shown = {tag for tag in summary if tag.endswith(f"/{ACCURACY}")}
            pl_module.log_dict({tag: value for tag, value in summary.items() if tag in shown}, prog_bar=True)
            pl_module.log_dict({tag: value for tag, value in summary.items() if tag not in shown})
        pl_module.log(seconds_of(self.name), self._seconds)
        self._reset()


def _epochs_between(trainer: Trainer) -> int:
    """Return how many epochs it is from one that is validated to the next."""
    return trainer.check_val_every_n_epoch or 1


def _is_last_validated(trainer: Trainer) -> bool:
    """Return whether the limits of a fit leave no later epoch that is trained to its end and validated."""
    ahead = _epochs_between(trainer)
    batches = trainer.num_training_batches  # infinite, if the loader does not know
    steps = ahead * ceil(batches / trainer.accumulate_grad_batches) if isfinite(batches) else 1
    epochs_end = 0 < (trainer.max_epochs or 0) < trainer.current_epoch + 1 + ahead
    return epochs_end or 0 < trainer.max_steps < trainer.global_step + steps


def _for_each_image(values: object, count: int) -> dict[str, Tensor]:
    """Return what a probe measured as one number for each image, on the CPU."""
    wanted = f"give a dictionary of tensors, by name, each [{count}] (one number for each image) or one number"
    if not isinstance(values, dict):
        raise InputError(f"measure returned {type(values).__name__}; {wanted}")
    for name, value in values.items():
        if not isinstance(value, Tensor) or value.shape not in ((), (1,), (count,)):
            told = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise InputError(f"measure returned {told} as {name!r}; {wanted}")
    return {name: value.detach().cpu().expand(count) for name, value in values.items()}


def probes_of(trainer: Trainer) -> list[Probe]:
    """Return the probes of a trainer, in the order in which they run."""
    callbacks: list[Callback] = getattr(trainer, "callbacks", [])
    return [callback for callback in callbacks if isinstance(callback, Probe)]
