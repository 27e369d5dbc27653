"""The base of probes that watch one forward and backward pass, and share it."""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from snn_sparsity.attacks import PGD, Attack
from snn_sparsity.attacks.base import input_gradient, require_attack
from snn_sparsity.batch import SpikeBatch
from snn_sparsity.measure.layout import Layout
from snn_sparsity.measure.names import AT_ADVERSARIAL, WITH_BATCH_STATISTICS
from snn_sparsity.probes.base import Probe
from snn_sparsity.probes.context import ProbeContext
from snn_sparsity.protocols import BatchNormMode
from snn_sparsity.validation import require_choice

Values = dict[str, Tensor]


@dataclass(kw_only=True, eq=False)
class PassProbe(Probe):
    """Watch the pass that takes the gradient of each image's cross-entropy with respect to its spikes.

    Probes of this kind with the same settings that look at the same images share one pass: the first one runs it for all, and
    its ``time/<name>_seconds`` holds the cost. A subclass says in ``watching`` what it hooks on the network meanwhile.

    Args:
        at: ``clean`` spikes, or spikes attacked first (``adversarial``).
        attack: The attack for ``adversarial``, in spike space; null is PGD with the paper's numbers.
        batch_norm: ``eval`` or ``batch``.

    Raises:
        InputError: For a value not allowed.
    """

    at: Literal["clean", "adversarial"] = "clean"
    attack: Attack | None = None
    batch_norm: BatchNormMode = "eval"
    _handed_over: Values | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        require_choice("at", self.at, ("clean", "adversarial"))
        require_choice("batch_norm", self.batch_norm, ("eval", "batch"))
        if self.attack is not None:
            require_attack(self.attack)
        super().__post_init__()

    @abstractmethod
    def watching(self, network: nn.Module, layout: Layout) -> AbstractContextManager[Callable[[], Values]]:
        """Hook what is to be seen while the block runs; yield a function that returns the values, called after it.

        ``layout`` brings what a hook sees to [T,N,...].
        Every gradient must be reduced to a few numbers inside its hook.
        """

    def measure(self, context: ProbeContext, batch: SpikeBatch) -> Values:
        """Take part in the pass of this batch, or run it if nobody has."""
        if self._handed_over is None:
            group = [probe for probe in context.partners if isinstance(probe, PassProbe) and probe.settings == self.settings]
            target, x = context.inputs(batch, self.batch_norm)
            if self.at == "adversarial":
                context.require_bounds(x)
                x = (self.attack or PGD())(target, x, batch.labels, context.generator)
            layout = Layout(context.network, len(batch.labels), None if context.plain else len(batch.spikes))
            with ExitStack() as watches:
                collect = [(probe, watches.enter_context(probe.watching(context.network, layout))) for probe in group]
                input_gradient(target.logits, x, batch.labels)
            for probe, collected in collect:
                probe._handed_over = collected()
        values, self._handed_over = self._handed_over, None
        assert values is not None
        return values

    @property
    def settings(self) -> tuple[str, Attack | None, str]:
        """What the pass depends on besides the batch."""
        return self.at, self.attack, self.batch_norm

    @property
    def suffix(self) -> str:
        """Part of a logged name where the setting is not the default, so that two protocols never share a curve."""
        return (AT_ADVERSARIAL if self.at == "adversarial" else "") + (WITH_BATCH_STATISTICS if self.batch_norm == "batch" else "")

    def tag(self, value_name: str) -> str:
        """Return the name with the suffix on its first part: logged names are those of the operations, not of the probe."""
        first, rest = value_name.split("/", 1)
        return f"{first}{self.suffix}/{rest}"

    def describe(self) -> str:
        """Return point, space and protocol."""
        return f"{self.at} spikes, BatchNorm {self.batch_norm}"

    def _reset(self) -> None:
        super()._reset()
        self._handed_over = None
