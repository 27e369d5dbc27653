"""The audit as a callback of ``test``, and what the ``audit`` command runs."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Callback, LightningModule, Trainer
from torch import nn
from tqdm import tqdm

from snn_sparsity.attacks.base import whole_levels
from snn_sparsity.audit.battery import BUDGETS, BudgetName
from snn_sparsity.audit.conduct import Audit, Tell
from snn_sparsity.audit.harness import fingerprint
from snn_sparsity.audit.journal import Journal
from snn_sparsity.audit.subject import Subject
from snn_sparsity.audit.verdict import verdict
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.probes.base import undisturbed
from snn_sparsity.report.audit import audit_html, audit_markdown, audit_table
from snn_sparsity.runs.files import write_whole
from snn_sparsity.training.run_record import environment
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError, require_choice, require_number

Spaces = Literal["image", "spikes", "both"]
PROTOCOLS: dict[Spaces, list[str]] = {"image": ["image"], "spikes": ["spikes", "paper"], "both": ["image", "spikes", "paper"]}
JOURNAL = "audit.unfinished.json"
SCHEMA = 1


@dataclass(kw_only=True, eq=False)
class RobustnessAudit(Callback):
    """Attack the first images of the test set with a battery of attacks and say how far the accuracy can be believed.

    Writes ``audit.json`` (all evidence), ``audit.md`` and ``audit.html`` into ``audit`` in the run directory; see docs/audit.md.
    Every result is kept as soon as it is there: with ``resume`` a stopped audit goes on, to the same numbers.

    Args:
        budget: ``quick``, ``standard`` or ``full``: steps, restarts, rules and queries.
        samples: Images, the first of the test set; null is 48, 256 or 1000, by the budget.
        space: What is attacked: ``image`` (pixels), ``spikes`` (also with the paper's BatchNorm) or ``both``.
        eps: Radius of the ball; a whole number of grey levels.
        batch_size: Images attacked at a time.
        resume: Whether to go on with an audit that was stopped.
        progress: Whether to show a bar.

    Raises:
        InputError: For a value not allowed.
    """

    budget: BudgetName = "quick"
    samples: int | None = None
    space: Spaces = "both"
    eps: Levels | float = Levels(8 / 255)
    batch_size: int = 32
    resume: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        require_choice("budget", self.budget, BUDGETS)
        require_choice("space", self.space, PROTOCOLS)
        require_number("eps", self.eps, above=0, at_most=1)
        whole_levels(self.eps)
        require_number("batch_size", self.batch_size, at_least=1, whole=True)
        if self.samples is not None:
            require_number("samples", self.samples, at_least=1, whole=True)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Audit the network that was just tested, on the first process."""
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(data, SpikeDataModule):
            raise InputError("RobustnessAudit needs a datamodule with an encoder (SpikeDataModule)")
        if trainer.is_global_zero:
            print(audit_table(self.conduct(pl_module, data, Path(trainer.default_root_dir) / "audit")))
        trainer.strategy.barrier()

    def conduct(
        self, classifier: LightningModule, data: SpikeDataModule, folder: Path, checkpoint: str = "", source: nn.Module | None = None
    ) -> dict[str, Any]:
        """Audit a classifier and write the files.

        Args:
            classifier: The trained network, on the device to use.
            data: Its data, set up for ``test``.
            folder: Where the files go.
            checkpoint: Where the weights are from, for the record.
            source: A second classifier, to transfer attacks from.

        Returns:
            What ``audit.json`` holds.

        Raises:
            InputError: If an unfinished audit is in the way, or of something else.
        """
        began = time.perf_counter()
        budget = BUDGETS[self.budget]
        images, labels = data.split("test").select(torch.arange(len(data.split("test").labels))[: self.samples or budget.samples])
        subject = Subject(
            classifier, data.spike_encoder.to(classifier.device), images, labels, data.num_classes, self.batch_size, data.seed
        )
        settings = {**self._settings(subject, data, checkpoint), "transfer_from": None if source is None else fingerprint(source)}
        journal = self._journal(folder, settings)
        made_with = journal.once("made with", lambda: environment(classifier.device))
        train = data.split("train")
        with undisturbed(classifier), _Progress(self.progress) as tell:
            evidence = Audit(
                subject, PROTOCOLS[self.space], budget, self.eps, journal, (train.images, train.labels), source, tell
            ).run()  # fmt: skip
        seconds = journal.once("seconds", lambda: round(time.perf_counter() - began, 1))
        audit = {"schema": SCHEMA, "settings": settings | made_with, **evidence, "seconds": seconds, "complete": True}
        audit["verdicts"] = verdict(audit)
        _write(folder, [audit])
        write_whole(folder / "audit.json", json.dumps(audit, indent=1) + "\n")
        journal.remove()
        return audit

    def _settings(self, subject: Subject, data: SpikeDataModule, checkpoint: str) -> dict[str, Any]:
        network = getattr(subject.classifier, "network", subject.classifier)
        return {
            "checkpoint": checkpoint,
            "weights_sha256": fingerprint(subject.classifier),
            "budget": self.budget,
            "samples": len(subject.labels),
            "space": self.space,
            "seed": subject.seed,
            "eps": self.eps,
            "eps_levels": whole_levels(self.eps),
            "batch_size": self.batch_size,
            "num_classes": subject.num_classes,
            "class_names": data.class_names,
            "split": "test",
            "encoder": f"{type(subject.encoder).__name__}, T={subject.encoder.num_steps}",
            "network": _describe(network),
            "data": {"name": type(data).__name__, "test_sha256": data.split("test").checksum()},
        }

    def _journal(self, folder: Path, settings: dict[str, Any]) -> Journal:
        path = folder / JOURNAL
        if path.exists() and not self.resume:
            raise InputError(f"{path} is of an audit that was stopped: give --resume true to go on with it, or remove it to begin anew")
        return Journal(path, {name: value for name, value in settings.items() if name != "checkpoint"})


def compare(paths: Sequence[Path], folder: Path) -> list[Path]:
    """Put finished audits side by side in ``audit.md`` and ``audit.html``.

    Raises:
        InputError: For a file that is no audit, or a folder that cannot be written to.
    """
    audits = [read_audit(path) for path in paths]
    return _write(folder, audits)


def read_audit(path: Path) -> dict[str, Any]:
    """Return a finished audit.

    Raises:
        InputError: If the file is none.
    """
    try:
        audit = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is no readable audit.json ({type(error).__name__})") from error
    if not isinstance(audit, dict) or audit.get("schema") != SCHEMA or "verdicts" not in audit:
        raise InputError(f"{path} is no audit of schema {SCHEMA}")
    return audit


def _write(folder: Path, audits: list[dict[str, Any]]) -> list[Path]:
    documents: list[tuple[str, Callable[[list[dict[str, Any]]], str]]] = [("audit.md", audit_markdown), ("audit.html", audit_html)]
    for name, write in documents:
        write_whole(folder / name, write(audits))
    return [folder / name for name, _ in documents]


def _describe(network: nn.Module) -> str:
    settings = [f"{name}={getattr(network, name)}" for name in ("depth", "pool", "connect", "stem") if hasattr(network, name)]
    return f"{type(network).__name__}({', '.join(settings)})"


class _Progress:
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
