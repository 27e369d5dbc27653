"""What is attacked: a classifier seen from its spikes, or from the image behind an encoder."""

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.func import functional_call

from snn_sparsity.attacks.drift import Drift, Statistics
from snn_sparsity.encoders.base import Encoder, grey_levels
from snn_sparsity.networks.gpu import settle_kernels
from snn_sparsity.networks.modes import device_of, evaluating
from snn_sparsity.protocols import BatchNormMode, Space
from snn_sparsity.validation import InputError, require_choice, require_number


class SpikeTarget:
    """A classifier seen from its spikes, the authors' space: x is [N,T,C,H,W] in [0,1].

    Parameters get no gradient, modules run in eval mode, and the classifier is left as it was after every call. With
    ``batch_norm="batch"`` BatchNorm uses the batch's statistics, as published code does while crafting; its running
    statistics then drift with every call, in a copy that lives in this target: ``judge`` sees the drift, the classifier does not.

    Args:
        classifier: Maps [T,N,C,H,W] to logits [N,K] and resets its neurons itself.
        batch_norm: ``eval`` (the strict protocol) or ``batch`` (the paper's).

    Raises:
        InputError: For an unknown BatchNorm mode.
    """

    space: Space = "spikes"
    bounds = (0.0, 1.0)

    def __init__(self, classifier: nn.Module, batch_norm: BatchNormMode = "eval") -> None:
        require_choice("batch_norm", batch_norm, ("eval", "batch"))
        self.network = classifier
        self.batch_norm = batch_norm
        self._parameters = {name: parameter.detach() for name, parameter in _everywhere(classifier, nn.Module.named_parameters)}
        self._at_first = dict(_everywhere(classifier, nn.Module.named_buffers))
        drifting = batch_norm == "batch"
        copies = {id(buffer): buffer.clone() if drifting else buffer for buffer in self._at_first.values()}
        self._buffers = {name: copies[id(buffer)] for name, buffer in self._at_first.items()}

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] of spikes [N,T,C,H,W], as the attack sees them."""
        return self._run(x, self.batch_norm)

    def judge(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] that decide whether an attack has won: BatchNorm in eval mode, no gradient."""
        with torch.no_grad():
            return self._run(x, "eval")

    def drift(self) -> Drift:
        """Return what the calls so far did to the running statistics, with ``batch_norm="batch"``.

        Raises:
            InputError: For a BatchNorm without a momentum.
        """
        return Drift.between(self.network, self._at_first, self._buffers)

    def judge_with(self, statistics: Statistics) -> None:
        """Let ``judge`` use these running statistics from now on."""
        for name, values in statistics.items():
            self._buffers[name].copy_(values)

    def _run(self, x: Tensor, batch_norm: BatchNormMode) -> Tensor:
        with evaluating(self.network, batch_norm):
            state = self._parameters | self._buffers
            logits: Tensor = functional_call(self.network, state, (self._time_first(x),), tie_weights=False)
        return logits

    def _time_first(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1)


def _everywhere(network: nn.Module, named: Callable[..., Iterator[tuple[str, Any]]]) -> Iterator[tuple[str, Any]]:
    """Yield each tensor at every place where it is, once: no pass has to look for those that are shared, between modules or with one."""
    for path, module in network.named_modules():
        yield from named(module, path, recurse=False, remove_duplicate=False)


class ImageClassifier(nn.Module):
    """Any module from images [N,...] to logits [N,K], seen as a classifier of one time step: from [1,N,...] to logits.

    Spiking neurons in it are reset before and after, as :class:`SpikingClassifier` does.

    Args:
        network: The module; it may make time steps of its own.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the logits [N,K].

        Raises:
            InputError: If the module returns anything else.
        """
        settle_kernels(spikes.device)
        functional.reset_net(self.network)
        logits = self.network(spikes.squeeze(0))
        functional.reset_net(self.network)
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            told = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise InputError(f"{type(self.network).__name__} returns {told}, not logits [N,K]")
        return logits


class PlainTarget(SpikeTarget):
    """A module that takes images as they are: x is [N,C,H,W] in [0,1], real numbers.

    What :class:`SpikeTarget` says of parameters, modes and BatchNorm holds here too.

    Args:
        network: Maps images to logits [N,K]; a normalisation of the images is its own.
        batch_norm: ``eval`` or ``batch``.

    Example:
        >>> PlainTarget(nn.Sequential(nn.Flatten(), nn.Linear(12, 5))).logits(torch.zeros(2, 3, 2, 2)).shape
        torch.Size([2, 5])
    """

    space: Space = "image"

    def __init__(self, network: nn.Module, batch_norm: BatchNormMode = "eval") -> None:
        super().__init__(ImageClassifier(network), batch_norm)

    def as_image_model(self) -> "ImageModel":
        """Return the module that other attack libraries take."""
        return ImageModel(self)

    def _time_first(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0)


class ImageTarget:
    """A classifier seen from the image: x is [N,C,H,W] in [0,1], put on the 8-bit lattice, and encoded.

    One perturbation is shared by all time steps. A code has no gradient of its own; that of the logits is taken through the
    code averaged over the levels within ``half_width`` (see :class:`BoxBPDA`), for codes that say their ``mean_code``. On a
    code of bit planes it is a poor guide: ``CodeBookAscent`` works on ``spikes`` and ``code_book`` instead.

    Args:
        classifier: Maps [T,N,C,H,W] to logits [N,K] and resets its neurons itself.
        encoder: Maps images to spikes.
        batch_norm: ``eval`` (the strict protocol) or ``batch``.
        generator: Source of randomness of a stochastic encoder.
        half_width: h, in grey levels.

    Raises:
        InputError: For an unknown BatchNorm mode, or h below 1.
    """

    space: Space = "image"
    bounds = (0.0, 1.0)

    def __init__(
        self,
        classifier: nn.Module,
        encoder: Encoder,
        batch_norm: BatchNormMode = "eval",
        generator: torch.Generator | None = None,
        half_width: int = 8,
    ) -> None:
        require_number("half_width", half_width, at_least=1, whole=True)
        self.network = classifier
        self.spikes = SpikeTarget(classifier, batch_norm)
        self.encoder = encoder
        self.generator = generator
        self.half_width = half_width
        device = device_of(classifier)
        self.code_book = _on(device, getattr(encoder, "code_book", None))
        self._mean_code = _on(device, getattr(encoder, "mean_code", None))

    def smoothed(self, half_width: int) -> "ImageTarget":
        """Return this target with another half-width: the same logits, another gradient."""
        other = copy(self)
        other.half_width = half_width
        return other

    def as_image_model(self) -> "ImageModel":
        """Return the module that other attack libraries take: images [N,C,H,W] in [0,1] to logits, with this target's gradient.

        Example:
            >>> from snn_sparsity.classifier import SpikingClassifier
            >>> from snn_sparsity.encoders import PhaseEncoder
            >>> from snn_sparsity.networks import SEWResNet
            >>> model = ImageTarget(SpikingClassifier(SEWResNet()), PhaseEncoder()).as_image_model()
            >>> model(torch.rand(2, 3, 32, 32)).shape
            torch.Size([2, 10])
        """
        return ImageModel(self)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] of images [N,C,H,W] in [0,1], as the attack sees them."""
        return self.spikes.logits(self.encode(x))

    def judge(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] that decide whether an attack has won: BatchNorm in eval mode, no gradient."""
        with torch.no_grad():
            return self.spikes.judge(self.encode(x))

    def encode(self, x: Tensor) -> Tensor:
        """Return the spikes [N,T,C,H,W] of images, with the gradient that this target takes back to them."""
        if self._mean_code is None:
            return self.encoder(x, self.generator).transpose(0, 1)
        spikes = self.encoder(x.detach(), self.generator).transpose(0, 1)
        return BoxBPDA.apply(x, spikes, self._mean_code, self.half_width)


class StepwiseTarget(ImageTarget):
    """A classifier seen from an image for each time step: x is [N,T,C,H,W], and step t shows what the code of image t shows at t.

    See :class:`ImageTarget` for the arguments. With T equal images it is that target.

    Example:
        >>> from snn_sparsity.classifier import SpikingClassifier
        >>> from snn_sparsity.encoders import PhaseEncoder
        >>> from snn_sparsity.networks import SEWResNet
        >>> target = StepwiseTarget(SpikingClassifier(SEWResNet()), PhaseEncoder(4))
        >>> target.logits(torch.rand(2, 4, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def encode(self, x: Tensor) -> Tensor:
        """Return the spikes [N,T,C,H,W] of images [N,T,C,H,W]."""
        return torch.stack([super(StepwiseTarget, self).encode(x[:, step])[:, step] for step in range(x.shape[1])], 1)


class ImageModel(nn.Module):
    """A target as foolbox, torchattacks and AutoAttack take it: a module from images [N,C,H,W] in [0,1] to logits [N,K].

    The classifier behind it is none of its parts: no attack library changes its mode, and none of its weights gets a gradient.

    Args:
        target: A target in image space.
    """

    def __init__(self, target: "ImageTarget | PlainTarget") -> None:
        super().__init__()
        self.target = target
        # By it libraries find the device.
        self.place = nn.Parameter(torch.empty(0, device=device_of(target.network)), requires_grad=False)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] of images [N,C,H,W] in [0,1]."""
        return self.target.logits(x)


class BoxBPDA(torch.autograd.Function):
    """A code whose derivative is the exact one of its average over the levels within h: ``(S[v+h] - S[v-h]) / 2h``.

    S is the expected code of each level, v clipped to 0..255 (the width too). A straight-through rule for codes, as backward
    pass differentiable approximation (Athalye et al., arXiv 1802.00420). Planes whose period divides 2h get derivative 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, spikes: Tensor, mean_code: Tensor, half_width: int) -> Tensor:
        """Return the spikes [N,T,C,H,W] as they are."""
        ctx.save_for_backward(grey_levels(x), mean_code)
        ctx.half_width = half_width
        return spikes.view_as(spikes)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient at the image [N,C,H,W], per unit of x (255 levels)."""
        levels, mean_code = ctx.saved_tensors
        every = torch.arange(len(mean_code), device=mean_code.device)
        low, high = (every - ctx.half_width).clamp(min=0), (every + ctx.half_width).clamp(max=len(mean_code) - 1)
        slope = (mean_code[high] - mean_code[low]) * (len(mean_code) - 1) / (high - low).unsqueeze(1)
        return (gradients[0] * slope[levels.long()].movedim(-1, 1)).sum(1), None, None, None


def _on(device: torch.device, table: Tensor | None) -> Tensor | None:
    return None if table is None else table.to(device)
