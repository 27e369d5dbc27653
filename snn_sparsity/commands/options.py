"""What every command takes: its options, its help and examples, as a table that the parser tree is made of.

The commands that make a network (fit, validate, test, predict, audit) know the options that people use; all others (``--model.*``,
``--data.*``, ``--trainer.*``, ``--probes.*``) are Lightning's parser's.
"""

from argparse import ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snn_sparsity.sweep.grid import grid_names
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError


@dataclass(frozen=True)
class Option:
    """One option, as ``add_argument`` takes it."""

    names: tuple[str, ...]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: What is typed.
        summary: What it does, in the list of commands and at the top of its help.
        options: Its own; of those in an inner sequence one may be given at most.
        examples: Command lines, without the program's name.
        usage: Behind the program's name; made of the options where it is empty.
        description: Instead of the summary at the top of its help.
        notes: Between the options and the examples.
        module: Of ``snn_sparsity.commands``, which runs it; that of its name if empty.
        takes_more: Whether it hands options that are not its own to Lightning's parser.
    """

    name: str
    summary: str
    options: Sequence[Option | Sequence[Option]]
    examples: Sequence[str]
    usage: str = ""
    description: str = ""
    notes: str = ""
    module: str = ""
    takes_more: bool = False


def option(*names: str, **settings: Any) -> Option:
    """Return an option with a value, or an argument without a name of its own."""
    return Option(names, settings)


def flag(name: str, help: str) -> Option:
    """Return an option that is given by its name alone; ``true`` or ``false`` may follow, as an environment variable must say."""
    return option(name, nargs="?", const=True, default=False, type=_yes_or_no, metavar="true|false", help=help)


def _yes_or_no(word: str) -> bool:
    if word.lower() not in ("true", "false"):
        raise ArgumentTypeError(f"{word!r} is not allowed: give true, false or nothing")
    return word.lower() == "true"


def _in_image_units(word: str) -> Levels:
    try:
        return Levels(word)
    except InputError as error:
        raise ArgumentTypeError(str(error)) from error


def _folder(word: str) -> Path:
    if word == "-":
        raise ArgumentTypeError("- is no folder; there are several files, and standard output takes none of them")
    return Path(word)


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
"""
"""What the help of fit, validate and test says of options that Lightning's parser knows."""
OF_THE_CHECKPOINT = """\
Network, data and spike code are those of the checkpoint; --config NAME, --data.root DIR, --trainer.accelerator cpu and
such (--help-all) change them.
"""

CHECKPOINT = option("--ckpt_path", metavar="FILE", help="checkpoint of the network; its settings come along")
CONFIGS = (
    option("-c", "--config", action="append", default=[], metavar="NAME",
           help="a YAML file, or a shipped configuration by name; several compose"),
    flag("--help-all", "show every option there is, and leave"),
)  # fmt: skip
PRINT_CONFIG = option("--print_config", nargs="?", const="", metavar="HOW", help="show all settings, and what each is, as YAML, and leave")
RUNS = option("runs", metavar="RUNS", type=Path, nargs="+", help="runs, or folders with runs somewhere below them")


def _evaluation(name: str, summary: str) -> Command:
    return Command(
        name, summary, (CHECKPOINT, *CONFIGS, PRINT_CONFIG), [f"{name} --ckpt_path runs/demo/seed_3407/0/best.ckpt"],
        usage=f"{name} --ckpt_path FILE [--config NAME]... [--SETTING VALUE]...", notes=SETTINGS.format(name.upper()), module="train",
        takes_more=True,
    )  # fmt: skip


COMMANDS = (
    Command(
        "fit", "train a network, with probes at each epoch",
        (
            *CONFIGS,
            option("--ckpt_path", metavar="FILE", help="go on from this checkpoint; its settings come along"),
            flag("--resume", "go on with the newest run of this configuration, seed and settings; begin one if there is none"),
            PRINT_CONFIG,
        ),
        ["fit --config demo", "fit --config sew18_maxpool --data.name cifar100 --resume"],
        usage="fit [--config NAME]... [--resume] [--SETTING VALUE]...", notes=SETTINGS.format("FIT"), module="train", takes_more=True,
    ),
    _evaluation("validate", "run the probes on the validation set"),
    _evaluation("test", "run the probes on the whole test set"),
    Command(
        "predict", "classify a folder of images, into a CSV file",
        (
            CHECKPOINT,
            option("--images", metavar="DIR", help="the folder; those below it count too (default: the test set, numbered)"),
            option("--out", default="predictions.csv", metavar="FILE",
                   help="file, class and probability of each; - is standard output (default: predictions.csv)"),
            *CONFIGS,
        ),
        ["predict --ckpt_path runs/demo/seed_3407/0/best.ckpt --images FOLDER"],
        usage="predict --ckpt_path FILE [--images DIR] [--out FILE] [--SETTING VALUE]...", notes=OF_THE_CHECKPOINT, takes_more=True,
    ),
    Command(
        "audit", "is this robustness real? attack a checkpoint with a whole battery",
        (
            CHECKPOINT,
            option("--budget", default="quick", metavar="NAME",
                   help="quick (minutes on two cores, the default), standard (hours) or full (a GPU)"),
            option("--samples", type=int, metavar="N", help="images, the first of the test set (default: 256, 256 or 1000, by the budget)"),
            option("--space", default="image", metavar="NAME",
                   help="image (default), spikes, both of these, steps (pixels, each time step by itself), flips (spikes stay spikes), "
                   "paper (spikes, as published) or all five"),
            option("--flips", type=int, metavar="N",
                   help="most spikes of an image that --space flips may flip (default: 0.25 percent of the code's entries)"),
            option("--claim", metavar="ATTACK",
                   help="the quoted attack, such as PGD, with --claim.steps 20 and so on (default: that of the run's pgd probe)"),
            option("--weights", metavar="FILE", help="weights of the network of --model.network: .pt, .safetensors or .npz"),
            option("--weights.rename", dest="rename", action="append", metavar="OLD=NEW",
                   help="another name of a part of those weights' names"),
            option("--takes", default="spikes", choices=("spikes", "images"), help="what that network takes (default: spikes)"),
            option("--eps", type=_in_image_units, default=Levels(8 / 255), metavar="K/255", help="radius of the ball (default: 8/255)"),
            option("--batch_size", type=int, default=32, metavar="N", help="images attacked at a time (default: 32)"),
            flag("--resume", "go on with an audit that was stopped"),
            option("--transfer_from", metavar="FILE", help="weights of a second network of the same kind, to transfer attacks from"),
            option("--out", type=_folder, metavar="DIR",
                   help="folder for audit.json, audit.md and audit.html (default: audit/ beside the checkpoint)"),
            option("--compare", nargs="+", type=Path, metavar="AUDIT.JSON", help="put finished audits side by side instead, at least two"),
            option("--judge", nargs="+", type=Path, metavar="AUDIT.JSON",
                   help="judge finished audits anew by this version instead, and write them again: nothing is run"),
            *CONFIGS,
        ),
        ["audit --ckpt_path runs/demo/seed_3407/0/best.ckpt --space image",
         "audit --compare A/audit/audit.json B/audit/audit.json --out both"],
        usage="audit --ckpt_path FILE [OPTIONS] [--SETTING VALUE]...\n"
        "       snn-sparsity audit --model.network CLASS --weights FILE [OPTIONS] [--SETTING VALUE]...\n"
        "       snn-sparsity audit --compare AUDIT.JSON AUDIT.JSON... [--out DIR]\n"
        "       snn-sparsity audit --judge AUDIT.JSON...",
        notes=OF_THE_CHECKPOINT, takes_more=True,
    ),
    Command(
        "configs", "list the shipped configurations, or copy one out",
        (
            option("name", nargs="?", help="the configuration to copy, by name or stem"),
            option("target", nargs="?", default=".", help="file or folder to copy it to (default: here)"),
        ),
        ["configs sew18_maxpool mine.yaml"],
    ),
    Command(
        "sweep", "run a grid of configurations, datasets and seeds",
        (
            option("--grid", required=True, metavar="NAME", help=f"{', '.join(grid_names())}, or a file of your own (docs/reproduce.md)"),
            option("--only", metavar="PATTERN", help="rows whose configuration, or group/configuration, matches, such as 'sew18*'"),
            option("--seeds", default="3407", metavar="A,B,...", help="a run of each row for each seed (default: 3407, the paper's)"),
            option("--max_epochs", type=int, metavar="N", help="train N epochs instead of the grid's"),
            option("--samples", type=int, metavar="N", help="train on N images and test on N images"),
            option("--data_root", metavar="DIR", help="where the images or the archive lie"),
            (
                option("--jobs", type=int, metavar="N", help="N processes at a time, on the CPU (default: one, on what there is)"),
                option("--devices", metavar="0,1,...", help="a process at a time on each of these GPUs"),
            ),
            flag("--test", "then test the best checkpoint of each run on all test images"),
            option("--part", metavar="I/N", help="every N-th row from I on, for machines that share a grid (slurm/sweep.sbatch)"),
            option("--root", default="runs", metavar="DIR", help="runs go to DIR/<grid>/<group>/<config>/seed_<n>/<k> (default: runs)"),
            flag("--print", "print the commands that are left to run, and run nothing"),
        ),
        ["sweep --grid digits --jobs 1", "sweep --grid paper --devices 0,1,2,3 --test"],
        usage="sweep --grid NAME [OPTIONS] [-- ARGUMENTS OF FIT]",
        description="Run a grid. Finished runs are skipped, broken ones go on from their last checkpoint: after any stop, give the same\n"
        "command again.",
    ),
    Command(
        "report", "put finished runs beside the paper: tables, figures, one page",
        (
            RUNS,
            option("--out", type=_folder, default=Path("report"), metavar="DIR",
                   help="folder for report.html, .md, .csv and figures/ (default: report)"),
            option("--into", type=Path, nargs="+", default=[], metavar="FILE", help="Markdown documents whose marked parts are made anew"),
        ),
        ["report runs --out report"],
    ),
    Command(
        "keep", "copy what runs have to say, with a card each, to where it lasts",
        (
            RUNS,
            option("--out", type=_folder, default=Path("results"), metavar="DIR", help="folder for <dataset>/<run>/ (default: results)"),
        ),
        ["keep runs/digits"],
    ),
    Command(
        "plot", "draw the figures of one or two runs",
        (
            option("run", metavar="RUN", type=Path, help="a run's directory, such as runs/demo/seed_3407/0"),
            option("other", metavar="RUN2", type=Path, nargs="?", help="a second run, shown beside the first"),
            option("--figure", default="all", metavar="NAME",
                   help="gradients, zeros_over_epochs, origin, bound, trail, surrogate, or all that there are numbers for (default)"),
            option("--out", type=_folder, metavar="DIR", help="folder for the PNG files (default: figures/ in the first run)"),
        ),
        ["plot runs/demo/seed_3407/0 --out figures"],
    ),
    Command(
        "experiment", "put the paper's claims to the test: causal, trail",
        (
            option("name", metavar="NAME", choices=("causal", "trail"), help="causal or trail"),
            option("runs", metavar="RUNS", type=Path, nargs="*", help="runs, folders with runs below them, or what causal measured before"),
            option("--samples", type=int, metavar="N", help="the first N test images (default: 1000; trail: 40)"),
            option("--batch_size", type=int, default=16, metavar="N", help="BatchNorm's batch in batch mode (default: 16, the paper's)"),
            option("--eval_batch_size", type=int, default=128, metavar="N", help="images at a time in eval mode (default: 128)"),
            option("--layer", metavar="PATH", help="trail: the convolution to prune (default: layer2.0.conv2, else the last)"),
            option("--out", type=_folder, metavar="DIR", help="folder of the document (default: NAME)"),
            option("--data_root", metavar="DIR", help="where the images or the archive lie (default: where they lay in training)"),
            flag("--cpu", "leave a GPU alone"),
            flag("--cuda_graphs", "causal: replay the passes of attacks as CUDA graphs, which is faster at small batches"),
        ),
        [
            "sweep --grid causal_cpu --seeds 3407,1 --jobs 1",
            "experiment causal runs/causal_cpu --samples 500 --out results/causal_cpu",
            "experiment causal parts/1 parts/2 --out results/causal",
            "experiment trail runs/demo/seed_3407/0 --samples 40 --out results/trail",
        ],
        usage="experiment NAME [RUNS...] [OPTIONS]",
        description="causal: attack the networks of a grid with sparse and with dense gradients at their pool, on the same images, and\n"
        "compare in pairs: do zeros make a network robust? trail: section 5 as experiments, in the paper's two-layer model and in one\n"
        "trained network. Stopped, the same command goes on. Without RUNS, causal writes its document anew from what was measured.\n"
        "A folder with a causal.json in it counts as measured: networks can be measured one by one, side by side, and put together.",
    ),
)  # fmt: skip
