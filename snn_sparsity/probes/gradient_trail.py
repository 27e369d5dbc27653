"""The paper's section 5: do zeros of the input gradient go with zeros of weight gradients and of weights?"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.nn.utils import parametrize

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.measure import names
from snn_sparsity.measure.correlation import Correlation, partial, pearson, spearman
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.operations import Operation, operations
from snn_sparsity.measure.reachability import reachability
from snn_sparsity.probes.base import Probe
from snn_sparsity.probes.context import ProbeContext
from snn_sparsity.validation import InputError

SMALL = 1e-6
"""A weight is small below this share of the largest of its layer."""
BATCH = "batch"
SMALLEST_NORMAL = 0x00800000
"""The bits of the smallest float32 that is no denormal, 2^-126."""


@dataclass(kw_only=True, eq=False)
class GradientTrail(Probe):
    """Zeros of weight gradients, weights and input gradients of every layer with weights, and how they go together.

    A layer is a convolution or linear layer. Shares of weights are given over all weights, and over those that can see the image
    (``_reachable``: in SEW-ResNet18 at 32x32, 62 % of the parameters cannot, and a correlation over all would measure the architecture).

    | key | meaning |
    |---|---|
    | ``trail_input_gradient_zero/<NN>_<path>`` | zeros of the gradient at the layer's input, mean over images |
    | ``trail_weight_gradient_zero[_reachable]/<NN>_<path>`` | zeros of the gradient of its weights, of a batch's summed loss |
    | ``trail_weight_zero[_reachable]/<NN>_<path>`` | weights that are exactly 0 |
    | ``trail_weight_denormal[_reachable]/<NN>_<path>`` | weights that are denormal |
    | ``trail_weight_small[_reachable]/<NN>_<path>`` | weights below 1e-6 of the layer's largest |
    | ``trail_correlation/<method>_<over>_<value,low,high>/<pair>/<NN>_<path>`` | correlation and 95 % interval; NaN is undefined |

    ``method`` is pearson, spearman, or partial (given the zeros of all later layers' weights: the paper's third bullet). ``over`` is
    batches (of this epoch) or epochs (measured in the fit so far, each as it was last). ``pair`` is ``gradients`` (weight-gradient and
    input-gradient zeros) or ``weights`` (weight and input-gradient zeros); both use reachable weights. Weights do not change within an
    epoch: correlations with them, or given them, are over epochs alone. A weight that is computed, by a parametrisation or pruning,
    counts as it multiplies.
    """

    _epochs: dict[int, dict[str, float]] = field(default_factory=dict, init=False, repr=False)
    _epoch: int | None = field(default=None, init=False, repr=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin a fit without the epochs of another one."""
        super().setup(trainer, pl_module, stage)
        if stage == TrainerFn.FITTING:
            self._epochs = {epoch: means for epoch, means in self._epochs.items() if epoch < trainer.current_epoch}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch of the fit, if this is one."""
        super().on_validation_epoch_start(trainer, pl_module)
        self._epoch = trainer.current_epoch if trainer.state.fn == TrainerFn.FITTING else None

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note that this is no epoch of a fit."""
        super().on_test_epoch_start(trainer, pl_module)
        self._epoch = None

    def measure(self, context: ProbeContext, batch: SpikeBatch) -> dict[str, Tensor]:
        """Differentiate the batch's loss by its spikes and all weights at once."""
        if context.plain:
            raise InputError("GradientTrail needs batches of spikes, and these are plain images")
        network = context.network
        layers = operations(network, ["conv", "linear"])
        weights: dict[str, Tensor] = {}
        spikes = batch.spikes.requires_grad_()
        # Noted as each layer runs: what a parametrisation or pruning computes is another tensor in each pass.
        with ExitStack() as hooks, parametrize.cached(), record_gradients(network, ["conv", "linear"]) as record:
            for layer in layers:

                def note(module: Any, *_: object, path: str = layer.path) -> None:
                    weights[path] = module.weight

                layer.module.requires_grad_()  # a frozen one has a gradient, too
                hooks.callback(layer.module.register_forward_hook(note).remove)
            loss = F.cross_entropy(context.classifier(spikes), batch.labels, reduction="sum")
            # One that the loss does not depend on is named by the record.
            _, *found = torch.autograd.grad(loss, [spikes, *weights.values()], allow_unused=True)
        gradients = dict(zip(weights, found, strict=True))
        steps, _, channels, height, width = spikes.shape
        seeing = reachability(network, (height, width), channels, steps)
        values = {BATCH: torch.tensor(float(context.first), dtype=torch.float64)}
        for layer in layers:
            values[f"{names.TRAIL_INPUT_GRADIENT_ZERO}/{layer.place}"] = record.values[layer.path][0].double()
            for what, share in weight_shares(weights[layer.path].detach(), gradients[layer.path], seeing.get(layer.path)):
                values[f"{what}/{layer.place}"] = share
        return values

    def summarise(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Average over images, and correlate over batches and over the epochs so far."""
        # Values of a whole batch stand once for each of its images.
        place = {float(first): index for index, first in reversed(list(enumerate(values.pop(BATCH).tolist())))}
        starts = sorted(place.values())
        batches = list(zip(starts, [*starts[1:], None], strict=True))
        owner = {name: [float(value[start:end].mean()) for start, end in batches] for name, value in values.items()}
        means = {name: float(value.mean()) for name, value in values.items()}
        if self._epoch is not None:
            self._epochs[self._epoch] = means
        series = {name: [epoch[name] for epoch in self._epochs.values() if name in epoch] for name in means}
        correlations = dict(self._correlate("batches", owner)) | dict(self._correlate("epochs", series))
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in (means | correlations).items()}

    def tag(self, value_name: str) -> str:
        """Return the name as it is: it names the layer, not the probe."""
        return value_name

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far, for checkpoints."""
        return {"epochs": dict(self._epochs)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the epochs of a checkpoint."""
        epochs = state_dict["epochs"]
        # Once they were a list without numbers: these stand for epochs before the first.
        self._epochs = dict(enumerate(epochs, start=-len(epochs))) if isinstance(epochs, list) else dict(epochs)

    def _correlate(self, over: str, series: dict[str, list[float]]) -> Iterator[tuple[str, float]]:
        prefix = f"{names.TRAIL_INPUT_GRADIENT_ZERO}/"
        layers = [name.removeprefix(prefix) for name in series if name.startswith(prefix)]
        for index, layer in enumerate(layers):
            inputs = series[prefix + layer]
            pairs = {
                "gradients": series[f"{names.reachable(names.TRAIL_WEIGHT_GRADIENT_ZERO)}/{layer}"],
                "weights": series[f"{names.reachable(names.TRAIL_WEIGHT_ZERO)}/{layer}"],
            }
            if over == "batches":
                del pairs["weights"]
            for pair, others in pairs.items():
                yield from _named("pearson", over, pair, layer, pearson(inputs, others))
                yield from _named("spearman", over, pair, layer, spearman(inputs, others))
            later = [series[f"{names.reachable(names.TRAIL_WEIGHT_ZERO)}/{name}"] for name in layers[index + 1 :]]
            if later and over == "epochs":
                control = [sum(point) / len(later) for point in zip(*later, strict=True)]
                yield from _named("partial", over, "gradients", layer, partial(inputs, pairs["gradients"], control))


def weight_of(layer: Operation) -> nn.Parameter:
    """Return the weight of a convolution or linear layer.

    Raises:
        InputError: Naming the layer, if the weight is computed from others: by a parametrisation, or pruning.
    """
    weight = layer.module.weight
    if not isinstance(weight, nn.Parameter):
        raise InputError(f"the weight of {layer.path!r} is no parameter of its own but computed, by a parametrisation or pruning")
    return weight


def weight_shares(weight: Tensor, gradient: Tensor, seeing: Tensor | None) -> Iterator[tuple[str, Tensor]]:
    """Yield the shares of zero gradients and of zero, denormal and small weights, over all weights and over reachable ones.

    Args:
        weight: Of any shape.
        gradient: Of its shape.
        seeing: Which weights can see the image, bool of its shape; None if all do.

    Example:
        >>> _ = torch.set_flush_denormal(False)  # the command line lets numbers below 1.2e-38 be zero
        >>> weight = torch.tensor([1.0, 1e-40, 0.0, 1e-7])
        >>> {name: share.item() for name, share in weight_shares(weight, torch.tensor([1.0, 0.0, 0.0, 0.0]), None)
        ...  if not name.endswith("reachable")}
        {'trail_weight_gradient_zero': 0.75, 'trail_weight_zero': 0.25, 'trail_weight_denormal': 0.25, 'trail_weight_small': 0.75}
    """
    size = weight.abs()
    # By their bits: where denormals are flushed, as in every run, a comparison takes them for zero.
    magnitude = weight.float().contiguous().view(torch.int32) & 0x7FFFFFFF
    masks = {
        names.TRAIL_WEIGHT_GRADIENT_ZERO: gradient == 0,
        names.TRAIL_WEIGHT_ZERO: magnitude == 0,
        names.TRAIL_WEIGHT_DENORMAL: (magnitude > 0) & (magnitude < SMALLEST_NORMAL),
        names.TRAIL_WEIGHT_SMALL: size < SMALL * size.max(),
    }
    for name, mask in masks.items():
        yield name, mask.double().mean()
        yield names.reachable(name), (mask if seeing is None else mask[seeing.to(mask.device)]).double().mean()


def _named(method: str, over: str, pair: str, layer: str, correlation: Correlation) -> Iterator[tuple[str, float]]:
    for part, value in correlation._asdict().items():
        yield f"{names.TRAIL_CORRELATION}/{method}_{over}_{part}/{pair}/{layer}", value
