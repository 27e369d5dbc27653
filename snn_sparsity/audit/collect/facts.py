"""What a network is: random or not, spiking or not, where it blocks the gradient, which rules change nothing of it."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.pooling import _MaxPoolNd

from snn_sparsity.attacks.base import input_gradient
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.audit.collect.harness import SAME, harness
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import SPIKES
from snn_sparsity.gradient_rules import GradientRule
from snn_sparsity.gradient_rules.base import own_functions, spiking_neurons
from snn_sparsity.gradient_rules.straight_through import blocked_modules
from snn_sparsity.validation import InputError


def facts_of(subject: Subject, places: list[int]) -> dict[str, Any]:
    """Return the facts as JSON, and under ``stuck`` which modules block the gradient and cannot be passed straight through.

    Args:
        subject: What is audited.
        places: Of a few images to look at.
    """
    why = _why_no_rules(subject)
    x, labels = SPIKES.inputs(subject, places)
    x = x.clone().requires_grad_()
    # In eval mode, as every target has it.
    target = SPIKES.target(subject, subject.generator(0))
    blocked, stuck = blocked_modules(
        subject.classifier, lambda: target.logits(x).logsumexp(1) - target.logits(x).gather(1, labels[:, None])[:, 0]
    )
    random = subject.encoder.stochastic
    if not random:
        repeats = harness(subject, SPIKES, places, {})
        random = not repeats["deterministic"] or repeats["gap_repeat"] > SAME
    code_book = getattr(subject.encoder, "code_book", None)
    steps = None if code_book is None else code_book.diff(dim=0)
    return {
        "random": random,
        "spiking": not why,
        "why_no_rules": why,
        "max_pooling": any(isinstance(module, _MaxPoolNd) for module in subject.classifier.modules()),
        # Where each step's code is a straight line in the grey level, a box average has its exact derivative.
        "coded": steps is not None and not torch.allclose(steps, steps[:1].expand_as(steps), atol=1e-6),
        "num_classes": subject.num_classes,
        "blocked": blocked,
        "stuck": stuck,
    }


def idle_rules(subject: Subject, places: list[int], rules: dict[str, GradientRule]) -> dict[str, str]:
    """Return why rules are not tried: they refuse this network, or change no gradient of it (of a random one, with the same draws)."""
    x, labels = SPIKES.inputs(subject, places)
    target = Metered(SPIKES.target(subject, subject.generator(0)), Meter(labels))

    def gradient() -> Tensor:
        with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
            torch.manual_seed(subject.seed)
            return input_gradient(target.logits, x, labels, "margin")[0]

    plain, idle = gradient(), {}
    for name, rule in rules.items():
        try:
            with rule.applied(subject.classifier):
                if torch.equal(gradient(), plain):
                    idle[name] = "it changes no gradient of this network"
        except InputError as error:
            idle[name] = str(error)
    return idle


def _why_no_rules(subject: Subject) -> str:
    """Return why surrogate rules cannot be applied; empty where they can."""
    try:
        spiking_neurons(subject.classifier)
    except InputError as error:
        x, _ = SPIKES.inputs(subject, [0])
        with torch.enable_grad():
            own = own_functions(SPIKES.target(subject, subject.generator(0)).logits(x.clone().requires_grad_()))
        return f"{error}; its derivatives are autograd functions of its own: {', '.join(own)}" if own else str(error)
    return ""
