"""An audit from its settings to its result: one way for the command, the callback and Python."""

import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from snn_sparsity.attacks.base import Attack
from snn_sparsity.attacks.lattice import lattice_radius, on_lattice, whole_levels
from snn_sparsity.audit.collect.adapter import Adapted, classes_of, images_and_labels
from snn_sparsity.audit.collect.battery import BUDGETS, BudgetName, quoted
from snn_sparsity.audit.collect.conduct import Audit
from snn_sparsity.audit.collect.foresight import Foresight
from snn_sparsity.audit.collect.harness import fingerprint, settings_fingerprint
from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.audit.collect.ledger import Tell
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.evidence import Evidence
from snn_sparsity.audit.judge.answers import Answers, judge
from snn_sparsity.encoders.base import Encoder
from snn_sparsity.encoders.direct import DirectEncoder
from snn_sparsity.networks.modes import device_of
from snn_sparsity.runs.files import write_whole
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError, require_choice, require_number

Spaces = Literal["image", "steps", "spikes", "flips", "both", "paper", "all"]
SPACES: dict[Spaces, list[str]] = {
    "image": ["image"],
    "steps": ["steps"],
    "spikes": ["spikes"],
    "flips": ["flips"],
    "both": ["image", "spikes"],
    "paper": ["paper"],
    "all": ["image", "steps", "spikes", "flips", "paper"],
}
JOURNAL = "audit.unfinished.json"


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """What an audit does, whoever asks for it.

    Args:
        budget: ``quick`` (minutes on two cores), ``standard`` (hours) or ``full`` (a GPU).
        samples: Images, the first of the set; null is 256, 256 or 1000, by the budget.
        space: What is attacked: ``image`` (pixels), ``spikes`` (by real numbers), ``both`` of them, ``steps`` (pixels, each time step by
            itself), ``flips`` (spikes that stay spikes), ``paper`` (spikes, as published), or ``all`` five.
        flips: Most spikes of an image that ``flips`` may flip; null is 0.25 % of the code's entries.
        eps: Radius of the ball; a whole number of grey levels.
        claim: The quoted attack, in a ball of its own eps; null is that of the run's own ``pgd`` probe, without one the paper's PGD.
        batch_size: Images attacked at a time.
        seed: Of all random numbers.

    Raises:
        InputError: For a value not allowed.
    """

    budget: BudgetName = "quick"
    samples: int | None = None
    space: Spaces = "image"
    eps: Levels | float = Levels(8 / 255)
    claim: Attack | None = None
    flips: int | None = None
    batch_size: int = 32
    seed: int = 3407

    def __post_init__(self) -> None:
        require_choice("budget", self.budget, BUDGETS)
        require_choice("space", self.space, SPACES)
        require_number("eps", self.eps, above=0, at_most=1)
        object.__setattr__(self, "eps", lattice_radius(self.eps))
        require_number("batch_size", self.batch_size, at_least=1, whole=True)
        require_number("seed", self.seed, at_least=0, whole=True)
        if self.flips is not None:
            require_number("flips", self.flips, at_least=1, whole=True)
        if self.samples is not None:
            require_number("samples", self.samples, at_least=1, whole=True)
        if not isinstance(self.claim, Attack | None):
            raise InputError(f"claim={self.claim!r} is no attack: give one such as PGD(steps=20)")
        if self.claim is not None:
            require_number("claim.eps", self.claim.eps, above=0, at_most=1)
            object.__setattr__(self, "claim", on_lattice(self.claim))

    @property
    def images(self) -> int:
        """How many images are attacked."""
        return self.samples or BUDGETS[self.budget].samples


@dataclass(frozen=True)
class AuditResult:
    """What an audit has seen, and what to take away from it; ``print`` shows it.

    Attributes:
        evidence: Everything that was seen.
    """

    evidence: Evidence

    @property
    def answers(self) -> dict[str, Answers]:
        """The two answers of each protocol."""
        return judge(self.evidence)

    def to_json(self) -> dict[str, Any]:
        """Return what ``audit.json`` holds: the evidence, and the answers for whoever reads it without this program."""
        return self.evidence.to_json() | {"answers": {name: answers.to_json() for name, answers in self.answers.items()}}

    def save(self, folder: str | Path) -> Path:
        """Write ``audit.json``, ``audit.md`` and ``audit.html``, each whole or not at all, and return the folder."""
        from snn_sparsity.audit.pages.documents import write_documents

        folder = Path(folder)
        write_documents(folder, [self.evidence])
        # Lists of numbers and answers, such as one for each image, on a line each.
        readable = re.sub(r"\[[^\[\]{}\"]+\]", lambda found: " ".join(found[0].split()), json.dumps(self.to_json(), indent=1))
        write_whole(folder / "audit.json", readable + "\n")
        return folder

    def __str__(self) -> str:
        from snn_sparsity.audit.pages.documents import audit_table

        return audit_table(self.evidence)


def audit(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float = 8 / 255,
    budget: BudgetName = "quick",
    claim: Attack | None = None,
    encoder: Encoder | None = None,
    space: Spaces = "image",
    flips: int | None = None,
    training: tuple[Tensor, Tensor] | None = None,
    batch_size: int = 32,
    seed: int = 3407,
    progress: bool = False,
) -> AuditResult:
    """Attack a network of any library and say how far its accuracy under attack can be believed.

    Args:
        model: From images [N,C,H,W] in [0,1] to logits [N,K]; with an ``encoder``, from spikes [T,N,C,H,W] to [T,N,K] or [N,K]. Neurons of
            SpikingJelly and snnTorch are reset before each pass. It is left as it was.
        images: [n,C,H,W], uint8 or float in [0,1], which is put on the 8-bit lattice.
        labels: [n], whole numbers from 0.
        eps: Radius of the ball; a whole number of grey levels.
        budget: ``quick``, ``standard`` or ``full``; all the images are attacked.
        claim: The quoted attack, in a ball of its own eps; None is PGD with 7 steps of 0.01.
        encoder: The spike code in front of the model; None where it takes images.
        space: What is attacked; see :class:`AuditSettings`.
        flips: Most spikes of an image that the space ``flips`` may flip; None is 0.25 % of the code's entries.
        training: Images and labels to train the positive control on; None leaves it out.
        batch_size: Images attacked at a time.
        seed: Of all random numbers.
        progress: Whether to show a bar.

    Returns:
        The result; ``print(result)`` shows it and ``result.save(folder)`` writes it.

    Raises:
        InputError: For images, labels or settings that do not fit.
    """
    if not isinstance(model, nn.Module):
        raise InputError(f"the model is a {type(model).__name__}: an audit needs a torch.nn.Module")
    if not isinstance(encoder, Encoder | None):
        raise InputError(f"encoder={encoder!r} is no spike code: give one of snn_sparsity.encoders, or none")
    images, labels = images_and_labels(images, labels)
    if isinstance(model, torch.jit.RecursiveScriptModule):  # type: ignore[attr-defined]  # it is told to nobody
        raise InputError("a scripted network takes no hooks, which the audit needs: give the module that it was made from")
    learning = None if training is None else images_and_labels(*training)
    settings = AuditSettings(
        budget=budget, samples=len(labels), space=space, eps=eps, claim=claim, flips=flips, batch_size=batch_size, seed=seed
    )
    adapted = Adapted(model, timed=encoder is not None)
    modes = [(module, module.training) for module in adapted.modules()]
    code = encoder or DirectEncoder(num_steps=1)
    try:
        adapted.eval()
        device = device_of(model)
        spikes = code(images[:1].to(device), torch.Generator().manual_seed(seed))
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            num_classes = classes_of(adapted, spikes, labels if learning is None else torch.cat([labels, learning[1]]))
        subject = Subject(adapted, code.to(device), images, labels, num_classes, batch_size, seed)
        return conduct(subject, settings, Journal(None, {}), training=learning, progress=progress)
    finally:
        for module, was in modes:
            module.training = was


def conduct(
    subject: Subject,
    settings: AuditSettings,
    journal: Journal,
    *,
    described: dict[str, Any] | None = None,
    made_with: Callable[[], dict[str, Any]] | None = None,
    training: tuple[Tensor, Tensor] | None = None,
    source: nn.Module | None = None,
    progress: bool = False,
) -> AuditResult:
    """Audit a subject.

    Args:
        subject: What is audited.
        settings: How.
        journal: Where results are kept: stopped anywhere, the same call goes on to the same bytes.
        described: More settings for the record.
        made_with: Says with what it was made.
        training: Images and labels for the positive control.
        source: A second classifier, to transfer attacks from.
        progress: Whether to show a bar; a budget beyond ``quick`` says how long it takes before it starts.
    """
    began = time.perf_counter()
    environment = journal.once("made with", made_with or dict)
    with _Progress(progress) as tell:
        evidence = Audit(
            subject, SPACES[settings.space], BUDGETS[settings.budget], settings.eps, journal, training, source, settings.claim,
            settings.flips, tell, None if settings.budget == "quick" else partial(_say, settings.budget),
        ).run()  # fmt: skip
    seconds = journal.once("seconds", lambda: round(time.perf_counter() - began, 1))
    record = settings_of(subject, settings) | (described or {}) | environment
    # As it is read back: whole numbers where real ones belong would be written otherwise the next time.
    return AuditResult(Evidence.from_json(json.loads(json.dumps(replace(evidence, settings=record, seconds=seconds).to_json()))))


def settings_of(subject: Subject, settings: AuditSettings) -> dict[str, Any]:
    """Return what identifies an audit's numbers."""
    return {
        "budget": settings.budget,
        "samples": len(subject.labels),
        "space": settings.space,
        "eps_levels": whole_levels(settings.eps),
        "claim": repr(settings.claim or quoted(settings.eps)),
        "flips": settings.flips,
        "seed": settings.seed,
        "batch_size": settings.batch_size,
        "encoder": f"{type(subject.encoder).__name__}, T={subject.encoder.num_steps}",
        "weights_sha256": fingerprint(subject.classifier),
        "settings_sha256": settings_fingerprint(nn.ModuleList([subject.classifier, subject.encoder])),
    }


def _say(budget: str, foresight: Foresight) -> None:
    print(f"--budget {budget}: {foresight}", file=sys.stderr)


class _Progress(AbstractContextManager[Tell]):
    """A bar over forward passes of images, with time left and what runs now."""

    def __init__(self, shown: bool) -> None:
        self.shown = shown

    def __enter__(self) -> Tell:
        self.bar: tqdm[Any] = tqdm(disable=not self.shown, unit="passes", bar_format="{percentage:3.0f} % [{elapsed} < {remaining}] {desc}")
        return self.tell

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def tell(self, name: str, done: float, total: float) -> None:
        """Show what runs, and how much is done of how much."""
        self.bar.total = max(total, done)
        self.bar.update(done - self.bar.n)
        self.bar.set_description_str(name)
