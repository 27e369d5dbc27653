"""What counts as an operation: a module of a named kind, at a place in the network."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
from spikingjelly.activation_based import base, neuron
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from snn_sparsity.validation import InputError, require_choice

Kind = Literal["conv", "bn", "neuron", "pool", "linear"]
KINDS: tuple[Kind, ...] = get_args(Kind)
INPUT = "input"
"""Path and kind of the network's input, which is recorded beside the operations."""

WHOLE_SEQUENCES = (neuron.PSN, neuron.MaskedPSN, neuron.SlidingPSN, neuron.GatedLIFNode)
"""Neurons of SpikingJelly's that have no base in common with others, and see all time steps before they fire at the first."""
MODULE_TYPES: dict[Kind, tuple[type[nn.Module], ...]] = {
    "conv": (_ConvNd,),
    "bn": (_BatchNorm,),
    # Not "modules without children": an IFNode has a child, its surrogate, which SpikingJelly 2 never calls.
    "neuron": (neuron.BaseNode, neuron.SimpleBaseNode, *WHOLE_SEQUENCES),
    "pool": (_MaxPoolNd, _AvgPoolNd, _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd),
    "linear": (nn.Linear,),
}


class Operation(NamedTuple):
    """One operation of a network.

    Attributes:
        kind: What it computes.
        path: Where it is: the module's path, without the wrappers that memory optimisers insert.
        depth: Its place among all operations of the network; 0 is the network's input.
        module: The module itself.
    """

    kind: str
    path: str
    depth: int
    module: nn.Module

    @property
    def place(self) -> str:
        """Depth and path, such as ``01_conv1``."""
        return f"{self.depth:02d}_{self.path}"

    @property
    def tag(self) -> str:
        """Name in logs, such as ``conv/01_conv1``: TensorBoard groups by kind and sorts by depth."""
        return f"{self.kind}/{self.place}"


def kind_of(module: nn.Module) -> Kind | None:
    """Return the kind of a module, or None if it is no operation.

    Example:
        >>> kind_of(nn.Conv2d(1, 1, 1)), kind_of(nn.Sequential())
        ('conv', None)
    """
    return next((kind for kind, types in MODULE_TYPES.items() if isinstance(module, types)), None)


def operations(network: nn.Module, kinds: Sequence[Kind] = KINDS) -> list[Operation]:
    """List the operations of a network in the order in which its modules are defined.

    Args:
        network: Any module.
        kinds: The kinds to list; depths count all kinds, so that a name never depends on this choice.

    Returns:
        One entry per module of these kinds.

    Raises:
        InputError: For an unknown kind, or if the network has no operation of any of the kinds.

    Example:
        >>> [operation.tag for operation in operations(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Linear(1, 1)), ["linear"])]
        ['linear/02_1']
    """
    for kind in kinds:
        require_choice("kinds", kind, KINDS)
    found = [(kind_of(module), path, module) for path, module in network.named_modules()]
    known = [(kind, path, module) for kind, path, module in found if kind]
    listed = [
        Operation(kind, path.replace("_checkpoint_wrapped_module.", "") or "network", depth, module)
        for depth, (kind, path, module) in enumerate(known, start=1)
        if kind in kinds
    ]
    if not listed:
        raise InputError(f"kinds={list(kinds)} match no operation of {type(network).__name__}")
    return listed


def takes_all_steps(module: nn.Module) -> bool:
    """Return whether a module is given all time steps in one call: SpikingJelly's in multi-step mode.

    Example:
        >>> takes_all_steps(neuron.IFNode(step_mode="m")), takes_all_steps(neuron.IFNode()), takes_all_steps(neuron.PSN(T=4))
        (True, False, True)
    """
    # Those that know no other mode may not have been told theirs.
    return isinstance(module, base.MultiStepModule) or bool(getattr(module, "step_mode", "s") == "m")


def holds_state(module: nn.Module) -> bool:
    """Return whether a spiking neuron still remembers an earlier forward pass."""
    if not isinstance(module, base.MemoryModule):
        return False
    kept = ((value, module._memories_rv[name]) for name, value in module._memories.items() if isinstance(value, Tensor))
    return any(not (isinstance(at_rest, Tensor) and torch.equal(value, at_rest)) for value, at_rest in kept)
