"""``snn-sparsity audit``: is this robustness real?"""

from argparse import Namespace
from copy import deepcopy
from pathlib import Path

from lightning import LightningModule

from snn_sparsity.commands.train import network_of
from snn_sparsity.report.audit import audit_table
from snn_sparsity.training.checkpoint_files import read_checkpoint
from snn_sparsity.training.robustness_audit import RobustnessAudit, compare
from snn_sparsity.validation import InputError


def run(given: Namespace) -> int:
    """Attack a trained network with a battery of attacks and say how far its robustness can be believed, or compare such audits."""
    if given.compare is not None:
        return _compare(given)
    made = network_of(given)
    battery = RobustnessAudit(
        budget=given.budget, samples=given.samples, space=given.space, eps=given.eps, batch_size=given.batch_size, resume=given.resume,
        progress=made.trainer.progress_bar_callback is not None,
    )  # fmt: skip
    folder = Path(given.out) if given.out else Path(given.ckpt_path).parent / "audit"
    made.datamodule.prepare_data()
    made.datamodule.setup("fit")
    audit = battery.conduct(made.model, made.datamodule, folder, given.ckpt_path, _second(made.model, given.transfer_from))
    print(audit_table(audit))
    print(f"\nWritten: {folder / 'audit.json'}, audit.md, audit.html")
    return 0


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


def _compare(given: Namespace) -> int:
    if len(given.compare) < 2:
        raise InputError("audit --compare needs at least two audit.json files")
    for path in compare(given.compare, Path(given.out or "comparison")):
        print(path)
    return 0
