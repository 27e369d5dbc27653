"""``snn-sparsity fit | validate | test``: LightningCLI with named configurations, named probes and run directories."""

import os
from argparse import Namespace as CommandLine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import Namespace
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from snn_sparsity.commands.network import PARSER, NetworkCLI, quieten
from snn_sparsity.commands.parsing import flat
from snn_sparsity.commands.refusals import disk_errors_told_once, in_one_line, leaving_nothing
from snn_sparsity.distributed import is_first
from snn_sparsity.runs.directory import CONFIG, is_finished, own_run, read_record, require_place, run_directory, runs_beside, take_hold
from snn_sparsity.runs.files import write_whole
from snn_sparsity.runs.metrics import METRICS, forget_from
from snn_sparsity.runs.records import PHASE_CODE
from snn_sparsity.training.checkpoint_files import WholeCheckpointIO, last_whole, read_checkpoint
from snn_sparsity.training.checkpoints import BestCheckpoint, LastCheckpoint
from snn_sparsity.training.dead_layers import DeadLayers
from snn_sparsity.training.end_table import Summary
from snn_sparsity.training.finite_check import FiniteCheck
from snn_sparsity.training.memory import EnoughMemory
from snn_sparsity.training.metrics_logger import MetricsCSV
from snn_sparsity.training.progress_bar import QuietProgressBar
from snn_sparsity.training.run_record import RunRecord
from snn_sparsity.training.stopping import StopTogether
from snn_sparsity.training.sync_batchnorm import MultiStepSyncBatchNorm
from snn_sparsity.training.tensorboard import Curves, TensorBoardLayout
from snn_sparsity.validation import InputError

ELSEWHERE = ("trainer.accelerator", "trainer.devices", "trainer.num_nodes", "trainer.strategy", "trainer.default_root_dir",
             "trainer.enable_progress_bar", "trainer.enable_model_summary", "data.init_args.root", "data.init_args.path",
             "checkpoints")  # fmt: skip
"""Settings that say where and on what a run is made: it may go on with others."""


def run(given: CommandLine) -> int:
    """Run the command."""
    own = [word for config in given.config for word in ("--config", config)]
    own += [] if given.ckpt_path is None else ["--ckpt_path", given.ckpt_path]
    own += [] if given.print_config is None else [f"--print_config={given.print_config or 'comments'}"]
    own += ["--resume"] if given.command == "fit" and given.resume else []
    quieten()
    try:
        TrainingCLI([given.command, *own, *given.more, *(["--help"] if given.help_all else [])], given.ckpt_path)
    except RunIsFinishedError as finished:
        print(f"{finished} is finished: nothing to resume")
    return 0


class RunIsFinishedError(Exception):
    """The run that is to go on has nothing left to do."""


class SaveConfig(SaveConfigCallback):
    """Save the resolved configuration as ``config.yaml`` in the run directory, at once."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it."""
        write_whole(Path(trainer.default_root_dir) / CONFIG, self.parser.dump(self.config, skip_none=False))


class TrainingCLI(NetworkCLI):
    """Train, validate or test with what the command line and configurations say, in a run directory."""

    command: str
    of_fit = ()

    def __init__(self, args: list[str], checkpoint: str | None) -> None:
        self.goes_on_at: int | None = None
        self.command = args[0]
        with ExitStack() as self.until_done:
            super().__init__(
                args,
                checkpoint,
                parser_kwargs={"allow_abbrev": False, self.command: PARSER},
                save_config_callback=SaveConfig,
                save_config_kwargs={"save_to_log_dir": False},
                run=True,
            )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]  # Lightning asks an object for them
        """Return the one command that was given: making the parsers of all takes as long as all the rest of parsing."""
        return {self.command: LightningCLI.subcommands()[self.command]}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if subcommand == "fit":
            wanted = "Go on with the newest run of this configuration, seed and settings; begin one if there is none."
            parser.add_argument("--resume", action="store_true", help=wanted)
            kept = "Checkpoints of a finished run: best and last (all), or the best alone, for half of the disk."
        else:
            kept = "Of fit alone: a run's config.yaml has it."
            # Lightning's own table has a line for each operation's every value, and pushes the summary off the screen.
            parser.set_defaults({"verbose": False})
        parser.add_argument("--checkpoints", type=Literal["all", "best"], default="all", help=kept)
        return parser

    def before_instantiate_classes(self) -> None:
        """Choose the run directory."""
        super().before_instantiate_classes()
        config = self.given
        if config.get("weights_only") is False:
            raise InputError("weights_only=false is not allowed: a checkpoint could then run any code; give true or nothing")
        if "weights_only" in config:
            # Lightning's null is overruled by TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD in the environment.
            config.weights_only = True
        configs = [str(path) for path in config.config or []]
        self.run_directory = run_directory(
            str(self.subcommand), config.trainer.default_root_dir or "runs", configs, config.seed_everything, config.get("ckpt_path")
        )
        require_place(self.run_directory)
        if self.subcommand == "fit" and config.pop("resume"):
            self._resume(configs)

    def _resume(self, configs: list[str]) -> None:
        """Let the run to go on with, if there is one, be this one, from its last whole checkpoint; without any it is begun again.

        What it goes on from is read when nobody else can change it any more.
        """
        own = own_run(configs)
        runs = [own] if own else runs_beside(self.run_directory)
        differences = [self._difference(run) for run in runs]
        if None in differences:
            self.run_directory = runs[differences.index(None)]
            # A finished run stays as it is, and need not be held; whoever held it until now may have finished it.
            if not is_finished(self.run_directory):
                self._hold()
            if read_record(self.run_directory).get("status") == "finished":
                raise RunIsFinishedError(self.run_directory)
            self.goes_on_at = 0
            if checkpoint := last_whole(self.run_directory):
                self.goes_on_at = read_checkpoint(str(checkpoint))["global_step"]
                self.config.fit.ckpt_path = str(checkpoint)
                self.save_config_callback = None
        elif runs and (own or not is_finished(runs[0])):
            raise InputError(
                f"--resume: {runs[0]} was made with {differences[0]}; give the settings of that run, or leave --resume out to begin another"
            )

    def _hold(self) -> None:
        """Hold the run until the command ends; of several processes the first does it for all."""
        if is_first():
            self.until_done.callback(os.close, take_hold(self.run_directory))

    def _difference(self, run: Path) -> str | None:
        """Return the first setting of a run that is not as given now; None if all are, or it was stopped before it kept any."""
        if not (run / CONFIG).is_file():
            return None
        try:
            made_with = self._settings(self.parser.parse_args(["fit", "--config", str(run / CONFIG)]))
        except InputError as error:
            return f"settings that are none any more ({error})"
        given = self._settings(self.config)
        for name in sorted(made_with.keys() | given.keys()):
            if made_with.get(name) != given.get(name) and not name.startswith(ELSEWHERE):
                return f"{name}={made_with.get(name)!r}, not {given.get(name)!r}"
        return None

    def _settings(self, config: Namespace) -> dict[str, Any]:
        """Return the settings of a fit by their full names."""
        content = yaml.safe_load(self._parser("fit").dump(config.fit, skip_none=False))
        content.pop("resume", None)
        images = content["data"].setdefault("init_args", {})
        images["encoder"] = images.get("encoder") or PHASE_CODE
        return dict(flat(content))

    def _run_subcommand(self, subcommand: str) -> None:
        with leaving_nothing(self.trainer, self.run_directory), in_one_line(), disk_errors_told_once():
            super()._run_subcommand(subcommand)

    def before_fit(self) -> None:
        """Where a run goes on, take out of its metrics what it logged after the checkpoint."""
        if self.goes_on_at is not None and is_first():
            forget_from(self.run_directory / METRICS, self.goes_on_at)

    def before_test(self) -> None:
        """Let no other test of the checkpoint write to the same folder."""
        if self._is_beside_its_run and not self.given.trainer.get("fast_dev_run"):
            self._hold()

    before_validate = before_test

    @property
    def _is_beside_its_run(self) -> bool:
        """Whether it is a test or validation of a checkpoint, for which there is one folder; all others get a new one."""
        return self.subcommand != "fit" and self.given.get("ckpt_path") is not None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer, with the probes before all other callbacks so that these see their values."""
        given = self._get(self.config_init, "trainer")
        probes = self._get(self.config_init, "probes") or {}
        for name, probe in probes.items():
            if probe is not None:
                probe.name = name
        own = given.get("callbacks") or []
        own = own if isinstance(own, list) else [own]
        if self.given.get("lr_scheduler") and any(isinstance(callback, LearningRateFinder) for callback in own):
            raise InputError(
                "trainer.callbacks: LearningRateFinder is not allowed with --lr_scheduler: the schedule would go on from its own rate, not "
                "from the one that was found; search without a schedule, then give --model.lr or --optimizer.lr"
            )
        if self.goes_on_at:
            # What a tuner found is in the checkpoint of a run that goes on, and Lightning would lose that in tuning.
            if any(isinstance(callback, BatchSizeFinder) for callback in own):
                self.datamodule.batch_size = read_checkpoint(str(self.given.ckpt_path))["datamodule_hyper_parameters"]["batch_size"]
            own = [callback for callback in own if not isinstance(callback, BatchSizeFinder | LearningRateFinder)]
        shown = given.get("enable_progress_bar") is not False and not any(isinstance(callback, ProgressBar) for callback in own)
        kwargs["callbacks"] = [
            EnoughMemory(),
            StopTogether(),
            DeadLayers(),
            *filter(None, probes.values()),
            *own,
            FiniteCheck(),
            *([QuietProgressBar()] if shown else []),
            *self._own_callbacks(given),
        ]
        loggers = given.get("logger")
        if loggers in (None, True):
            parent, name = self.run_directory.parent, self.run_directory.name
            # What was logged after the checkpoint is forgotten; by a test, all that an earlier one left in the folder.
            first = self.goes_on_at if self.subcommand == "fit" else 0
            loggers = Curves(str(parent), name="", version=name, default_hp_metric=False, purge_step=first)
        # Without metrics.csv there is no run.
        numbers = MetricsCSV(str(self.run_directory), goes_on=self.goes_on_at is not None)
        kwargs["logger"] = [*(loggers if isinstance(loggers, list) else [loggers] if loggers else []), numbers]
        kwargs["default_root_dir"] = str(self.run_directory)
        plugins = given.get("plugins") or []
        kwargs["plugins"] = [*(plugins if isinstance(plugins, list) else [plugins]), WholeCheckpointIO()]
        if given.get("sync_batchnorm"):
            kwargs["sync_batchnorm"] = False
            kwargs["plugins"].append(MultiStepSyncBatchNorm())
        return super().instantiate_trainer(**kwargs)

    def _own_callbacks(self, trainer: Namespace) -> list[Callback]:
        if trainer.get("fast_dev_run"):
            return []
        directory = str(self.run_directory)
        # A run that goes on has its layout already.
        last = self.given.get("checkpoints") != "best"
        held = self.goes_on_at is not None or self._is_beside_its_run
        record = RunRecord(directory, ["best", "last"] if last else ["best"], held)
        always = [record, *([] if self.goes_on_at else [TensorBoardLayout()]), Summary(directory)]
        checkpoints = self.subcommand == "fit" and trainer.get("enable_checkpointing") is not False
        return (
            [*always, BestCheckpoint(directory, self._get(self.config_init, "best")), LastCheckpoint(directory, last)]
            if checkpoints
            else always
        )
