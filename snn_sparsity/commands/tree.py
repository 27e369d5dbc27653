"""The parser tree: what every command takes, and its help, without an import that takes time.

A command's module is imported when it runs. The commands that make a network (fit, validate, test, predict, audit) know the options that
people use; all others (``--model.*``, ``--data.*``, ``--trainer.*``, ``--probes.*``) are left in ``given.more`` for Lightning's parser.
"""

import argparse
import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from snn_sparsity import __version__
from snn_sparsity.sweep.grid import grid_names
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError, did_you_mean

PREFIX = "SNN_SPARSITY"
"""First part of the name of an environment variable that gives an option: ``SNN_SPARSITY_FIT__TRAINER__MAX_EPOCHS``."""


class OneLineParser(argparse.ArgumentParser):
    """argparse's parser, but for its errors: raised as InputError, which the command line shows in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the message."""
        raise InputError(f"{self.prog.split()[-1]}: {message.removeprefix('argument ')}; see {self.prog} --help")

    def flag(self, name: str, help: str) -> None:
        """Add an option that is given by its name alone; ``true`` or ``false`` may follow, as an environment variable must say."""
        self.add_argument(name, nargs="?", const=True, default=False, type=_yes_or_no, metavar="true|false", help=help)


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Namespace:
    """Return what a command line says, with what environment variables say where it does not.

    Args:
        arguments: The command and what follows it.
        environment: ``SNN_SPARSITY_<COMMAND>__<OPTION>`` gives an option, with ``__`` for each dot in its name.

    Returns:
        The command's own options; ``command``; ``module``, which runs it; and ``more``, the arguments that are not its own.

    Raises:
        InputError: For whatever is not allowed.

    Example:
        >>> given = parse(["fit", "--config", "demo", "--model.lr", ".1"], {"SNN_SPARSITY_FIT__TRAINER__MAX_EPOCHS": "7"})
        >>> given.config, given.more
        (['demo'], ['--trainer.max_epochs=7', '--model.lr', '.1'])
    """
    tree = Tree()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in tree.commands:
        known = ", ".join(tree.commands)
        raise InputError(f"unknown command {arguments[0]!r}{did_you_mean(arguments[0], tree.commands)}: choose one of {known}")
    own, after = _split(arguments)
    own = _with_negative_values(own)
    given, more = tree.parser.parse_known_args([*own[:1], *_from_environment(own[0], environment), *own[1:]] if own else ["--help"])
    if more and not given.takes_more:
        options = [option for action in tree.commands[given.command]._actions for option in action.option_strings]
        tree.commands[given.command].error(f"unrecognized arguments: {' '.join(more)}{did_you_mean(more[0].partition('=')[0], options)}")
    given.more = [*more, *after]
    return given


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return what stands before and after ``--``; only a sweep has something to do with the second."""
    place = arguments.index("--") if arguments[:1] == ["sweep"] and "--" in arguments else len(arguments)
    return list(arguments[:place]), list(arguments[place + 1 :])


def _with_negative_values(arguments: Sequence[str]) -> list[str]:
    """Join each option with a value such as -8/255, which would be taken for an option."""
    joined: list[str] = []
    for word in arguments:
        if joined and re.fullmatch(r"--[^=]+", joined[-1]) and re.match(r"-\.?\d", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


def _from_environment(command: str, environment: Mapping[str, str]) -> list[str]:
    prefix = f"{PREFIX}_{command.upper()}__"
    names = sorted(name for name in environment if name.startswith(prefix))
    return [f"--{name.removeprefix(prefix).lower().replace('__', '.')}={environment[name]}" for name in names]


def _yes_or_no(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{word!r} is not allowed: give true, false or nothing")
    return word.lower() == "true"


def _in_image_units(word: str) -> Levels:
    try:
        return Levels(word)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


class Tree:
    """The parser of ``snn-sparsity``, and those of its commands by name."""

    def __init__(self) -> None:
        self.parser = OneLineParser(
            prog="snn-sparsity", usage="snn-sparsity COMMAND [OPTIONS]", description=DESCRIPTION, epilog=FIRST_STEPS
        )
        self.parser.add_argument("--version", action="version", version=f"snn-sparsity {__version__}")
        self._actions = self.parser.add_subparsers(title="commands", prog="snn-sparsity", metavar="COMMAND", dest="command", required=True)
        self.commands: dict[str, OneLineParser] = {}
        for add in (_fit, _validate, _test, _predict, _audit, _configs, _sweep, _report, _keep, _plot, _experiment):
            add(self)

    def command(self, name: str, summary: str, *, module: str = "", takes_more: bool = False, **options: Any) -> OneLineParser:
        """Add a command, which a module of the same name runs unless another is given, and return its parser."""
        about = summary[0].upper() + summary[1:] + "."
        parser: OneLineParser = self._actions.add_parser(name, help=summary, **{"description": about, **options})
        parser.set_defaults(module=f"snn_sparsity.commands.{module or name}", takes_more=takes_more)
        self.commands[name] = parser
        return parser


DESCRIPTION = "Train spiking ResNets, watch their gradients, attack them, and say how far the result can be believed."
FIRST_STEPS = """\
snn-sparsity COMMAND --help    options of a command

first steps:
  snn-sparsity fit --config demo
  snn-sparsity fit --config sew18_maxpool --data.name cifar100 --probes.pgd.attack.steps 20"""
SETTINGS = """\
settings, of which there are more (--help-all):
  --model.network CLASS      SEWResNet, SpikingResNet or one of your own; --model.network.depth 34, --model.network.stem cifar
  --data CLASS               CIFARDataModule, DigitsDataModule, ImageFolderDataModule or one of your own
  --data.root DIR            where the images lie; --data.batch_size N, --data.validation .1
  --data.encoder CLASS       spike code: PhaseEncoder, RateEncoder, LatencyEncoder, DirectEncoder; --data.encoder.num_steps N
  --probes.NAME CLASS        add a probe, null switches it off; --probes.pgd.attack.steps 20, --probes.pgd.attack.eps 4/255
  --model.lr X               learning rate; --trainer.max_epochs N, --trainer.devices N, --trainer.accelerator cpu
  --seed_everything N        the seed (default: 3407)

They can stand in YAML files (--config) and in the environment (SNN_SPARSITY_{}__DATA__ROOT) too. The command line
wins over the environment, that over the files, and of these the last.

examples:
  """
"""What the help of fit, validate and test says of options that Lightning's parser knows."""
NETWORK = """\
Network, data and spike code are those of the checkpoint; --config NAME, --data.root DIR, --trainer.accelerator cpu and
such (--help-all) change them.

examples:
  """


def _fit(tree: Tree) -> None:
    parser = tree.command(
        "fit", "train a network, with probes at each epoch", module="train", takes_more=True,
        usage="snn-sparsity fit [--config NAME]... [--resume] [--SETTING VALUE]...",
        epilog=SETTINGS.format("FIT")
        + "snn-sparsity fit --config demo\n  snn-sparsity fit --config sew18_maxpool --data.name cifar100 --resume",
    )  # fmt: skip
    _takes_configs(parser)
    parser.add_argument("--ckpt_path", metavar="FILE", help="go on from this checkpoint; its settings come along")
    parser.flag("--resume", "go on with the newest run of this configuration, seed and settings; begin one if there is none")
    _prints_config(parser)


def _validate(tree: Tree) -> None:
    _evaluation(tree, "validate", "run the probes on the validation set")


def _test(tree: Tree) -> None:
    _evaluation(tree, "test", "run the probes on the whole test set")


def _evaluation(tree: Tree, name: str, summary: str) -> None:
    parser = tree.command(
        name, summary, module="train", takes_more=True,
        usage=f"snn-sparsity {name} --ckpt_path FILE [--config NAME]... [--SETTING VALUE]...",
        epilog=SETTINGS.format(name.upper()) + f"snn-sparsity {name} --ckpt_path runs/demo/seed_3407/0/best.ckpt",
    )  # fmt: skip
    _takes_checkpoint(parser)
    _takes_configs(parser)
    _prints_config(parser)


def _predict(tree: Tree) -> None:
    parser = tree.command(
        "predict", "classify a folder of images, into a CSV file", takes_more=True,
        usage="snn-sparsity predict --ckpt_path FILE [--images DIR] [--out FILE] [--SETTING VALUE]...",
        epilog=NETWORK + "snn-sparsity predict --ckpt_path runs/demo/seed_3407/0/best.ckpt --images FOLDER",
    )  # fmt: skip
    _takes_checkpoint(parser)
    parser.add_argument("--images", metavar="DIR", help="the folder; those below it count too (default: the test set, numbered)")
    parser.add_argument(
        "--out",
        default="predictions.csv",
        metavar="FILE",
        help="file, class and probability of each; - is standard output (default: predictions.csv)",
    )
    _takes_configs(parser)


def _audit(tree: Tree) -> None:
    parser = tree.command(
        "audit", "is this robustness real? attack a checkpoint with a whole battery", takes_more=True,
        usage="snn-sparsity audit --ckpt_path FILE [OPTIONS] [--SETTING VALUE]...\n"
        "       snn-sparsity audit --model.network CLASS --weights FILE [OPTIONS] [--SETTING VALUE]...\n"
        "       snn-sparsity audit --compare AUDIT.JSON AUDIT.JSON... [--out DIR]",
        epilog=NETWORK + "snn-sparsity audit --ckpt_path runs/demo/seed_3407/0/best.ckpt --space image\n"
        "  snn-sparsity audit --compare A/audit/audit.json B/audit/audit.json --out both",
    )  # fmt: skip
    _takes_checkpoint(parser)
    parser.add_argument(
        "--budget", default="quick", metavar="NAME", help="quick (minutes on two cores, the default), standard (hours) or full (a GPU)"
    )
    parser.add_argument(
        "--samples", type=int, metavar="N", help="images, the first of the test set (default: 256, 256 or 1000, by the budget)"
    )
    parser.add_argument(
        "--space", default="image", metavar="NAME", help="image (default), spikes, both, paper (spikes, as published) or all three"
    )
    parser.add_argument(
        "--claim",
        metavar="ATTACK",
        help="the quoted attack, such as PGD, with --claim.steps 20 and so on (default: that of the run's pgd probe)",
    )
    parser.add_argument("--weights", metavar="FILE", help="weights of the network of --model.network: .pt, .safetensors or .npz")
    parser.add_argument(
        "--weights.rename", dest="rename", action="append", metavar="OLD=NEW", help="another name of a part of those weights' names"
    )
    parser.add_argument("--takes", default="spikes", choices=("spikes", "images"), help="what that network takes (default: spikes)")
    parser.add_argument("--eps", type=_in_image_units, default=Levels(8 / 255), metavar="K/255", help="radius of the ball (default: 8/255)")
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", help="images attacked at a time (default: 32)")
    parser.flag("--resume", "go on with an audit that was stopped")
    parser.add_argument("--transfer_from", metavar="FILE", help="weights of a second network of the same kind, to transfer attacks from")
    parser.add_argument(
        "--out", metavar="DIR", help="folder for audit.json, audit.md and audit.html (default: audit/ beside the checkpoint)"
    )
    parser.add_argument(
        "--compare", nargs="+", type=Path, metavar="AUDIT.JSON", help="put finished audits side by side instead, at least two"
    )
    _takes_configs(parser)


def _configs(tree: Tree) -> None:
    parser = tree.command(
        "configs", "list the shipped configurations, or copy one out", epilog="example:\n  snn-sparsity configs sew18_maxpool mine.yaml"
    )
    parser.add_argument("name", nargs="?", help="the configuration to copy, by name or stem")
    parser.add_argument("target", nargs="?", default=".", help="file or folder to copy it to (default: here)")


def _sweep(tree: Tree) -> None:
    parser = tree.command(
        "sweep", "run a grid of configurations, datasets and seeds",
        usage="snn-sparsity sweep --grid NAME [OPTIONS] [-- ARGUMENTS OF FIT]",
        description="Run a grid. Finished runs are skipped, broken ones go on from their last checkpoint: after any stop, give the same\n"
        "command again.",
        epilog="examples:\n  snn-sparsity sweep --grid digits --jobs 1\n  snn-sparsity sweep --grid paper --devices 0,1,2,3 --test",
    )  # fmt: skip
    parser.add_argument(
        "--grid", required=True, metavar="NAME", help=f"{', '.join(grid_names())}, or a file of your own (docs/reproduce.md)"
    )
    parser.add_argument("--only", metavar="PATTERN", help="rows whose configuration, or group/configuration, matches, such as 'sew18*'")
    parser.add_argument("--seeds", default="3407", metavar="A,B,...", help="a run of each row for each seed (default: 3407, the paper's)")
    parser.add_argument("--max_epochs", type=int, metavar="N", help="train N epochs instead of the grid's")
    parser.add_argument("--samples", type=int, metavar="N", help="train on N images and test on N images")
    parser.add_argument("--data_root", metavar="DIR", help="where the images or the archive lie")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="N processes at a time, on the CPU (default: one, on what there is)")
    where.add_argument("--devices", metavar="0,1,...", help="a process at a time on each of these GPUs")
    parser.flag("--test", "then test the best checkpoint of each run on all test images")
    parser.add_argument("--part", metavar="I/N", help="every N-th row from I on, for machines that share a grid (slurm/sweep.sbatch)")
    parser.add_argument("--root", default="runs", metavar="DIR", help="runs go to DIR/<grid>/<group>/<config>/seed_<n>/<k> (default: runs)")
    parser.flag("--print", "print the commands that are left to run, and run nothing")


def _report(tree: Tree) -> None:
    parser = tree.command(
        "report",
        "put finished runs beside the paper: tables, figures, one page",
        epilog="example:\n  snn-sparsity report runs --out report",
    )
    parser.add_argument("runs", metavar="RUNS", type=Path, nargs="+", help="runs, or folders with runs somewhere below them")
    parser.add_argument(
        "--out", type=Path, default=Path("report"), metavar="DIR", help="folder for report.html, .md, .csv and figures/ (default: report)"
    )


def _keep(tree: Tree) -> None:
    parser = tree.command(
        "keep", "copy what runs have to say, with a card each, to where it lasts", epilog="example:\n  snn-sparsity keep runs/digits"
    )
    parser.add_argument("runs", metavar="RUNS", type=Path, nargs="+", help="runs, or folders with runs somewhere below them")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="folder for <dataset>/<run>/ (default: results)")


def _plot(tree: Tree) -> None:
    parser = tree.command(
        "plot", "draw the figures of one or two runs", epilog="example:\n  snn-sparsity plot runs/demo/seed_3407/0 --out figures"
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="a run's directory, such as runs/demo/seed_3407/0")
    parser.add_argument("other", metavar="RUN2", type=Path, nargs="?", help="a second run, shown beside the first")
    parser.add_argument(
        "--figure",
        default="all",
        metavar="NAME",
        help="gradients, zeros_over_epochs, origin, bound, trail, surrogate, or all that there are numbers for (default)",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the PNG files (default: figures/ in the first run)")


def _experiment(tree: Tree) -> None:
    parser = tree.command(
        "experiment", "put the paper's claims to the test: causal, trail",
        usage="snn-sparsity experiment NAME [RUNS...] [OPTIONS]",
        description="causal: attack the networks of a grid with sparse and with dense gradients at their pool, on the same images, and\n"
        "compare in pairs: do zeros make a network robust? trail: section 5 as experiments, in the paper's two-layer model and in one\n"
        "trained network. Stopped, the same command goes on. Without RUNS, causal writes its document anew from what was measured.\n"
        "A folder with a causal.json in it counts as measured: networks can be measured one by one, side by side, and put together.",
        epilog="examples:\n  snn-sparsity sweep --grid causal_cpu --seeds 3407,1 --jobs 1\n"
        "  snn-sparsity experiment causal runs/causal_cpu --samples 500 --out results/causal_cpu\n"
        "  snn-sparsity experiment causal parts/1 parts/2 --out results/causal\n"
        "  snn-sparsity experiment trail runs/demo/seed_3407/0 --samples 40 --out results/trail",
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", choices=("causal", "trail"), help="causal or trail")
    parser.add_argument(
        "runs", metavar="RUNS", type=Path, nargs="*", help="runs, folders with runs below them, or what causal measured before"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="the first N test images (default: 1000; trail: 40)")
    parser.add_argument(
        "--batch_size", type=int, default=16, metavar="N", help="BatchNorm's batch in batch mode (default: 16, the paper's)"
    )
    parser.add_argument("--eval_batch_size", type=int, default=128, metavar="N", help="images at a time in eval mode (default: 128)")
    parser.add_argument("--layer", metavar="PATH", help="trail: the convolution to prune (default: layer2.0.conv2, else the last)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the document (default: NAME)")
    parser.add_argument("--data_root", metavar="DIR", help="where the images or the archive lie (default: where they lay in training)")
    parser.flag("--cpu", "leave a GPU alone")


def _takes_checkpoint(parser: OneLineParser) -> None:
    parser.add_argument("--ckpt_path", metavar="FILE", help="checkpoint of the network; its settings come along")


def _takes_configs(parser: OneLineParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        action="append",
        default=[],
        metavar="NAME",
        help="a YAML file, or a shipped configuration by name; several compose",
    )
    parser.flag("--help-all", "show every option there is, and leave")


def _prints_config(parser: OneLineParser) -> None:
    parser.add_argument(
        "--print_config", nargs="?", const="", metavar="HOW", help="show all settings, and what each is, as YAML, and leave"
    )
