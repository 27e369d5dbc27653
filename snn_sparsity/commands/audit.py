"""``snn-sparsity audit``: is this robustness real?"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import ClassVar, Literal

from lightning import LightningModule, Trainer
from torch import nn

from snn_sparsity.attacks import Attack
from snn_sparsity.audit.collect.battery import BudgetName
from snn_sparsity.audit.collect.weights import load_weights, read_weights
from snn_sparsity.audit.evidence import read_audit
from snn_sparsity.audit.pages.documents import write_documents
from snn_sparsity.audit.run import AuditSettings, Spaces
from snn_sparsity.commands.one_line import OneLineParser
from snn_sparsity.commands.train import TrainingCLI, quieten
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.training.checkpoint_files import read_checkpoint
from snn_sparsity.training.robustness_audit import audit_run
from snn_sparsity.validation import InputError


def run(arguments: list[str]) -> int:
    """Run the command; ``arguments[0]`` is its name."""
    if "--compare" in arguments:
        return _compare(arguments[1:])
    quieten()
    AuditCLI([*arguments, "true"] if arguments[-1] == "--resume" else arguments)
    return 0


class AuditTrainer(Trainer):
    """A trainer that can audit."""

    def audit(
        self,
        model: LightningModule,
        datamodule: SpikeDataModule,
        ckpt_path: str | None = None,
        weights: Path | None = None,
        rename: list[str] | None = None,
        takes: Literal["spikes", "images"] = "spikes",
        budget: BudgetName = "quick",
        samples: int | None = None,
        space: Spaces = "image",
        eps: float = 8 / 255,
        claim: Attack | None = None,
        batch_size: int = 32,
        resume: bool = False,
        transfer_from: str | None = None,
        out: str | None = None,
    ) -> None:
        """Attack a trained network with a battery of attacks and say how far its robustness can be believed.

        Args:
            model: The classifier.
            datamodule: Its data.
            ckpt_path: Checkpoint of a run; its settings come along.
            weights: Weights of any network, given by --model.network: .pt, .safetensors or .npz.
            rename: OLD=NEW, a part of the names of those weights.
            takes: What a network with --weights takes: spikes of the datamodule's encoder, or images in [0,1].
            budget: How much: quick (minutes on two cores), standard (hours), full (a GPU).
            samples: Images, the first of the test set; null is 256, 256 or 1000, by the budget.
            space: What is attacked: image, spikes, both of them, paper (spikes, as published) or all three.
            eps: Radius of the ball; 8/255 is 0.03137.
            claim: The quoted attack, with its settings; null is the paper's PGD.
            batch_size: Images attacked at a time.
            resume: Go on with an audit that was stopped.
            transfer_from: Checkpoint of a second network of the same kind, to transfer attacks from.
            out: Folder for audit.json, audit.md and audit.html; null is audit/ beside the checkpoint.
        """
        if (ckpt_path is None) == (weights is None):
            raise InputError("audit needs --ckpt_path, the checkpoint to audit, or --weights of a network of your own")
        settings = AuditSettings(
            budget=budget, samples=samples, space=space, eps=eps, claim=claim, batch_size=batch_size, seed=datamodule.seed
        )
        source = ckpt_path or str(weights)
        folder = Path(out) if out else Path(source).parent / "audit"
        if ckpt_path is not None:
            model.load_state_dict(read_checkpoint(ckpt_path)["state_dict"])
        elif weights is not None:
            load_weights(_network(model), read_weights(weights), rename or [])
        datamodule.prepare_data()
        datamodule.setup("fit")
        model.to(self.strategy.root_device).eval()
        result = audit_run(
            model, datamodule, folder, settings, checkpoint=source, source=_second(model, transfer_from), resume=resume,
            progress=self.progress_bar_callback is not None, takes_images=takes == "images",
        )  # fmt: skip
        print(result)
        print(f"\nWritten: {folder / 'audit.json'}, audit.md, audit.html")


def _network(model: LightningModule) -> nn.Module:
    network = model.network
    if not isinstance(network, nn.Module):
        raise InputError("--weights needs --model.network")
    return network


def _second(model: LightningModule, path: str | None) -> LightningModule | None:
    """Return a copy of the model with the weights of another checkpoint."""
    if path is None:
        return None
    other = deepcopy(model)
    try:
        other.load_state_dict(read_checkpoint(path)["state_dict"])
    except RuntimeError as error:
        raise InputError(f"--transfer_from {path} holds the weights of another network") from error
    return other


class AuditCLI(TrainingCLI):
    """The command line of ``audit``: that of ``test``, for another method."""

    trainer_type = AuditTrainer
    methods: ClassVar[Mapping[str, set[str]]] = {"audit": {"model", "datamodule"}}


def _compare(arguments: list[str]) -> int:
    parser = OneLineParser(prog="snn-sparsity audit", description="Put finished audits side by side.")
    parser.add_argument("--compare", nargs="+", type=Path, required=True, metavar="AUDIT.JSON", help="audits to compare, at least two")
    parser.add_argument("--out", type=Path, default=Path("comparison"), metavar="DIR", help="folder for audit.md and audit.html")
    given = parser.parse_args(arguments)
    if len(given.compare) < 2:
        raise InputError("audit --compare needs at least two audit.json files")
    for path in write_documents(given.out, [read_audit(path) for path in given.compare]):
        print(path)
    return 0
