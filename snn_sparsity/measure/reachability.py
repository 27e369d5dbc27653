"""Kernel taps that only ever multiply padding: weights that no image can train, found by shape alone."""

from contextlib import ExitStack
from typing import Any

import torch
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from snn_sparsity.measure.operations import operations
from snn_sparsity.measure.windows import reachable_taps


def reachability(network: nn.Module, image_size: tuple[int, int] = (32, 32), channels: int = 3, steps: int = 1) -> dict[str, Tensor]:
    """Return which weights of each 2-d convolution can see the image at this size.

    Runs the network once, in eval mode and without gradient, on a black image of T steps; spiking neurons are reset afterwards and
    everything else stays as it was. A convolution that runs several times gets the union, one that never runs is left out.

    Args:
        network: Takes [T,N,C,H,W].
        image_size: (H, W) in pixels.
        channels: C.
        steps: T, for a network that takes no other.

    Returns:
        By the convolution's path, a bool mask of the shape of its weight [O,I,kH,kW].

    Raises:
        InputError: If the image is too small for a convolution, or the network has no operation at all.

    Example:
        >>> network = nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(1, 5, 3, padding=1))
        >>> masks = reachability(network, image_size=(1, 1), channels=1)
        >>> masks["1"].shape, masks["1"][0, 0].int().tolist()
        (torch.Size([5, 1, 3, 3]), [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    """
    masks: dict[str, Tensor] = {}
    convs = [(operation.path, operation.module) for operation in operations(network) if isinstance(operation.module, nn.Conv2d)]
    if not convs:
        return masks
    with ExitStack() as stack, torch.no_grad():
        for path, conv in convs:
            stack.callback(_watch(conv, path, masks).remove)
        for module in network.modules():
            # Not network.train(): parts of a network may be frozen in eval mode.
            stack.callback(setattr, module, "training", module.training)
        network.eval()
        stack.callback(functional.reset_net, network)
        network(conv.weight.new_zeros(steps, 1, channels, *image_size))
    return masks


def _watch(conv: nn.Conv2d, path: str, masks: dict[str, Tensor]) -> RemovableHandle:
    def enter(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        if conv.padding_mode == "zeros":
            taps = reachable_taps(inputs[0].shape[-2:], conv.kernel_size, conv.stride, conv.padding, conv.dilation)
        else:
            # Reflected, repeated or wrapped padding is made of real inputs.
            taps = torch.ones(conv.kernel_size, dtype=torch.bool)
        mask = taps.to(conv.weight.device).expand_as(conv.weight)
        masks[path] = masks[path] | mask if path in masks else mask

    return conv.register_forward_pre_hook(enter)


def unreachable_parameters(
    network: nn.Module, image_size: tuple[int, int] = (32, 32), channels: int = 3, steps: int = 1
) -> tuple[int, int]:
    """Return how many parameters only ever multiply padding, and how many the network has.

    Args:
        network: Takes [T,N,C,H,W].
        image_size: (H, W) in pixels.
        channels: C.
        steps: T, for a network that takes no other.

    Returns:
        (unreachable, total).

    Raises:
        InputError: If the image is too small for a convolution, or the network has no operation at all.

    Example:
        >>> network = nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(1, 5, 3, padding=1))
        >>> unreachable_parameters(network, image_size=(1, 1), channels=1)
        (40, 50)
    """
    masks = reachability(network, image_size, channels, steps)
    return sum(int((~mask).sum()) for mask in masks.values()), sum(parameter.numel() for parameter in network.parameters())


def describe_reachability(network: nn.Module, image_size: tuple[int, int] = (32, 32), channels: int = 3, steps: int = 1) -> str:
    """Return one line for a person: the share of the parameters that no image can train, and what to do about it.

    Args:
        network: Takes [T,N,C,H,W].
        image_size: (H, W) in pixels.
        channels: C.
        steps: T, for a network that takes no other.

    Returns:
        A sentence without full stop.

    Raises:
        InputError: If the image is too small for a convolution, or the network has no operation at all.

    Example:
        >>> network = nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(1, 5, 3, padding=1))
        >>> describe_reachability(network, image_size=(2, 2), channels=1)
        'every kernel tap can see the image at 2x2'
    """
    unreachable, total = unreachable_parameters(network, image_size, channels, steps)
    size = f"{image_size[0]}x{image_size[1]}"
    if not unreachable:
        return f"every kernel tap can see the image at {size}"
    return (
        f"{unreachable / total:.1%} of the {total / 1e6:.2f} M parameters are kernel taps that only ever see padding at {size}; "
        "a stem that shrinks the image less avoids it (--model.network.stem cifar)"
    )
