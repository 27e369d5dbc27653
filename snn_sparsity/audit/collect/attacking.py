"""One attack on one batch, and everything the verdict wants to know of it."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from snn_sparsity.attacks import Transfer
from snn_sparsity.attacks.base import Attack, correct
from snn_sparsity.attacks.metering import Meter, Metered
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.collect.threat_models import AttackTarget, ThreatModel
from snn_sparsity.validation import InputError

BatchResult = dict[str, Any]
LAST_STEPS = 10
"""Steps over which V11 asks whether the loss still rises (Pintor et al., arXiv 2106.09947)."""


def attack_batch(
    subject: Subject,
    protocol: ThreatModel,
    attack: Attack,
    places: list[int],
    key: Sequence[int],
    target: AttackTarget | None = None,
) -> BatchResult:
    """Attack the images at these places and return what happened, as JSON.

    Args:
        subject: What is audited.
        protocol: Space and BatchNorm mode.
        attack: The attack.
        places: Places of the images in the audited set.
        key: Key of the random numbers.
        target: What to attack, where its drift must go on from an earlier batch; None is a fresh one.

    Returns:
        Lists by image under ``places``, ``fooled``, ``zero_start``, ``zero``, ``seen``, ``improving``; numbers of the
        batch under ``forwards``, ``backwards``, ``seconds``, ``largest``, ``not_finite``; ``why`` where it could not run.
    """
    began = time.perf_counter()
    target = target or protocol.target(subject, subject.generator(*key, 1))
    x, labels = protocol.inputs(subject, places)
    if isinstance(attack, Transfer):
        # A random code draws for each batch by itself: an audit that goes on in another process has the same draws.
        source = replace(subject, classifier=attack.source.network)
        attack = replace(attack, source=protocol.target(source, subject.generator(*key, 2)))
    meter = Meter(labels, x, attack.eps)
    with subject.drawing(*key, 3), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            x_adv = attack(Metered(target, meter), x, labels, subject.generator(*key, 4)).detach()
        except InputError as error:
            return {"places": places, "status": "skipped", "why": str(error)}
        except Exception as error:  # noqa: BLE001  # whatever breaks in one attack is reported, and the audit goes on
            return {"places": places, "status": "failed", "why": f"{type(error).__name__}: {error}"}
        x_adv = protocol.settled(x_adv)
        logits = subject.judge(target, x_adv, places)
    fooled = ~correct(logits, labels)
    return {
        "places": places,
        "status": "done",
        "fooled": fooled.tolist(),
        "zero_start": [False] * len(places) if meter.zero_at_start is None else meter.zero_at_start.tolist(),
        "zero": meter.zero.tolist(),
        "seen": (meter.fooled if protocol.every_look_counts(subject) else fooled).tolist(),
        "improving": still_improving(meter.losses, len(places)),
        "forwards": meter.forwards,
        "backwards": meter.backwards,
        "largest": protocol.distance(x_adv, x),
        "not_finite": int((~logits.isfinite().all(1)).sum()),
        "seconds": time.perf_counter() - began,
        **protocol.legality(subject, target, x_adv, places),
    }


def still_improving(losses: list[Tensor], count: int) -> list[bool]:
    """Return of each image whether its loss, made monotone and rescaled to [0,1], rose by more than 0.05 in the last steps.

    Example:
        >>> still_improving([torch.tensor([float(step), 1.0 + (step > 3)]) for step in range(40)], 2)
        [True, False]
    """
    if len(losses) <= LAST_STEPS:
        return [False] * count
    best = torch.stack(losses).nan_to_num().cummax(0).values
    span = (best[-1] - best[0]).clamp(min=1e-12)
    rose = (best[-1] - best[-1 - LAST_STEPS]) / span
    # Of a loss that never moved, nothing can be said.
    return ((rose > 0.05) & (best[-1] - best[0] > 1e-6)).tolist()
