"""What is attacked: a classifier seen from its spikes, or from the image behind an encoder."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from snn_sparsity.attacks.base import Space
from snn_sparsity.checks import require_choice
from snn_sparsity.encoders.base import Encoder

BatchNormMode = Literal["eval", "batch"]
Observer = Callable[[Tensor], object]


class SpikeTarget:
    """A classifier seen from its spikes, the authors' space: x is [N,T,C,H,W] in [0,1].

    Parameters get no gradient, modules run in eval mode, and the classifier is left as it was after every call. With
    ``batch_norm="batch"`` BatchNorm uses the batch's statistics, as published code does while crafting; its running
    statistics then drift with every call, in a copy that lives in this target: ``judge`` sees the drift, the classifier does not.

    Args:
        classifier: Maps [T,N,C,H,W] to logits [N,K] and resets its neurons itself.
        batch_norm: ``eval`` (the strict protocol) or ``batch`` (the paper's).
        observer: Called with each gradient [N,T,C,H,W] that an attack takes at these spikes.

    Raises:
        InputError: For an unknown BatchNorm mode.
    """

    space: Space = "spikes"
    bounds = (0.0, 1.0)

    def __init__(self, classifier: nn.Module, batch_norm: BatchNormMode = "eval", observer: Observer | None = None) -> None:
        require_choice("batch_norm", batch_norm, ("eval", "batch"))
        self.classifier = classifier
        self.batch_norm = batch_norm
        self.observer = observer
        self._parameters = {name: parameter.detach() for name, parameter in classifier.named_parameters()}
        buffers = dict(classifier.named_buffers())
        self._buffers = {name: buffer.clone() for name, buffer in buffers.items()} if batch_norm == "batch" else buffers

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] of spikes [N,T,C,H,W], as the attack sees them."""
        if x.requires_grad:
            x.register_hook(self._notify)
        return self._run(x, self.batch_norm)

    def judge(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] that decide whether an attack has won: BatchNorm in eval mode, no gradient."""
        with torch.no_grad():
            return self._run(x, "eval")

    def _notify(self, gradient: Tensor) -> None:
        if self.observer is not None:
            self.observer(gradient)

    def _run(self, x: Tensor, batch_norm: BatchNormMode) -> Tensor:
        with evaluating(self.classifier, batch_norm):
            logits: Tensor = functional_call(self.classifier, self._parameters | self._buffers, (x.transpose(0, 1),))
        return logits


class ImageTarget:
    """A classifier seen from the image: x is [N,C,H,W] in [0,1], put on the 8-bit lattice, and encoded.

    One perturbation is shared by all time steps. Logits have a gradient only where the encoder has one; ``CodeBookAscent``
    works on ``spikes`` and ``code_book`` instead.

    Args:
        classifier: Maps [T,N,C,H,W] to logits [N,K] and resets its neurons itself.
        encoder: Maps images to spikes.
        batch_norm: ``eval`` (the strict protocol) or ``batch``.
        observer: Called with each gradient that an attack takes, at the spikes.
        generator: Source of randomness of a stochastic encoder.

    Raises:
        InputError: For an unknown BatchNorm mode.
    """

    space: Space = "image"
    bounds = (0.0, 1.0)

    def __init__(
        self,
        classifier: nn.Module,
        encoder: Encoder,
        batch_norm: BatchNormMode = "eval",
        observer: Observer | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        self.spikes = SpikeTarget(classifier, batch_norm, observer)
        self.encoder = encoder
        self.generator = generator
        book = getattr(encoder, "code_book", None)
        device = next(iter(classifier.parameters())).device
        self.code_book: Tensor | None = None if book is None else book.to(device)

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] of images [N,C,H,W] in [0,1], as the attack sees them."""
        return self.spikes.logits(self._encode(x))

    def judge(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] that decide whether an attack has won: BatchNorm in eval mode, no gradient."""
        with torch.no_grad():
            return self.spikes.judge(self._encode(x))

    def _encode(self, x: Tensor) -> Tensor:
        return self.encoder(x, self.generator).transpose(0, 1)


@contextmanager
def evaluating(classifier: nn.Module, batch_norm: BatchNormMode = "eval") -> Iterator[None]:
    """Put every module in eval mode (BatchNorm in training mode for ``batch``), and each back as it was."""
    before = [(module, module.training) for module in classifier.modules()]
    try:
        for module, _ in before:
            module.training = batch_norm == "batch" and isinstance(module, _BatchNorm)
        yield
    finally:
        for module, training in before:
            module.training = training
