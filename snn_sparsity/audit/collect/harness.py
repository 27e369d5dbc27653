"""Checks V1-V5: is what the audit attacks a function, the right one, and are attacked inputs legal?"""

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from snn_sparsity.attacks import PGD
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import ThreatModel
from snn_sparsity.gradient_rules import GradientRule

REPEATS = 5
SAME = 1e-4
"""Normalised logits no further apart than this are the same (AutoAttack's check)."""


def harness(subject: Subject, protocol: ThreatModel, places: list[int], rules: dict[str, GradientRule]) -> dict[str, Any]:
    """Return the evidence of V1-V3 and V5 on a few images; that of V4 comes with the attacks."""
    generator = subject.generator(0)
    x, labels = protocol.inputs(subject, places)
    with torch.random.fork_rng([x.device] if x.device.type == "cuda" else []):
        torch.manual_seed(subject.seed)
        before = fingerprint(subject.classifier)
        evidence = _determinism(subject, protocol, x) | _outputs(subject, protocol, x)
        evidence["gap_state"] = _gap_of_state(subject, protocol, x)
        random = not evidence["deterministic"] or evidence["gap_repeat"] > SAME
        if not random:
            # Of a random network, the gaps would only measure its randomness.
            evidence["gap_batch"] = _gap_of_batch(subject, protocol, x)
            evidence["gap_judge"] = _gap_of_judge(subject, protocol, x)
            evidence["gap_rules"] = _gap_of_rules(subject, protocol, x, rules)
        drawn = torch.get_rng_state()
        PGD(steps=2)(Metered(protocol.target(subject, generator), Meter(labels)), x, labels, subject.generator(1))
        evidence["state_unchanged"] = fingerprint(subject.classifier) == before and (random or torch.equal(drawn, torch.get_rng_state()))
    return evidence


def fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def settings_fingerprint(module: nn.Module) -> str:
    """Return the SHA-256 of the kinds of all modules and their plain attributes, such as thresholds: what weights do not say."""
    digest = hashlib.sha256()
    for path, part in module.named_modules():
        plain = {
            name: value
            for name, value in vars(part).items()
            if isinstance(value, bool | int | float | str | tuple) and not name.startswith("_") and name != "training"
        }
        digest.update(repr((path, type(part).__qualname__, sorted(plain.items()))).encode())
    return digest.hexdigest()


def _logits(subject: Subject, protocol: ThreatModel, x: Tensor) -> Tensor:
    with torch.no_grad():
        return protocol.target(subject, torch.Generator().manual_seed(int(torch.randint(2**31, ())))).logits(x)


def _determinism(subject: Subject, protocol: ThreatModel, x: Tensor) -> dict[str, Any]:
    """V1: the largest distance of repeated, normalised logits, as in AutoAttack's check of randomised defences."""
    repeats = [_logits(subject, protocol, x) for _ in range(REPEATS)]
    scaled = torch.stack([logits / logits.norm(dim=1, keepdim=True).clamp(min=1e-12) for logits in repeats])
    same = all(torch.equal(repeats[0].argmax(1), logits.argmax(1)) for logits in repeats)
    return {"deterministic": same, "gap_repeat": _largest((scaled - scaled[0]).norm(dim=-1))}


def _gap_of_batch(subject: Subject, protocol: ThreatModel, x: Tensor) -> float:
    """V2: an image's logits in a batch, against alone and after an unrelated call."""
    together = _logits(subject, protocol, x)
    _logits(subject, protocol, 1 - x)
    alone = torch.cat([_logits(subject, protocol, x[i : i + 1]) for i in range(len(x))])
    return _gap(together, alone)


def _gap_of_state(subject: Subject, protocol: ThreatModel, x: Tensor) -> float:
    """V2: the same images with the same draws, before and after an unrelated call: what differs now is memory, not chance."""

    def drawn(inputs: Tensor) -> Tensor:
        torch.manual_seed(subject.seed)
        return _logits(subject, protocol, inputs)

    before = drawn(x)
    drawn(1 - x)
    return _gap(drawn(x), before)


def _gap_of_judge(subject: Subject, protocol: ThreatModel, x: Tensor) -> float:
    """V3: what is attacked against what is judged."""
    target = protocol.target(subject, subject.generator(2))
    judge = protocol.target(subject, subject.generator(2)).judge(x)
    with torch.no_grad():
        return _gap(target.logits(x), judge)


def _gap_of_rules(subject: Subject, protocol: ThreatModel, x: Tensor, rules: dict[str, GradientRule]) -> float:
    """V3: no backward rule may move a logit."""
    plain = protocol.target(subject, subject.generator(2)).judge(x)
    gaps = [0.0]
    for rule in rules.values():
        with rule.applied(subject.classifier):
            gaps.append(_gap(protocol.target(subject, subject.generator(2)).judge(x), plain))
    return max(gaps)


def _outputs(subject: Subject, protocol: ThreatModel, x: Tensor) -> dict[str, Any]:
    """V5: outputs must be logits, and DLR needs the first and the third to differ."""
    logits = _logits(subject, protocol, x)
    probabilities = bool((logits >= 0).all() and torch.allclose(logits.sum(1), torch.ones(len(logits), device=logits.device), atol=1e-4))
    if logits.shape[1] < 3:
        return {"probabilities": probabilities}
    top = logits.topk(3, dim=1).values
    return {"probabilities": probabilities, "ties": (top[:, 0] == top[:, 2]).float().mean().item()}


def _gap(logits: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest logit where that is above 1: rounding grows with the logits."""
    return _largest((logits - expected).abs() / expected.abs().max().clamp(min=1))


def _largest(gaps: Tensor) -> float:
    return float(gaps.nan_to_num(nan=float("inf")).max())
