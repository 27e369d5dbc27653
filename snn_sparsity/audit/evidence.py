"""What an audit has seen, typed: the one thing the judge and the pages read, and what ``audit.json`` holds."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from snn_sparsity.protocols import BatchNormMode, Space
from snn_sparsity.validation import InputError

SCHEMA = 2
"""Version of the evidence; another one is refused."""

Role = Literal["claim", "native", "reference", "arm", "radius", "extra"]
"""What an attack is evidence for.

``claim`` is the quoted attack, ``native`` the battery with the network's own gradient, an ``arm`` is compared with the ``reference`` (more
restarts of the native attack) of its stream at equal cost, ``radius`` is the same attack in another ball, ``extra`` only counts towards the
worst case.
"""
Family = Literal["none", "rules", "loss", "averaging", "no gradient", "transfer", "unbounded"]
"""What an arm does that the native attack does not."""
Status = Literal["done", "failed", "skipped", "does not apply"]
Perturbation = Literal["linf", "flips"]


@dataclass(frozen=True, kw_only=True)
class AttackEvidence:
    """One attack on the audited images.

    Attributes:
        name: For the reader; nothing depends on it.
        role: What it is evidence for.
        family: What an arm does that the native attack does not.
        stream: Arms are compared with the references of the same stream.
        attack: The attack with its settings.
        eps: Radius of its ball; of flips, 1 is all that are allowed.
        units: What it costs an image at most: forward passes, and twice the backward passes.
        one_step: Whether it takes one step only.
        averaged: Whether it averages over a random network's draws.
        status: What became of it.
        why: Why it did not run to its end.
        fooled: By image, whether what it returned fools the network; None where it was not tried.
        seen: By image, whether any legal input that it looked at did; None where nobody looked.
        forwards: Images pushed forward.
        backwards: Images pushed backward.
        seconds: Wall-clock time.
        zero_gradient_start: Images whose first gradient was exactly 0.
        zero_gradient: Images with a gradient of exactly 0 at any step.
        still_improving: Share of images whose loss still rose in the last steps.
        largest_perturbation: Largest change of an entry; of flips, the share of those allowed.
        not_finite: Images with logits that are not finite.
    """

    name: str
    role: Role
    fooled: list[bool | None]
    family: Family = "none"
    stream: str = ""
    attack: str = ""
    eps: float = 8 / 255
    units: float = 0.0
    one_step: bool = False
    averaged: bool = False
    status: Status = "done"
    why: str = ""
    seen: list[bool | None] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    zero_gradient_start: int = 0
    zero_gradient: int = 0
    still_improving: float = 0.0
    largest_perturbation: float = 0.0
    not_finite: int = 0


@dataclass(frozen=True, kw_only=True)
class Harness:
    """Is what is attacked a function, and the right one? None where it was not measured (V1 to V5).

    Attributes:
        deterministic: Whether repeated passes predict the same.
        gap_repeat: Largest distance of normalised logits between repeated passes.
        gap_batch: Largest difference of an image's logits alone and in a batch; not measured of a random network.
        gap_state: Largest difference of an image's logits before and after other calls, with the same random draws.
        gap_judge: Largest difference between what is attacked and what is judged.
        gap_rules: Largest change of a logit by a backward rule.
        state_unchanged: Whether weights, buffers and random state were left alone.
        largest_perturbation: Largest change of an entry by any attack, over its own radius.
        in_bounds: Whether all attacked inputs were in the bounds.
        on_lattice: Whether all attacked images were 8-bit images.
        realisable: Share of attacked spike trains that are the code of an image.
        probabilities: Whether the outputs are probabilities.
        ties: Share of images whose first and third logit are equal.
    """

    deterministic: bool | None = None
    gap_repeat: float | None = None
    gap_batch: float | None = None
    gap_state: float | None = None
    gap_judge: float | None = None
    gap_rules: float | None = None
    state_unchanged: bool | None = None
    largest_perturbation: float | None = None
    in_bounds: bool | None = None
    on_lattice: bool | None = None
    realisable: float | None = None
    probabilities: bool | None = None
    ties: float | None = None


@dataclass(frozen=True, kw_only=True)
class Control:
    """The same attacks on a plain network behind the same code.

    Attributes:
        clean: Its accuracy without an attack.
        accuracy: Its accuracy under the native attack.
        what: What it is.
    """

    clean: float
    accuracy: float
    what: str = "a plain network"


@dataclass(frozen=True, kw_only=True)
class Planted:
    """Adversarial examples that were put where an attack must find them.

    Attributes:
        samples: How many.
        found: Share that the native attack found.
        found_by_noise: Share that noise found.
    """

    samples: int
    found: float
    found_by_noise: float


@dataclass(frozen=True, kw_only=True)
class Diagnostics:
    """Measurements beside the attacks; None where they were not made.

    Attributes:
        zero_entries: Share of entries of the input's gradient that are exactly 0.
        loss_change: Mean relative change of the loss under noise of half the ball's radius.
        signs_agree: Share of random moves whose change of the loss the gradient predicts in sign.
        rank_correlation: Spearman's, between predicted and true changes.
        surrogate_cosine: Between the gradients under two surrogates.
        vanishing: Vanishing degree by layer; empty where rules know no neurons.
        landscape: Share of images whose loss rises twice as much along the gradient as along random signs.
        noise: Accuracy under whole-number pixel noise, by grey levels.
        rounded: Accuracy on the quoted attack's spikes, rounded.
        control: The positive control.
        planted: The planted examples.
    """

    zero_entries: float | None = None
    loss_change: float | None = None
    signs_agree: float | None = None
    rank_correlation: float | None = None
    surrogate_cosine: float | None = None
    vanishing: dict[str, float] | None = None
    landscape: float | None = None
    noise: dict[str, float] | None = None
    rounded: float | None = None
    control: Control | None = None
    planted: Planted | None = None


@dataclass(frozen=True, kw_only=True)
class ProtocolEvidence:
    """One protocol: what the attacker may change, and everything that was seen.

    Attributes:
        space: Whether pixels or spikes are changed.
        batch_norm: How BatchNorm behaves while an attack is crafted.
        what: The protocol in words.
        perturbation: ``linf`` is a ball of radius eps; ``flips`` a number of spikes.
        attacks: In the order in which they ran.
        harness: For V1 to V5.
        diagnostics: For the other checks.
    """

    space: Space
    batch_norm: BatchNormMode = "eval"
    what: str = ""
    perturbation: Perturbation = "linf"
    attacks: list[AttackEvidence] = field(default_factory=list)
    harness: Harness = field(default_factory=Harness)
    diagnostics: Diagnostics = field(default_factory=Diagnostics)


@dataclass(frozen=True, kw_only=True)
class NotRun:
    """Something the audit left out.

    Attributes:
        what: What.
        why: Why.
    """

    what: str
    why: str


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything an audit has seen; the verdict is a pure function of it.

    Attributes:
        schema: Version of this record.
        eps: Radius of the ball.
        num_classes: K.
        labels: By image, its class.
        clean: By image, whether the network is right without an attack.
        protocols: By name.
        settings: What was audited, how and where.
        not_run: What was left out.
        seconds: Wall-clock time.
        complete: Whether the audit reached its end.
    """

    eps: float
    num_classes: int
    labels: list[int]
    clean: list[bool]
    protocols: dict[str, ProtocolEvidence]
    schema: int = SCHEMA
    settings: dict[str, Any] = field(default_factory=dict)
    not_run: list[NotRun] = field(default_factory=list)
    seconds: float = 0.0
    complete: bool = True

    def of(self, places: Sequence[int]) -> "Evidence":
        """Return the evidence of some of the images, to be judged without running anything again.

        Everything known image by image follows: who is right without an attack, who was attacked, who was fooled. Counts and measurements
        beside (passes, gradients of 0, harness, diagnostics) stay those of the whole audit; of them only V1 to V4 decide anything.

        Example:
            >>> evidence = Evidence(eps=8 / 255, num_classes=10, labels=[1, 2, 3], clean=[True, False, True], protocols={})
            >>> evidence.of([2, 0]).labels
            [3, 1]
        """
        protocols = {}
        for name, protocol in self.protocols.items():
            # Where nobody looked, there is no list.
            attacks = [
                replace(one, fooled=[one.fooled[place] for place in places], seen=[one.seen[place] for place in places if one.seen])
                for one in protocol.attacks
            ]
            protocols[name] = replace(protocol, attacks=attacks)
        labels, clean = [self.labels[place] for place in places], [self.clean[place] for place in places]
        return replace(self, labels=labels, clean=clean, protocols=protocols)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; :meth:`from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> "Evidence":
        """Read plain values.

        Raises:
            InputError: If they are no evidence of this version.

        Example:
            >>> evidence = Evidence(eps=8 / 255, num_classes=10, labels=[1], clean=[True], protocols={})
            >>> Evidence.from_json(evidence.to_json()) == evidence
            True
        """
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise InputError(f"this is no audit of schema {SCHEMA}")
        try:
            return msgspec.convert(values, cls)
        except msgspec.ValidationError as error:
            raise InputError(f"this is no audit of schema {SCHEMA}: {error}") from error


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of ``audit.json``."""
    return msgspec.json.schema(Evidence)


def read_audit(path: Path) -> Evidence:
    """Return the evidence of an ``audit.json``.

    Raises:
        InputError: If the file is none.
    """
    try:
        # A network whose logits are not finite has gaps that are not either, which msgspec's decoder refuses.
        values = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} is no readable audit.json ({type(error).__name__})") from error
    try:
        return Evidence.from_json(values)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
