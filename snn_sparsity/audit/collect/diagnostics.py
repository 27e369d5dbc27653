"""Checks on gradients, landscape and protocol that need more than the outcome of an attack (V7-V26)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from snn_sparsity.attacks.base import Target, input_gradient, project, uniform_noise
from snn_sparsity.attacks.lattice import whole_levels
from snn_sparsity.audit.collect.attacking import attack_batch
from snn_sparsity.audit.collect.fidelity import group_fidelity, move_fidelity
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import PIXELS, SPIKES, ThreatModel
from snn_sparsity.gradient_rules import SurrogateShape
from snn_sparsity.gradient_rules.base import spiking_neurons
from snn_sparsity.measure.operations import takes_all_steps
from snn_sparsity.measure.saturation import membrane_distance, vanishing_degree
from snn_sparsity.validation import InputError

Measured = dict[str, Any]
LANDSCAPE_POINTS = 9


def zero_entries(subject: Subject, protocol: ThreatModel, places: list[int]) -> Measured:
    """V7: share of zero entries of the loss gradient at the clean input."""
    target, x, labels = _aim(subject, protocol, places)
    gradient, _ = input_gradient(target.logits, x, labels)
    return {"zero_entries": (gradient == 0).float().mean().item()}


def loss_under_noise(subject: Subject, protocol: ThreatModel, places: list[int], draws: int, eps: float) -> Measured:
    """V9: mean of min(1, |change of loss| / |loss|) under noise of half the radius (Pintor et al., arXiv 2106.09947)."""
    target, x, labels = _aim(subject, protocol, places)
    generator = subject.generator(9)
    with torch.no_grad():
        clean = _loss(target, x, labels)
        changes = []
        for _ in range(draws):
            noisy = project(x + uniform_noise(x, eps / 2, generator), x, eps / 2, target.bounds)
            changes.append(((_loss(target, noisy, labels) - clean).abs() / clean.abs().clamp(min=1e-12)).clamp(max=1))
    return {"loss_change": torch.stack(changes).mean().item()}


def gradient_fidelity(subject: Subject, protocol: ThreatModel, places: list[int], eps: float) -> Measured:
    """V20: predicted against true changes of the loss over random moves at the scale of eps."""
    target, x, labels = _aim(subject, protocol, places)
    generator = subject.generator(20)
    if x.ndim == 5 and protocol.space == "image":
        raise InputError("moves of one image's levels are measured in the image protocol")
    if getattr(target, "code_book", None) is not None:
        found = group_fidelity(target, x, labels, generator, eps=eps, fractions=(1.0,))[1.0]
    else:
        found = move_fidelity(target, x, labels, generator, eps=eps)
    return {"signs_agree": found.sign_agreement, "rank_correlation": found.spearman}


def surrogate_cosine(subject: Subject, places: list[int]) -> Measured:
    """V20: mean cosine of an image's spike gradients under ATan with alpha 1 and 8."""
    target, x, labels = _aim(subject, SPIKES, places)
    gradients = []
    for alpha in (1.0, 8.0):
        with SurrogateShape("atan", alpha).applied(subject.classifier):
            gradients.append(input_gradient(target.logits, x, labels)[0].flatten(1))
    return {"surrogate_cosine": F.cosine_similarity(gradients[0], gradients[1], dim=1).mean().item()}


def vanishing(subject: Subject, places: list[int]) -> Measured:
    """V21: mean vanishing degree of each layer of SpikingJelly's neurons in multi-step mode (arXiv 2512.22522)."""
    layers = [one for one in spiking_neurons(subject.classifier).items() if takes_all_steps(one[1])]
    target, x, _ = _aim(subject, SPIKES, places)
    degrees: dict[str, float] = {}
    handles = []
    for path, layer in layers:

        def note(module: Any, inputs: tuple[Tensor, ...], output: Tensor, path: str = path) -> None:
            degrees[path] = vanishing_degree(module.surrogate_function, membrane_distance(module, inputs[0])).mean().item()

        handles.append(layer.register_forward_hook(note))
    try:
        with torch.no_grad():
            target.logits(x)
    finally:
        for handle in handles:
            handle.remove()
    return {"vanishing": degrees}


def landscape(subject: Subject, protocol: ThreatModel, places: list[int], eps: float) -> Measured:
    """V22: share of images whose loss rises more than twice as far along the gradient's signs as along random ones."""
    target, x, labels = _aim(subject, protocol, places)
    gradient, _ = input_gradient(target.logits, x, labels)
    chance = uniform_noise(x, 1.0, subject.generator(22)).sign()
    lengths = torch.linspace(-eps, eps, LANDSCAPE_POINTS).tolist()
    rises = []
    with torch.no_grad():
        for direction in (gradient.sign(), chance):
            losses = torch.stack([_loss(target, (x + length * direction).clamp(*target.bounds), labels) for length in lengths])
            rises.append(losses.amax(0) - losses[LANDSCAPE_POINTS // 2])
    along, aside = rises
    return {"landscape": (along > 2 * aside).float().mean().item()}


def pixel_noise(subject: Subject, places: list[int], eps: float) -> Measured:
    """V25: accuracy under one draw of whole-number noise of 1 grey level and of the ball's."""
    found = {}
    for levels in sorted({1, whole_levels(eps)}):
        right = 0
        for number, batch in enumerate(subject.batches(places)):
            record = attack_batch(subject, PIXELS, PIXELS.noise(levels / 255, 1), batch, (25, levels, number))
            right += record["fooled"].count(False)
        found[str(levels)] = right / max(len(places), 1)
    return {"noise": found}


def _aim(subject: Subject, protocol: ThreatModel, places: list[int]) -> tuple[Any, Tensor, Tensor]:
    return protocol.target(subject, subject.generator(7)), *protocol.inputs(subject, places)


def _loss(target: Target, x: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(target.logits(x), labels, reduction="none")
