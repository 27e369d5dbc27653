"""Zeros in a trained network of which one convolution is pruned, by dose."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_sparsity.experiments.attackers import ModelUnderTest
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.measure.operations import operations
from snn_sparsity.measure.reachability import reachability
from snn_sparsity.probes.gradient_trail import weight_of
from snn_sparsity.validation import InputError

DOSES = (0.0, 0.5, 0.9, 0.99, 0.999)
CHANNEL_DOSES = (0.25, 0.5, 0.75)


class Dose(NamedTuple):
    """Zeros in a trained network of which one convolution is pruned.

    Attributes:
        what: What was pruned.
        share: How much of it.
        own: Zeros at the pruned convolution's input: the chain that the paper calls shared.
        weight: Zeros of the gradient of the weights before it, over those that can see the image.
        before: Zeros at the input of the convolution before it.
        first: Zeros at the network's input.
    """

    what: str
    share: float
    own: float
    weight: float
    before: float
    first: float


def pruned(case: ModelUnderTest, layer: str | None = None) -> tuple[str, str, list[Dose]]:
    """Prune a convolution by rising doses, and see how far its zeros travel towards the input.

    Single entries are pruned smallest first, input channels by the smallest L1 norm first; the rest of the network stays as it was
    trained, and the network of the case is left alone.

    Args:
        case: A trained network; its first images are looked at, one batch of them.
        layer: Path of the convolution; null is ``layer2.0.conv2``, else the last.

    Returns:
        The convolution, the one before it, and a line for each dose.

    Raises:
        InputError: If there is no such convolution, or none before it.
    """
    case = replace(case, classifier=deepcopy(case.classifier))
    convolutions = operations(case.network, ["conv"])
    paths = [each.path for each in convolutions]
    place = paths.index(layer or ("layer2.0.conv2" if "layer2.0.conv2" in paths else paths[-1])) if layer in (None, *paths) else 0
    if place == 0:
        raise InputError(f"--layer {layer} must be a convolution with one before it: {', '.join(paths[1:])}")
    own, before = convolutions[place], convolutions[place - 1]
    weight = weight_of(own).detach()
    whole = weight.clone()
    doses = []
    for what, share, mask in _masks(whole):
        weight.copy_(whole * mask)
        spikes, labels = case.spikes(case.batch_size).requires_grad_(), case.labels[: case.batch_size].to(case.device)
        with record_gradients(case.network, ["conv"]) as record:
            loss = F.cross_entropy(case.classifier(spikes), labels, reduction="sum")
            _, gradient = torch.autograd.grad(loss, [spikes, weight_of(before)])
        steps, _, channels, height, width = spikes.shape
        seen = reachability(case.network, (height, width), channels, steps)[before.path].to(gradient.device)
        at_own, at_before, first = (float(record.values[path][0].mean()) for path in (own.path, before.path, record.operations[0].path))
        doses.append(Dose(what, share, at_own, float((gradient[seen] == 0).double().mean()), at_before, first))
    return own.path, before.path, doses


def _masks(weight: Tensor) -> Iterator[tuple[str, float, Tensor]]:
    """Yield masks that keep all but a share of a weight [O,I,kH,kW]."""
    order = weight.abs().flatten().argsort().argsort().view_as(weight)
    for share in DOSES:
        yield "entries", share, order >= round(share * weight.numel())
    channels = weight.abs().sum((0, 2, 3)).argsort().argsort()
    for share in CHANNEL_DOSES:
        yield "input channels", share, (channels >= round(share * len(channels))).view(1, -1, 1, 1)
