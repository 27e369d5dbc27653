"""``snn-sparsity audit``: is this robustness real?"""

import json
from argparse import Namespace
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser
from lightning import LightningModule

from snn_sparsity.attacks import Attack
from snn_sparsity.audit.collect.weights import load_weights, read_weights
from snn_sparsity.audit.evidence import read_audit
from snn_sparsity.audit.pages.documents import write_documents
from snn_sparsity.audit.run import AuditResult, AuditSettings
from snn_sparsity.commands.network import NetworkCLI, network_of, quieten
from snn_sparsity.commands.parsing import condense
from snn_sparsity.encoders import Encoder
from snn_sparsity.probes import AdversarialAccuracy
from snn_sparsity.runs.directory import CONFIG
from snn_sparsity.training.checkpoint_files import read_checkpoint
from snn_sparsity.training.robustness_audit import audit_run
from snn_sparsity.validation import InputError


def run(given: Namespace) -> int:
    """Attack a trained network in many ways and say how far its robustness can be believed, or compare such audits, or judge them anew."""
    if given.compare is not None:
        for path in write_documents(given.out or Path("comparison"), [read_audit(path) for path in given.compare]):
            print(path)
        return 0
    if given.judge is not None:
        for path, result in [(path, AuditResult(read_audit(path))) for path in given.judge]:
            print(f"{result.save(path.parent)}: {' '.join(answers.do for answers in result.answers.values())}")
        return 0
    given.more, about_claim = _split(given.more)
    claim = _claim(given.claim, about_claim, given.eps)
    settings = AuditSettings(
        budget=given.budget,
        samples=given.samples,
        space=given.space,
        eps=given.eps,
        flips=given.flips,
        batch_size=given.batch_size,
    )
    made = network_of(given) if given.weights is None else _foreign(given)
    source = str(given.ckpt_path or given.weights)
    folder = given.out or Path(source).parent / "audit"
    made.datamodule.prepare_data()
    made.datamodule.setup("test")
    encoder = made.datamodule.spike_encoder if given.takes == "spikes" else None
    settings = replace(settings, seed=made.datamodule.seed, claim=claim or _claim_of_run(given.ckpt_path, encoder))
    result = audit_run(
        made.model, made.datamodule, folder, settings, checkpoint=source,
        source=_second(made.model, given.transfer_from), resume=given.resume, progress=made.trainer.progress_bar_callback is not None,
        takes_images=given.takes == "images",
    )  # fmt: skip
    print(result)
    print(f"\nWritten: {folder / 'audit.json'}, audit.md, audit.html")
    return 0


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """Return the words that set the network, and those that set the quoted attack."""
    others: list[str] = []
    claim: list[str] = []
    place = others
    for word in words:
        if word.startswith("--"):
            place = claim if word.startswith("--claim.") else others
        place.append(word)
    return others, claim


def _claim(name: str | None, settings: list[str], eps: float) -> Attack | None:
    """Return the quoted attack; its eps is the audit's unless it says another."""
    if name is None:
        if settings:
            raise InputError(f"{settings[0]} needs --claim, the quoted attack")
        return None
    own = [] if any(word.startswith("--claim.eps") for word in settings) else [f"--claim.eps={float(eps)}"]
    return _attack([f"--claim={name}", *own, *settings], f"--claim {name}")


def _claim_of_run(ckpt_path: str | None, encoder: Encoder | None) -> Attack | None:
    """Return the attack of the ``pgd`` probe of a checkpoint's run, as it is made on the code; None if there is no such run or probe."""
    if ckpt_path is None or not (path := Path(ckpt_path).parent / CONFIG).is_file():
        return None
    try:
        probe = yaml.safe_load(path.read_text(encoding="utf-8"))["probes"]["pgd"]["init_args"]
        attack = _attack([f"--claim={json.dumps(probe['attack'])}"], f"probes.pgd.attack of {path}")
        made = {name: probe[name] for name in ("space", "draws") if name in probe}
    except (KeyError, TypeError):
        return None
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no readable configuration ({type(error).__name__}): give --claim") from error
    return AdversarialAccuracy(attack=attack, **made).attack_on(encoder)


def _attack(words: list[str], what: str) -> Attack:
    """Return the attack that ``--claim`` and its settings describe."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--claim", type=Attack)
    try:
        attack = parser.instantiate_classes(parser.parse_args(words)).claim
    except InputError:
        raise
    except Exception as error:  # jsonargparse raises what the class raises
        raise InputError(f"{what}: {condense(str(error)).removeprefix('--claim: ')[:300]}") from error
    if not isinstance(attack, Attack):
        raise InputError(f"{what} is no attack")
    return attack


def _foreign(given: Namespace) -> NetworkCLI:
    """Return a network of one's own with its weights from a file."""
    if given.ckpt_path is not None:
        raise InputError("give --ckpt_path, the checkpoint of a run, or --weights of a network of your own, not both")
    quieten()
    weights = read_weights(Path(given.weights))
    configs = [word for config in given.config for word in ("--config", config)]
    made = NetworkCLI([*configs, *given.more, *(["--help"] if given.help_all else [])])
    load_weights(made.model.network, weights, given.rename or [])
    made.model.to(made.trainer.strategy.root_device).eval()
    return made


def _second(model: LightningModule, path: str | None) -> LightningModule | None:
    """Return a copy of the model with the weights of another checkpoint."""
    if path is None:
        return None
    other = deepcopy(model)
    try:
        other.load_state_dict(read_checkpoint(path, "--transfer_from")["state_dict"])
    except RuntimeError as error:
        raise InputError(f"--transfer_from {path} holds the weights of another network") from error
    return other
