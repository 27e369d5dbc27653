"""Passes of a network replayed as CUDA graphs, for networks whose kernels are shorter than the time to launch them."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from snn_sparsity.validation import InputError


@contextmanager
def replaying(classifier: Any) -> Iterator[None]:
    """Replay a classifier's passes while the block runs: those with a gradient, through whatever backward rule applies now.

    Args:
        classifier: A ``SpikingClassifier`` on a GPU.

    Raises:
        InputError: In the block, if the network's passes cannot be captured.
    """
    classifier.replayed = Replayed(classifier.network)
    try:
        yield
    finally:
        classifier.replayed = None


class Replayed:
    """A network whose passes with a gradient are replayed where they are those that were captured.

    Args:
        network: Maps [T,N,...] to [T,N,K]; on a GPU. Attacks are replayed while its backward pass is what it is now.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network
        self._modules = list(network.modules())
        self._unchanged = self._attributes()
        self._graphs: dict[tuple[bool, ...], _Graph] = {}

    def __call__(self, x: Tensor) -> Tensor:
        """Return the network's outputs of x."""
        kind = self._kind(x)
        passes: Callable[[Tensor], Tensor] = self._network
        if kind is not None:
            if kind not in self._graphs:
                self._graphs[kind] = _Graph(self._network, self._modules, x)
            if self._graphs[kind].is_for(x):
                passes = self._graphs[kind]
        outputs: Tensor = passes(x)
        return outputs

    def __deepcopy__(self, memo: dict[int, object]) -> None:
        """Return None: a copied classifier has a network of its own, which nothing was captured of."""

    def _kind(self, x: Tensor) -> tuple[bool, ...] | None:
        """Return which of x and the weights want a gradient, and each module's mode; None for a pass of neither a step nor an attack."""
        if not torch.is_grad_enabled() or any(_is_hooked(module) for module in self._modules):
            return None
        learn = [parameter.requires_grad for parameter in _tensors(self._modules, "_parameters")]
        # A step is taken under one backward rule or none, as when it was captured; attacks come with any.
        if any(learn) == x.requires_grad or (x.requires_grad and not self._is_unchanged()):
            return None
        return x.requires_grad, *learn, *(module.training for module in self._modules)

    def _is_unchanged(self) -> bool:
        now = self._attributes()
        return len(now) == len(self._unchanged) and all(one is other for one, other in zip(now, self._unchanged, strict=True))

    def _attributes(self) -> list[object]:
        """Return what a backward rule may exchange: methods, surrogates, switches and submodules."""
        own = [value for module in self._modules for name, value in vars(module).items() if name[0] != "_" and name != "training"]
        return own + [part for module in self._modules for part in module._modules.values()]


class _Graph:
    """One kind of pass, captured. Its buffers are its own: an attack's are others in each batch.

    Args:
        network: Maps [T,N,...] to [T,N,K].
        modules: All of it.
        x: What is passed first.
    """

    def __init__(self, network: nn.Module, modules: list[nn.Module], x: Tensor) -> None:
        self._shape, self._modules = x.shape, modules
        self._buffers = [buffer.clone() for buffer in _tensors(modules, "_buffers")]
        self._addresses = self._weights()
        self._awaited: Callable[[], object] = lambda: None
        sample = x.detach().clone().requires_grad_(x.requires_grad)
        capture: Any = torch.cuda.make_graphed_callables
        # Warming up moves neither BatchNorm's statistics nor the random numbers.
        with torch.random.fork_rng([x.device] if x.is_cuda else []), _lent(modules, self._buffers):
            try:
                self._passes: Callable[[Tensor], Tensor] = capture(FreshPass(network), (sample,), allow_unused_input=True)
            except RuntimeError as error:
                reason = str(error).strip().splitlines()[0]
                raise InputError(f"the network's passes cannot be captured as CUDA graphs ({reason}): leave CUDAGraphs out") from error
        functional.reset_net(network)

    def is_for(self, x: Tensor) -> bool:
        """Return whether this pass can be replayed: same shape and weights, and nobody waits for the gradient of the last.

        A graph has one memory, and each pass writes over what the gradient of the one before needs.
        """
        return x.shape == self._shape and self._awaited() is None and self._weights() == self._addresses

    def __call__(self, x: Tensor) -> Tensor:
        buffers = list(_tensors(self._modules, "_buffers"))
        with torch.no_grad():
            _copy(buffers, self._buffers)
        # The gradient of a product is a tensor of its own; the graph's would be written over by the next pass.
        outputs = self._passes(1 * x if x.requires_grad else x)
        with torch.no_grad():
            _copy(self._buffers, buffers)
        self._awaited = node = weakref.ref(outputs.grad_fn)
        outputs.register_hook(lambda _: self._taken(node()))
        return outputs

    def _taken(self, node: object) -> None:
        if node is not self._awaited():
            raise RuntimeError("CUDAGraphs: the gradient of one pass was taken twice, and is there once; leave the callback out")
        self._awaited = lambda: None

    def _weights(self) -> list[int]:
        return [parameter.data_ptr() for parameter in _tensors(self._modules, "_parameters")]


class FreshPass(nn.Module):
    """One pass of a network with neurons reset before it: what is captured.

    It has forward and mode of its own, because capturing replaces the one and is bound to the other.

    Args:
        network: Maps [T,N,...] to [T,N,K].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Return the network's outputs of x."""
        functional.reset_net(self.network)
        outputs: Tensor = self.network(x)
        return outputs


def _is_hooked(module: nn.Module) -> bool:
    before = any(not getattr(hook, "looks_at_shapes", False) for hook in module._forward_pre_hooks.values())
    return bool(before or module._forward_hooks or module._backward_hooks or module._backward_pre_hooks)


def _tensors(modules: list[nn.Module], kind: str) -> Iterator[Tensor]:
    """Yield parameters or buffers as they are at present: an attack puts its own in their place."""
    for module in modules:
        yield from (tensor for tensor in getattr(module, kind).values() if tensor is not None)


@contextmanager
def _lent(modules: list[nn.Module], buffers: list[Tensor]) -> Iterator[None]:
    """Put these buffers in the place of the modules' own while the block runs."""
    places = [(module._buffers, name) for module in modules for name, buffer in module._buffers.items() if buffer is not None]
    before: list[Tensor | None] = [held[name] for held, name in places]
    try:
        for (held, name), buffer in zip(places, buffers, strict=True):
            held[name] = buffer
        yield
    finally:
        for (held, name), own in zip(places, before, strict=True):
            held[name] = own


def _copy(origin: list[Tensor], to: list[Tensor]) -> None:
    """Copy all with one launch for each type of number."""
    for dtype in {tensor.dtype for tensor in to}:
        pairs = [(new, old) for new, old in zip(origin, to, strict=True) if old.dtype == dtype]
        torch._foreach_copy_([old for _, old in pairs], [new for new, _ in pairs])
