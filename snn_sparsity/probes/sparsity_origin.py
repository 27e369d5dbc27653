"""Where the zeros of a gradient come from."""

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.pooling import _MaxPoolNd

from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.layout import Layout
from snn_sparsity.measure.names import POOL_TIE_SHARED_ZERO, POOL_WINDOWS, WINDOW_COUNTS, ZERO_ORIGIN
from snn_sparsity.measure.operations import Operation, operations
from snn_sparsity.measure.sparsity import zero_fraction
from snn_sparsity.measure.windows import Window, positions_read, selected, spikes_per_window, tie_shared_gradient
from snn_sparsity.probes.gradient_sparsity import with_kind_means
from snn_sparsity.probes.pass_probe import PassProbe, Values

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False)
class SparsityOrigin(PassProbe):
    """Split the exact zeros of every operation's input gradient into causes that exclude one another, in this order.

    ``sample``: the whole gradient of the image is zero (saturated loss). ``time_step``: everything at that step is. ``channel``:
    everything of that channel is, at all steps (dead channels). ``unread``: positions that a strided operation never reads.
    ``unselected``: positions that win no window of a max pooling; upstream of it, of neurons and BatchNorms, those whose every later
    time step is such. ``rest``: none of these.

    | key | meaning | range |
    |---|---|---|
    | ``zero_origin/<cause>/<kind>/<NN>_<module path>`` | share of all entries; the causes add up to ``grad_zero`` | [0,1] |
    | ``zero_origin_mean/<cause>/<kind>`` | mean over the operations of a kind but ``pool`` | [0,1] |
    | ``pool_windows/<none,one,several>/<NN>_<path>`` | windows of a max pooling with no spike, one, several (ties) | [0,1] |
    | ``pool_tie_shared_zero/<NN>_<path>`` | zeros at its input if tied maxima shared a window's gradient equally | [0,1] |

    See :class:`PassProbe` for the arguments.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what cannot be seen."""
        super().on_fit_start(trainer, pl_module)
        if not any(isinstance(module, _MaxPoolNd) for module in pl_module.modules()):
            log.warning("probe %r: the network has no max pooling; no window statistics are logged", self.name)

    @contextmanager
    def watching(self, network: nn.Module, layout: Layout) -> Iterator[Callable[[], Values]]:
        """Classify every operation's zeros, and look at the windows of max poolings."""
        view = _View(layout)
        with ExitStack() as hooks:
            for operation in operations(network):
                if operation.kind in ("conv", "pool"):
                    hooks.callback(operation.module.register_forward_hook(partial(view.look, operation)).remove)
            with record_gradients(network, reduce=view.classify, layout=layout) as record:
                yield (
                    lambda: (
                        view.values
                        | {
                            f"{ZERO_ORIGIN}/{cause}/{operation.tag}": share
                            for operation in record.operations
                            for cause, share in record.values[operation.path].items()
                        }
                    )
                )

    def summarise(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average over images, then over the operations of a kind."""
        means = super().summarise(values)
        origins = {name: mean for name, mean in means.items() if name.startswith(f"{ZERO_ORIGIN}/")}
        return with_kind_means(origins) | {name: mean for name, mean in means.items() if name not in origins}


class _View:
    """What one pass shows: masks live from the forward pass until the backward pass has gone by them."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.values: Values = {}
        self._unread: dict[str, Tensor] = {}
        self._unselected: dict[str, Tensor] = {}
        self._blocked: Tensor | None = None

    def look(self, operation: Operation, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Note what an operation reads and selects, as a forward hook."""
        x = self._layout.time_first(operation, inputs[0].detach())
        read = positions_read(module, x.shape[-2:])
        if read is not None and not read.all():
            self._unread[operation.path] = ~read.to(x.device)
        if not isinstance(module, _MaxPoolNd):
            return
        window = Window.of(module)
        self._unselected[operation.path] = ~selected(x, window)
        spikes = spikes_per_window(x, window)
        for count, mask in zip(WINDOW_COUNTS, (spikes == 0, spikes == 1, spikes > 1), strict=True):
            self.values[f"{POOL_WINDOWS}/{count}/{operation.place}"] = mask.float().transpose(0, 1).flatten(1).mean(1)

        def share(gradient: Tensor) -> None:
            shared = tie_shared_gradient(x, gradient.reshape(*x.shape[:2], *gradient.shape[-3:]), window)
            self.values[f"{POOL_TIE_SHARED_ZERO}/{operation.place}"] = zero_fraction(shared, batch_dim=1)

        output.register_hook(share)

    def classify(self, operation: Operation, gradient: Tensor) -> dict[str, Tensor]:
        """Return the share of each cause per image, [N]; gradients come in the order of the backward pass."""
        # Where a max pooling downstream lets nothing through, as seen from this operation's input.
        if operation.path in self._unselected:
            self._blocked = self._unselected.pop(operation.path)
        elif self._blocked is None or self._blocked.shape != gradient.shape or operation.kind not in ("neuron", "bn"):
            self._blocked = None
        elif operation.kind == "neuron":
            # An input acts on its own and all later steps: it is blocked only if all of them are.
            self._blocked = self._blocked.byte().flip(0).cummin(0).values.flip(0).bool()
        left = gradient == 0
        features, nowhere = tuple(range(2, left.ndim)), torch.zeros((), dtype=torch.bool, device=left.device)
        # Each broadcasts to [T,N,...].
        masks = {
            "sample": left.all(dim=(0, *features), keepdim=True),
            "time_step": left.all(dim=features, keepdim=True),
            "channel": left.all(dim=(0, *features[1:]), keepdim=True),
            "unread": self._unread.get(operation.path, nowhere),
            "unselected": nowhere if self._blocked is None else self._blocked,
            "rest": left,
        }
        shares = {}
        for cause, mask in masks.items():
            hit = left & mask
            shares[cause] = hit.transpose(0, 1).flatten(1).float().mean(1)
            left = left & ~hit
        return shares
