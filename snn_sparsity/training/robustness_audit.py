"""The audit as a callback of ``test``, and what the ``audit`` command runs."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn

from snn_sparsity.audit.collect.adapter import Adapted, classes_of
from snn_sparsity.audit.collect.harness import fingerprint
from snn_sparsity.audit.collect.journal import Journal
from snn_sparsity.audit.collect.subject import Subject
from snn_sparsity.audit.run import JOURNAL, AuditResult, AuditSettings, conduct, settings_of
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.encoders import DirectEncoder
from snn_sparsity.probes import AdversarialAccuracy
from snn_sparsity.probes.undisturbed import undisturbed
from snn_sparsity.runs.files import only_writer
from snn_sparsity.training.run_record import environment
from snn_sparsity.validation import InputError


@dataclass(kw_only=True, eq=False)
class RobustnessAudit(Callback):
    """Attack the first images of the test set with a battery of attacks and say how far the accuracy can be believed.

    Writes ``audit.json`` (all evidence), ``audit.md`` and ``audit.html`` into ``audit`` in the run directory; see docs/audit.md.
    Every result is kept as soon as it is there: with ``resume`` a stopped audit goes on, to the same numbers.

    The number it judges is, unless ``settings.claim`` says another, that of the ``pgd`` probe of the same trainer.

    Args:
        settings: What it does.
        resume: Whether to go on with an audit that was stopped.
        progress: Whether to show a bar.
    """

    settings: AuditSettings = field(default_factory=AuditSettings)
    resume: bool = False
    progress: bool = True

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Audit the network that was just tested, on the first process."""
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(data, SpikeDataModule):
            raise InputError("RobustnessAudit needs a datamodule with an encoder (SpikeDataModule)")
        if trainer.is_global_zero:
            probes = (one for one in getattr(trainer, "callbacks", []) if isinstance(one, AdversarialAccuracy) and one.name == "pgd")
            quoted = next((probe.attack_on(data.spike_encoder) for probe in probes), None)
            settings = replace(self.settings, claim=self.settings.claim or quoted)
            print(
                audit_run(pl_module, data, Path(trainer.default_root_dir) / "audit", settings, resume=self.resume, progress=self.progress)
            )
        trainer.strategy.barrier()


def audit_run(
    classifier: LightningModule, data: SpikeDataModule, folder: Path, settings: AuditSettings, *,
    checkpoint: str = "", source: nn.Module | None = None, resume: bool = False, progress: bool = True, takes_images: bool = False,
) -> AuditResult:  # fmt: skip
    """Audit a classifier and write the files.

    Args:
        classifier: The trained network, on the device to use.
        data: Its data, set up for ``test``.
        folder: Where the files go.
        settings: How.
        checkpoint: Where the weights are from, for the record.
        source: A second classifier, to transfer attacks from.
        resume: Whether to go on with an audit that was stopped.
        progress: Whether to show a bar.
        takes_images: Whether the network takes images [N,C,H,W] rather than spikes.

    Raises:
        InputError: If an unfinished audit is in the way, or of something else, or the network does not fit the data.
    """
    test, train = data.split("test"), data.split("train")
    images, labels = test.select(torch.arange(len(test.labels))[: settings.images])
    encoder = (DirectEncoder(num_steps=1) if takes_images else data.spike_encoder).to(classifier.device)
    with undisturbed(classifier):
        audited, num_classes = _audited(classifier, encoder(images[:1].to(classifier.device), torch.Generator()), labels, takes_images)
    subject = Subject(audited, encoder, images, labels, num_classes, settings.batch_size, settings.seed)
    network = _network(classifier)
    arguments = [f"{name}={getattr(network, name)}" for name in ("depth", "pool", "connect", "stem") if hasattr(network, name)]
    described = {
        "class_names": data.class_names,
        "split": "test",
        "network": f"{type(network).__name__}({', '.join(arguments)})",
        "data": {"name": type(data).__name__, "test_sha256": test.checksum()},
        "transfer_from": None if source is None else fingerprint(source),
    }
    path = folder / JOURNAL
    with only_writer(folder):
        if path.exists() and not resume:
            raise InputError(f"{path} is of an audit that was stopped: give --resume true to go on with it, or remove it to begin anew")
        journal = Journal(path, settings_of(subject, settings) | described)
        with undisturbed(classifier):
            result = conduct(
                subject, settings, journal, described={"checkpoint": checkpoint} | described, training=(train.images, train.labels),
                made_with=lambda: environment(classifier.device), source=source, progress=progress,
            )  # fmt: skip
        result.save(folder)
        journal.remove()
    return result


def _audited(classifier: LightningModule, spikes: Tensor, labels: Tensor, takes_images: bool) -> tuple[nn.Module, int]:
    """Return the classifier as the audit takes it, and how many classes it knows: a network of one's own may return [N,K], or a tuple."""
    if not takes_images:
        try:
            return classifier, classes_of(classifier, spikes, labels)
        except InputError:
            pass
    adapted = Adapted(_network(classifier), timed=not takes_images)
    return adapted, classes_of(adapted, spikes, labels)


def _network(classifier: LightningModule) -> nn.Module:
    network = getattr(classifier, "network", classifier)
    return network if isinstance(network, nn.Module) else classifier
