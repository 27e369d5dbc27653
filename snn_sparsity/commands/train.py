"""``snn-sparsity fit | validate | test | predict``: LightningCLI with named configurations, named probes and run directories."""

import logging
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, NoReturn

import torch
import yaml
from jsonargparse import ActionConfigFile, Namespace
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

# Imported classes can be named by their last name alone: --data DigitsDataModule.
from snn_sparsity import attacks, callbacks, data, encoders, gradient_rules, networks, shipped  # noqa: F401
from snn_sparsity.callbacks.probe import Probe
from snn_sparsity.callbacks.run_record import RunRecord
from snn_sparsity.callbacks.summary import Summary
from snn_sparsity.callbacks.tensorboard_layout import TensorBoardLayout
from snn_sparsity.checks import InputError
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.data import SpikeDataModule
from snn_sparsity.metrics_csv import MetricsCSV, forget_from
from snn_sparsity.runs import going_on, run_directory
from snn_sparsity.sync_batchnorm import MultiStepSyncBatchNorm

PAPER_SEED = 3407


def run(arguments: list[str]) -> int:
    """Run the command; ``arguments[0]`` is its name."""
    quieten()
    try:
        TrainingCLI(arguments)
    except MisconfigurationException as error:
        raise InputError(str(error)) from error
    return 0


def quieten() -> None:
    """Leave out what Lightning says that helps nobody here."""
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(_no_advertisement)
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
    # Probes log the values of all processes, the same on each.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*to accumulate the metric across devices")


class NamedConfig(ActionConfigFile):
    """``--config`` by path, shipped name or stem."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Resolve the name, then load."""
        path = shipped.resolve(str(values))
        try:
            super().__call__(parser, cfg, path, option_string)
        except InputError as error:
            raise InputError(f"--config {path}: {error}") from error


class OneLineParser(LightningArgumentParser):
    """A parser whose errors are one line that names the option, the value and what is allowed."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as an InputError."""
        raise InputError(condense(message)) from ex


def condense(message: str) -> str:
    """Return jsonargparse's nested report as one line: the path of keys down to the first reason.

    Example:
        >>> condense('''Parser key "model.network":
        ...   Problem with given class_path 'm.SEW':
        ...     Parser key "pool":
        ...       Expected a typing.Literal['max', 'avg']. Got value: median''')
        "--model.network.pool: Expected one of 'max', 'avg'. Got value: median"
    """
    keys: list[str] = []
    reason = ""
    skipped = ("Does not validate", "Subtypes:", "Errors:", "Problem with given class_path", "Given value", "tip:")
    for raw in message.splitlines():
        line = raw.strip().removeprefix("- ").strip()
        # Nested parsers report through this function too: their keys come as options.
        while key := re.match(r'(?:Parser key "([^"]+)":?|--([\w.]+):)\s*(.*)', line):
            keys.append(key[1] or key[2])
            line = key[3]
        if line and not line.startswith(skipped):
            reason = line
            break
    reason = reason or " ".join(message.split())
    # A link's own complaint, without how it came to be made.
    reason = re.sub(r"^Call to compute_fn of link .* failed: ", "", reason)
    reason = re.sub(r"Expected a typing\.Literal\[(.*?)\]", r"Expected one of \1", reason)
    reason = re.sub(r"<class '([\w.]+)'>", r"\1", reason)
    return f"--{'.'.join(keys)}: {reason}" if keys else reason


class SaveConfig(SaveConfigCallback):
    """Save the resolved configuration as ``config.yaml`` in the run directory."""


class TrainingCLI(LightningCLI):
    """Train, validate, test or predict with what the command line and configurations say."""

    trainer_type: type[Trainer] = Trainer
    leaves_a_run = frozenset({"fit", "validate", "test"})
    """Commands with a run directory, loggers and callbacks of their own."""

    def __init__(self, args: list[str]) -> None:
        self.going_on = going_on(args)
        commands = self.subcommands()
        shared = {"default_env": True, "env_prefix": "SNN_SPARSITY", "allow_abbrev": False}
        super().__init__(
            SpikingClassifier,
            SpikeDataModule,
            trainer_class=self.trainer_type,
            subclass_mode_data=True,
            parser_class=OneLineParser,
            parser_kwargs={**shared, **{name: {**shared, "default_config_files": [str(shipped.PAPER)]} for name in commands}},
            seed_everything_default=PAPER_SEED,
            # Attacks need gradients in validate and test as well.
            trainer_defaults={"max_epochs": 100, "inference_mode": False},
            save_config_callback=SaveConfig,
            auto_configure_optimizers=False,
            args=args,
        )

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """Return a parser that knows the shipped configurations."""
        parser = super().init_parser(**kwargs)
        for action in parser._actions:
            if isinstance(action, ActionConfigFile):
                action.__class__ = NamedConfig
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the probes, and fill in what follows from other settings."""
        parser.add_argument(
            "--probes",
            type=dict[str, Probe | None] | None,
            default={},
            help="Probes by name; the name is the first part of what they log. null switches one off, or all.",
        )
        parser.link_arguments("data.num_classes", "model.network.init_args.num_classes", apply_on="instantiate")
        parser.link_arguments("seed_everything", "data.init_args.seed", compute_fn=_whole_seed)

    def parse_arguments(self, parser: LightningArgumentParser, args: ArgsType) -> None:
        """Parse; with a checkpoint, once more with the settings it was made with as defaults."""
        assert isinstance(args, list)
        self.config = parser.parse_args(args)
        command = self.config.subcommand
        checkpoint = self.config[command].get("ckpt_path")
        if checkpoint is None:
            return
        with tempfile.TemporaryDirectory() as folder:
            made_with = Path(folder) / "checkpoint.yaml"
            made_with.write_text(yaml.safe_dump(_settings_of(checkpoint)))
            self._subcommand_parsers[command].default_config_files = [str(shipped.PAPER), str(made_with)]
            self.config = parser.parse_args(args)

    def _parse_ckpt_path(self) -> None:
        """Do nothing: Lightning would let the checkpoint's settings win over the command line's (its issue 21455)."""

    def before_instantiate_classes(self) -> None:
        """Choose the run directory."""
        config = self.config[self.subcommand]
        self.run_directory = self.going_on or run_directory(
            str(self.subcommand), config.trainer.default_root_dir or "runs", [str(path) for path in config.config or []],
            config.seed_everything, config.get("ckpt_path"),
        )  # fmt: skip
        if self.subcommand not in self.leaves_a_run or self.going_on:
            self.save_config_callback = None
        self.save_config_kwargs = {"overwrite": True}

    def instantiate_classes(self) -> None:
        """Make model, data and probes; what their constructors refuse is a mistake in what was given."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise InputError(condense(str(error))) from error
        checkpoint = self.config[self.subcommand].get("ckpt_path")
        if checkpoint is not None:
            self.model.on_load_checkpoint(read_checkpoint(checkpoint))

    def before_fit(self) -> None:
        """Where a run goes on, take out of its metrics what it logged after the checkpoint."""
        if self.going_on:
            forget_from(self.going_on / "metrics.csv", read_checkpoint(self.config.fit.ckpt_path)["global_step"])

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with the probes before all other callbacks so that these see their values."""
        given = self._get(self.config_init, "trainer")
        probes = self._get(self.config_init, "probes") or {}
        for name, probe in probes.items():
            if probe is not None:
                probe.name = name
        own = given.get("callbacks") or []
        own = own if isinstance(own, list) else [own]
        kwargs["callbacks"] = [*filter(None, probes.values()), *own, *self._own_callbacks(given)]
        if given.get("logger") in (None, True):
            kwargs["logger"] = self._loggers()
        kwargs["default_root_dir"] = str(self.run_directory)
        if given.get("sync_batchnorm"):
            plugins = given.get("plugins") or []
            plugins = plugins if isinstance(plugins, list) else [plugins]
            kwargs |= {"sync_batchnorm": False, "plugins": [*plugins, MultiStepSyncBatchNorm()]}
        return super().instantiate_trainer(**kwargs)

    def _own_callbacks(self, trainer: Namespace) -> list[Callback]:
        if self.subcommand not in self.leaves_a_run or trainer.get("fast_dev_run"):
            return []
        directory = str(self.run_directory)
        always = [RunRecord(directory), TensorBoardLayout(), Summary(directory)]
        checkpoints = self.subcommand == "fit" and trainer.get("enable_checkpointing") is not False
        return [*always, *self._checkpoints()] if checkpoints else always

    def _checkpoints(self) -> list[ModelCheckpoint]:
        """Return what keeps the best and the last epoch (``save_last`` would renew the last one only when there is a new best one)."""
        best = ModelCheckpoint(self.run_directory, "best", monitor="val/accuracy", mode="max", enable_version_counter=False)
        return [best, ModelCheckpoint(self.run_directory, "last", enable_version_counter=False)]

    def _loggers(self) -> list[Any] | bool:
        if self.subcommand not in self.leaves_a_run:
            return False
        parent, name = self.run_directory.parent, self.run_directory.name
        return [TensorBoardLogger(str(parent), name="", version=name, default_hp_metric=False), MetricsCSV(str(self.run_directory))]


def read_checkpoint(path: str) -> dict[str, Any]:
    """Return a checkpoint, read without running any code in it.

    Raises:
        InputError: If there is none, or it is not one of ours.
    """
    if not Path(path).is_file():
        raise InputError(f"--ckpt_path {path} is no file")
    try:
        checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damage makes it raise
        raise InputError(f"--ckpt_path {path} is no readable checkpoint ({type(error).__name__})") from error
    if "state_dict" not in checkpoint:
        raise InputError(f"--ckpt_path {path} holds no state_dict: it is no checkpoint of this program")
    return checkpoint


def _settings_of(path: str) -> dict[str, Any]:
    """Return the model and data settings a checkpoint was made with, as a configuration."""
    checkpoint = read_checkpoint(path)
    model = dict(checkpoint.get("hyper_parameters", {}))
    images = dict(checkpoint.get("datamodule_hyper_parameters", {}))
    for given in (model, images):
        given.pop("_instantiator", None)
    settings = {}
    if model:
        # The class count follows from the data.
        model.get("network", {}).get("init_args", {}).pop("num_classes", None)
        settings["model"] = model
    if "_class_path" in images:
        # The seed follows from seed_everything.
        images.pop("seed", None)
        settings["data"] = {"class_path": images.pop("_class_path"), "init_args": images}
    return settings


def _whole_seed(seed: bool | int) -> int:
    if isinstance(seed, bool):
        raise InputError(f"seed_everything={str(seed).lower()} is not allowed: give a whole number (Lightning takes true for seed 0)")
    return seed


def _no_advertisement(record: logging.LogRecord) -> bool:
    return "litlogger" not in record.getMessage() and "litmodels" not in record.getMessage()
