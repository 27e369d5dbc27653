"""Accuracy under an attack, in a named space and protocol."""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from torch import Tensor

from snn_sparsity.attacks.base import Attack, correct, require_attack
from snn_sparsity.attacks.drift import Statistics, running_statistics
from snn_sparsity.attacks.eot import EOT, of_random_code
from snn_sparsity.attacks.lattice import on_lattice
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.encoders import Encoder
from snn_sparsity.measure import names
from snn_sparsity.measure.proportions import interval
from snn_sparsity.measure.sparsity import per_sample
from snn_sparsity.probes.base import Probe
from snn_sparsity.probes.context import ProbeContext
from snn_sparsity.protocols import BatchNormMode, Space
from snn_sparsity.validation import InputError, require_choice, require_number


@dataclass(kw_only=True, eq=False)
class AdversarialAccuracy(Probe):
    """Attack the first images of the set and log what is left of the accuracy.

    | key | meaning | range |
    |---|---|---|
    | ``<name>/accuracy`` | share of attacked images classified right | [0,1] |
    | ``<name>/loss`` | mean cross-entropy of attacked images | nats |
    | ``<name>/accuracy_low``, ``<name>/accuracy_high`` | its 95 % interval (Wilson) | [0,1] |
    | ``<name>/images`` | images attacked | |
    | ``<name>/clean_accuracy``, ``<name>/clean_loss`` | the same images before the attack | |
    | ``<name>/zero_gradient_samples`` | share of images whose gradient was zero throughout at some step: not attacked there | [0,1] |
    | ``<name>/largest_perturbation`` | largest change of any input element | units of x |

    ``batch_norm="batch"`` is the paper's protocol: BatchNorm uses batch statistics while crafting, its running statistics drift
    through the whole evaluation, and the attacked images are judged with the drifted ones. They are put back afterwards.

    Args:
        attack: The attack.
        space: ``image`` (pixels; the strict protocol) or ``spikes`` (the paper's).
        batch_norm: ``eval`` (strict) or ``batch`` (the paper's).
        draws: On images behind a random code the attack sees the mean over this many draws (EOT), unless it says how many itself.

    Raises:
        InputError: For an attack that is none, an unknown space or BatchNorm mode, or draws below 1; in use, for an eps that is no whole
            number of grey levels, on images behind a code: it shows 8-bit images, and rounding would leave the ball.
    """

    attack: Attack
    space: Space = "image"
    batch_norm: BatchNormMode = "eval"
    draws: int = 10

    _mounted: Attack | None = field(default=None, init=False, repr=False)
    _drifted: Statistics | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_choice("space", self.space, ("image", "spikes"))
        require_choice("batch_norm", self.batch_norm, ("eval", "batch"))
        require_number("draws", self.draws, at_least=1, whole=True)
        require_attack(self.attack)
        super().__post_init__()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look whether the code is random; see :meth:`Probe.setup`."""
        super().setup(trainer, pl_module, stage)
        self._mounted = self.attack_on(getattr(getattr(trainer, "datamodule", None), "spike_encoder", None))

    @property
    def eot_draws(self) -> int:
        """Draws that each look at a random code is the mean of; 0 where the code is not random or the attack itself says how many."""
        return self.draws if isinstance(self._mounted, EOT) and not isinstance(self.attack, EOT) else 0

    def describe(self) -> str:
        """Return space, protocol and attack, with the draws where the code is random."""
        return f"{self.space}, BatchNorm {self.batch_norm}, {self._mounted or self.attack}"

    def attack_on(self, encoder: Encoder | None) -> Attack:
        """Return the attack as it is made on a code: by whole grey levels of images, on the mean over the draws where it is random."""
        if self.space != "image" or encoder is None:
            return self.attack
        attack = on_lattice(self.attack)
        return of_random_code(attack, self.draws) if encoder.stochastic else attack

    def measure(self, context: ProbeContext, batch: SpikeBatch) -> dict[str, Tensor]:
        """Attack a batch."""
        target, x = self._aim(context, batch)
        meter = Meter(batch.labels)
        x_adv = self.attack_on(context.encoder)(Metered(target, meter), x, batch.labels, context.generator)
        if self.batch_norm == "batch":
            # Judged with statistics that have drifted through all batches of the set up to this one, whichever process attacked them.
            spikes = target.spikes if isinstance(target, ImageTarget) else target
            drifted = self._drifted or running_statistics(context.classifier)
            for rank, drift in enumerate(context.meeting.share(spikes.drift())):
                drifted = drifted if drift is None else drift.of(drifted)
                if rank == context.rank:
                    spikes.judge_with(drifted)
            self._drifted = drifted
        with torch.no_grad():
            clean, attacked = context.classifier(batch.spikes), target.judge(x_adv)
        return {
            names.ACCURACY: correct(attacked, batch.labels).float(),
            names.LOSS: F.cross_entropy(attacked, batch.labels, reduction="none"),
            names.CLEAN_ACCURACY: correct(clean, batch.labels).float(),
            names.CLEAN_LOSS: F.cross_entropy(clean, batch.labels, reduction="none"),
            names.ZERO_GRADIENT_SAMPLES: meter.zero.float(),
            names.LARGEST_PERTURBATION: per_sample((x_adv - x).abs()).amax(1),
        }

    def summarise(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average over images, with the accuracy's interval; of the perturbation, take the largest."""
        right = values[names.ACCURACY]
        ends = interval(round(right.sum().item()), len(right))
        return (
            super().summarise(values)
            | {name: torch.tensor(end) for name, end in zip(names.ACCURACY_INTERVAL, ends, strict=True)}
            | {names.IMAGES: torch.tensor(len(right)), names.LARGEST_PERTURBATION: values[names.LARGEST_PERTURBATION].max()}
        )

    def _aim(self, context: ProbeContext, batch: SpikeBatch) -> tuple[SpikeTarget | ImageTarget, Tensor]:
        if context.plain and self.space == "spikes":
            raise InputError("space='spikes' needs batches of spikes, and these are plain images: give 'image'")
        if self.space == "spikes" or context.plain:
            target, x = context.inputs(batch, self.batch_norm)
            context.require_bounds(x)
            return target, x.contiguous()
        if context.encoder is None:
            raise InputError("space='image' needs a datamodule with an encoder (SpikeDataModule)")
        behind = ImageTarget(context.classifier, context.encoder, self.batch_norm, generator=context.generator)
        return behind, batch.images.float() / 255

    def _reset(self) -> None:
        super()._reset()
        self._drifted = None
