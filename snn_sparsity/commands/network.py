"""Settings become a network, its data and a trainer: LightningCLI with named configurations and named probes."""

import logging
import tempfile
import warnings
from argparse import Namespace as CommandLine
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import loguru
import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import register_type
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI

from snn_sparsity import attacks, data, encoders, gradient_rules, networks, objectives, training  # noqa: F401  # named by their last names
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.parsing import TrainingParser, checkpoint_settings, condense, parsed, with_full_name
from snn_sparsity.commands.refusals import REFUSED, in_one_line, require_devices, require_schedule
from snn_sparsity.configs import shipped
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.optimisation import Interval, MakeOptimizer, MakeScheduler
from snn_sparsity.probes.base import Probe
from snn_sparsity.training.checkpoint_files import read_checkpoint
from snn_sparsity.training.checkpoints import BestBy
from snn_sparsity.validation import InputError, require_number

# Averaging callbacks are given a device, and a run's config.yaml must hold it.
register_type(torch.device, fail_already_registered=False)

PAPER_SEED = 3407
LARGEST_SEED = 2**32 - 1
"""NumPy takes none beyond it."""
PARSER: dict[str, Any] = {"allow_abbrev": False, "default_config_files": [str(shipped.PAPER)]}
OPTIMISATION: Sequence[tuple[str, Any, str]] = (
    ("optimizer", MakeOptimizer | None, "Any optimiser of PyTorch by name, with its own numbers; null is Adam with those of --model."),
    ("lr_scheduler", MakeScheduler | None, "Any learning-rate schedule of PyTorch by name; null is none."),
    ("lr_scheduler_interval", Interval, "What the schedule counts: epochs or steps."),
)
"""What LightningCLI calls so; the model gets them."""


def network_of(given: CommandLine) -> "NetworkCLI":
    """Return model, datamodule and trainer as a command says that asks for a checkpoint: ``.model`` has its weights, on its device.

    Raises:
        InputError: For whatever is not allowed.
    """
    quieten()
    configs = [word for config in given.config for word in ("--config", config)]
    made = NetworkCLI([*configs, *given.more, *(["--help"] if given.help_all else [])], given.ckpt_path)
    made.model.load_state_dict(read_checkpoint(given.ckpt_path)["state_dict"])
    made.model.to(made.trainer.strategy.root_device).eval()
    return made


def quieten() -> None:
    """Leave out what Lightning and SpikingJelly say that helps nobody here."""
    loguru.logger.disable("spikingjelly")  # on a GPU: each kernel that was tried, and each that was not built
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "litlogger" not in record.getMessage() and "litmodels" not in record.getMessage()
    )
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    # It is where checkpoints go, by choice.
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    # Probes log the values of all processes, the same on each.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*to accumulate the metric across devices")


class NetworkCLI(LightningCLI):
    """Make a network, its data and a trainer of settings: the paper's, a checkpoint's, those of files, and those given.

    Args:
        args: What is given.
        checkpoint: Where to take settings from as well.
        options: Of LightningCLI.
    """

    command: str | None = None
    """Of a training, the command; any other is none to Lightning."""
    of_fit: Sequence[str] = ("checkpoints", "ckpt_path", "weights_only")
    """What a run's config.yaml has for training alone: taken, without use."""

    @in_one_line()
    def __init__(self, args: list[str], checkpoint: str | None = None, **options: Any) -> None:
        self.checkpoint = checkpoint
        defaults: dict[str, Any] = {
            "parser_kwargs": PARSER,
            # Attacks need gradients in validate and test as well.
            # Lightning's table of layers counts no FLOP of a spiking network, and takes metrics for layers: Summary says what there is.
            "trainer_defaults": {"max_epochs": 100, "inference_mode": False, "enable_model_summary": False},
            "save_config_callback": None,
            "run": False,
        }
        super().__init__(
            SpikingClassifier,
            SpikeDataModule,
            subclass_mode_data=True,
            parser_class=TrainingParser,
            seed_everything_default=PAPER_SEED,
            auto_configure_optimizers=False,
            args=args,
            **defaults | options,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the probes, fill in what follows from other settings, and let the help say what is refused here."""
        for action in parser._actions:
            if action.dest == "seed_everything":
                action.help = "The seed of everything random, a whole number from 0."
            elif action.dest.startswith("trainer.") and (refused := REFUSED.get(action.dest.removeprefix("trainer."))):
                action.help = f"{action.help} Not every value is allowed here: {refused[1]}."
        parser.add_argument(
            "--probes",
            type=dict[str, Probe | None] | None,
            default={},
            help="Probes by name; the name is the first part of what they log. null switches one off, or all.",
        )
        for name, kind, meaning in OPTIMISATION:
            parser.add_argument(f"--{name}", type=kind, default="epoch" if kind is Interval else None, help=meaning)
            parser.link_arguments(name, f"model.{name}")
        parser.add_argument(
            "--best",
            type=BestBy,
            default="accuracy",
            help="Of which epoch best.ckpt is: of the highest accuracy, or the lowest loss (as the paper's code does), in validation.",
        )
        for name in self.of_fit:
            parser.add_argument(f"--{name}", type=Any, default=None, help="Of training, in a run's config.yaml: without use here.")
        parser.link_arguments("data.num_classes", "model.network.init_args.num_classes", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_whole_seed)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse, with the settings that a checkpoint was made with as defaults; a configuration may name the checkpoint."""
        assert isinstance(args, list)
        if self.checkpoint is None:
            self.config = parsed(parser, args)
            self.checkpoint = self.config[self.command].get("ckpt_path") if self.command else None
            if self.checkpoint is None:
                return
        with tempfile.TemporaryDirectory() as folder:
            made_with = Path(folder) / "checkpoint.yaml"
            made_with.write_text(yaml.safe_dump(checkpoint_settings(self.checkpoint)))
            self._parser(self.command).default_config_files = [str(shipped.PAPER), str(made_with)]
            self.config = parsed(parser, args)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint's settings win over the command line's (its issue 21455)."""

    @property
    def given(self) -> Namespace:
        """The settings, of the command if there is one."""
        settings: Namespace = self.config[self.subcommand] if self.subcommand else self.config
        return settings

    def before_instantiate_classes(self) -> None:
        """Refuse numbers of the trainer that it would take."""
        require_schedule(self.given.trainer)
        require_devices(self.given.trainer)

    def instantiate_classes(self) -> None:
        """Make model, data and probes; what their constructors refuse is a mistake in what was given."""
        try:
            with in_one_line(TypeError):
                super().instantiate_classes()
        except ValueError as error:
            raise InputError(with_full_name(condense(str(error)), self.given.as_dict())) from error
        network = self.model.network
        if type(network).forward is torch.nn.Module.forward:
            raise InputError(f"--model.network: {type(network).__name__} has no method forward")
        if self.checkpoint is not None:
            self.model.on_load_checkpoint(read_checkpoint(self.checkpoint))


def _whole_seed(seed: bool | int) -> int:
    if isinstance(seed, bool):
        raise InputError(f"seed_everything={str(seed).lower()} is not allowed: give a whole number (Lightning takes true for seed 0)")
    require_number("seed_everything", seed, at_least=0, at_most=LARGEST_SEED, whole=True)
    return seed
