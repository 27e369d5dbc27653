"""Straight through what has no derivative: rounding, signs, and modules that block the gradient."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from snn_sparsity.gradient_rules.base import GradientRule, LayerRule, replaced
from snn_sparsity.validation import InputError

FLAT = {"round", "floor", "ceil", "trunc", "sign", "fix", "heaviside", "clamp", "clip", "hardtanh", "detach"}
"""Functions whose derivative is 0 nearly everywhere, or missing."""


@dataclass(frozen=True)
class StraightThrough(GradientRule):
    """The derivative 1 for every function that has 0: backward pass differentiable approximation by the identity.

    Two kinds are found by themselves: calls of round, floor, sign, clamp, detach and the like, wherever they are; and modules at whose
    input no gradient arrives although there is one at their output, where input and output have one shape. From Bengio et al., arXiv
    1308.3432, and Athalye et al., arXiv 1802.00420.

    Example:
        >>> class Quantiser(nn.Module):
        ...     def forward(self, x):
        ...         return (8 * x).round() / 8
        >>> quantiser, x = Quantiser(), torch.tensor([[0.5]], requires_grad=True)
        >>> with StraightThrough().applied(quantiser):
        ...     torch.autograd.grad(quantiser(x).sum(), x)[0].item()
        1.0
    """

    @contextmanager
    def applied(self, network: nn.Module) -> Iterator[None]:
        """Change the network's backward pass while the block runs; see :meth:`GradientRule.applied`."""
        forward = network.forward

        def straight(*inputs: Any, **named: Any) -> Any:
            with _Straight():
                return forward(*inputs, **named)

        with replaced(network, "forward", straight):
            yield


class _Straight(TorchFunctionMode):
    """While it is active, flat functions pass the gradient of their output to their input."""

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        name, x = getattr(function, "__name__", ""), args[0] if args else kwargs.get("input")
        if name.removesuffix("_") not in FLAT or not isinstance(x, Tensor) or not x.requires_grad:
            return function(*args, **kwargs)
        if name.endswith("_"):
            # In place: the same on a copy, and its values with the derivative 1 where x was.
            return x.copy_(_Identity.apply(x, function(x.detach().clone(), *args[1:], **kwargs)))
        result = function(*args, **kwargs)
        return _Identity.apply(x, result) if isinstance(result, Tensor) and x.shape == result.shape else result


class _Identity(torch.autograd.Function):
    """A given value with the derivative 1 with respect to a given tensor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor) -> Tensor:
        return value.detach().view_as(value).clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None


@dataclass(frozen=True)
class Unblocked(LayerRule):
    """The identity, backward, for each of these modules.

    Args:
        paths: Of the modules; :func:`blocked_modules` finds them.
    """

    paths: tuple[str, ...]

    def concerned(self, network: nn.Module) -> list[nn.Module]:
        """Return the modules."""
        return [network.get_submodule(path) for path in self.paths]

    def changed(self, layer: nn.Module) -> AbstractContextManager[None]:
        """Let the gradient pass one module unchanged."""
        forward = layer.forward
        return replaced(layer, "forward", lambda x: _Identity.apply(x, forward(x.detach())))


@dataclass
class _Seen:
    """What one module got, gave, and whether gradients reached either side."""

    path: str
    inputs: Tensor
    output: Tensor
    at_output: bool = False
    at_input: bool = False


def blocked_modules(network: nn.Module, run: Callable[[], Tensor]) -> tuple[list[str], list[str]]:
    """Find the modules that block the gradient: none at their input, though there is one at their output.

    Args:
        network: Any module.
        run: Runs the network on an input that requires a gradient and returns a number for each image.

    Returns:
        Paths of those whose input and output have one shape, and of the others; of nested modules the innermost.

    Example:
        >>> class Steps(nn.Module):
        ...     def forward(self, x):
        ...         return (x > 0).to(x)
        >>> network, x = nn.Sequential(nn.Linear(2, 2), Steps(), nn.Linear(2, 1)), torch.ones(1, 2, requires_grad=True)
        >>> blocked_modules(network, lambda: network(x).sum(1))
        (['1'], [])
    """
    seen: list[_Seen] = []
    handles = [module.register_forward_hook(_note(path, seen)) for path, module in network.named_modules() if path]
    try:
        with torch.enable_grad():
            value = run().sum()
            if value.requires_grad:
                value.backward(inputs=[tensor for one in seen for tensor in (one.inputs, one.output) if tensor.requires_grad])
    except (RuntimeError, InputError):
        return [], []
    finally:
        for handle in handles:
            handle.remove()
    stuck: dict[str, bool] = {}
    for one in seen:
        if _arrived(one.output) and not _arrived(one.inputs):
            stuck[one.path] = stuck.get(one.path, True) and one.inputs.shape == one.output.shape
    inner = {path: same for path, same in stuck.items() if not any(other.startswith(f"{path}.") for other in stuck)}
    return sorted(path for path, same in inner.items() if same), sorted(path for path, same in inner.items() if not same)


def _arrived(tensor: Tensor) -> bool:
    gradient = tensor.grad
    return gradient is not None and bool((gradient != 0).any())


def _note(path: str, seen: list[_Seen]) -> Callable[[nn.Module, tuple[Any, ...], Any], Tensor | None]:
    def note(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not isinstance(output, Tensor) or not inputs[0].is_floating_point():
            return None
        x = inputs[0]
        if not output.is_floating_point() or not x.requires_grad:
            return None
        # A module that cut the graph gets a new beginning, so that what is behind it can be asked.
        output = output if output.requires_grad else output.detach().requires_grad_()
        x.retain_grad()
        output.retain_grad()
        seen.append(_Seen(path, x, output))
        return output

    return note
