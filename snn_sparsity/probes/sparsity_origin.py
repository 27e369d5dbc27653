"""Where the zeros of a gradient come from."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.pooling import _MaxPoolNd

from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.layout import Layout
from snn_sparsity.measure.names import POOL_TIE_SHARED_ZERO, POOL_WINDOWS, WINDOW_COUNTS, ZERO_ORIGIN
from snn_sparsity.measure.operations import Operation, operations
from snn_sparsity.measure.sparsity import zero_fraction
from snn_sparsity.measure.windows import Window, positions_read, selected, spikes_per_window, tie_shared_gradient
from snn_sparsity.probes.gradient_sparsity import with_kind_means
from snn_sparsity.probes.pass_probe import PassProbe, Values
from snn_sparsity.validation import InputError

log = logging.getLogger(__name__)

ELEMENTWISE = re.compile(
    "(Add|Alias|AsStrided|Clamp|Clone|Div|Elu|Gelu|Hardswish|Hardtanh|LeakyRelu|Mish|Mul|NativeDropout|Neg|PreluKernel|Relu|ReshapeAlias|"
    "Rsub|Sigmoid|Silu|Softplus|Sub|Tanh|ToCopy|UnsafeView|View)Backward[0-9]|torch::autograd::CopySlices"
)
"""PyTorch's names of backward passes that keep the entries in order and send no gradient to one where none arrives.

``AsStrided`` and ``CopySlices`` are those of a view that was changed in place, as ``ReLU(inplace=True)`` does.
"""


@dataclass(kw_only=True, eq=False)
class SparsityOrigin(PassProbe):
    """Split the exact zeros of every operation's input gradient into causes that exclude one another, in this order.

    ``sample``: the whole gradient of the image is zero (saturated loss). ``time_step``: everything at that step is. ``channel``:
    everything of that channel is, at all steps (dead channels). ``unread``: positions that a strided operation never reads.
    ``unselected``: positions that win no window of a max pooling; upstream of it, with elementwise functions alone between, of neurons
    and BatchNorms, those whose every later time step is such for all operations that read it. ``rest``: none of these.

    | key | meaning | range |
    |---|---|---|
    | ``zero_origin/<cause>/<kind>/<NN>_<module path>`` | share of all entries; the causes add up to ``grad_zero`` | [0,1] |
    | ``zero_origin_mean/<cause>/<kind>`` | mean over the operations of a kind but ``pool`` | [0,1] |
    | ``pool_windows/<none,one,several>/<NN>_<path>`` | windows of a max pooling with no spike, one, several (ties) | [0,1] |
    | ``pool_tie_shared_zero/<NN>_<path>`` | zeros at its input if tied maxima shared a window's gradient equally | [0,1] |

    Windows are known of max poolings of maps by squares without dilation; of any other, ``unselected`` is part of ``rest``.
    See :class:`PassProbe` for the arguments.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what cannot be seen."""
        super().on_fit_start(trainer, pl_module)
        poolings = [module for module in pl_module.modules() if isinstance(module, _MaxPoolNd)]
        if not poolings:
            log.warning("probe %r: the network has no max pooling; no window statistics are logged", self.name)
        for pooling in poolings:
            if _window(pooling) is None:
                log.warning("probe %r: the windows of %s cannot be told apart; no window statistics of it are logged", self.name, pooling)

    @contextmanager
    def watching(self, network: nn.Module, layout: Layout) -> Iterator[Callable[[], Values]]:
        """Classify every operation's zeros, and look at the windows of max poolings."""
        view = _View(layout)
        with ExitStack() as hooks:
            for operation in operations(network):
                hooks.callback(operation.module.register_forward_hook(partial(view.look, operation)).remove)
            # Nodes of the graph and the hooks on them would keep each other, and all activations, alive.
            hooks.callback(view.makers.clear)
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


def _window(pooling: nn.Module) -> Window | None:
    try:
        return Window.of(pooling)
    except InputError:
        return None


class _View:
    """What one pass shows: masks live from the forward pass until the backward pass has gone by them.

    Attributes:
        values: Window statistics, by name.
        makers: The path of the operation whose output a node of the graph makes.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.values: Values = {}
        self.makers: dict[Node, str] = {}
        self._sources: dict[str, list[str]] = {}
        self._unread: dict[str, Tensor] = {}
        self._unselected: dict[str, Tensor] = {}
        self._blocked: dict[str, list[Tensor]] = {}

    def look(self, operation: Operation, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Note whose outputs an operation reads, which entries and which it selects, as a forward hook."""
        self._sources[operation.path] = self._made_by(inputs[0])
        # What changes a view in place gives it another node; that of its base stays.
        for made in (output, output._base):
            if made is not None and made.grad_fn is not None:
                self.makers[made.grad_fn] = operation.path
        x = self._layout.time_first(operation, inputs[0].detach())
        read = positions_read(module, x.shape[-2:])
        if read is not None and not read.all():
            self._unread[operation.path] = ~read.to(x.device)
        window = _window(module) if isinstance(module, _MaxPoolNd) else None
        if window is not None:
            self._look_at_windows(operation, x, output, window)

    def _made_by(self, x: Tensor) -> list[str]:
        """Return the operations whose outputs x is made of by elementwise functions alone."""
        found, seen, ahead = [], set(), [x.grad_fn]
        while ahead:
            node = ahead.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if node in self.makers:
                found.append(self.makers[node])
            elif ELEMENTWISE.fullmatch(node.name()):
                ahead += [before for before, _ in node.next_functions]
        return found

    def _look_at_windows(self, operation: Operation, x: Tensor, output: Tensor, window: Window) -> None:
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
        nowhere = torch.zeros((), dtype=torch.bool, device=gradient.device)
        unselected = self._unselected_before(operation, gradient.shape, nowhere)
        for source in self._sources.get(operation.path, ()):
            self._blocked.setdefault(source, []).append(unselected)
        left = gradient == 0
        features = tuple(range(2, left.ndim))
        # Each broadcasts to [T,N,...].
        masks = {
            "sample": left.all(dim=(0, *features), keepdim=True),
            "time_step": left.all(dim=features, keepdim=True),
            "channel": left.all(dim=(0, *features[1:]), keepdim=True),
            "unread": self._unread.get(operation.path, nowhere),
            "unselected": unselected,
            "rest": left,
        }
        shares = {}
        for cause, mask in masks.items():
            hit = left & mask
            shares[cause] = hit.transpose(0, 1).flatten(1).float().mean(1)
            left = left & ~hit
        return shares

    def _unselected_before(self, operation: Operation, shape: torch.Size, nowhere: Tensor) -> Tensor:
        """Return where max pooling, or all that reads an operation's output, lets nothing through to its input."""
        if operation.path in self._unselected:
            return self._unselected.pop(operation.path)
        masks = self._blocked.pop(operation.path, [])
        if operation.kind not in ("neuron", "bn") or not masks or any(mask.shape != shape for mask in masks):
            return nowhere
        blocked = torch.stack(masks).all(0)
        if operation.kind == "neuron":
            # An input acts on its own and all later steps: it is blocked only if all of them are.
            blocked = blocked.byte().flip(0).cummin(0).values.flip(0).bool()
        return blocked
