"""``snn-sparsity sweep``: run a grid of configurations, datasets and seeds, from wherever it was left."""

import os
import shlex
from argparse import Namespace

from snn_sparsity.commands.one_line import OneLineParser
from snn_sparsity.sweep.grid import Row, chosen, names, part, read_grid
from snn_sparsity.sweep.state import Place, next_command, runs_of, tested
from snn_sparsity.sweep.workers import Sweep
from snn_sparsity.validation import InputError, require_number


def run(arguments: list[str]) -> int:
    """Run the command; ``arguments[0]`` is its name."""
    own, more = _split(arguments[1:])
    given = _parser().parse_args(own)
    rows = _rows(given, more)
    place = Place(given.root, _device(given), given.data_root, given.test)
    if given.print:
        for row in rows:
            print("\n".join(shlex.join(["snn-sparsity", *command]) for command in _commands(row, place)))
        return 0
    return Sweep(rows, place, _slots(given)).run()


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return what stands before and after ``--``."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def _rows(given: Namespace, more: list[str]) -> list[Row]:
    shorter = []
    for name, options in (("max_epochs", ["--trainer.max_epochs"]), ("samples", ["--data.train_samples", "--data.test_samples"])):
        number = getattr(given, name)
        if number is not None:
            require_number(f"--{name}", number, at_least=1, whole=True)
            shorter += [word for option in options for word in (option, str(number))]
    rows = chosen(read_grid(given.grid, _seeds(given.seeds), [*shorter, *more]), given.only)
    return part(rows, given.part) if given.part else rows


def _seeds(text: str) -> list[int]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        raise InputError(f"--seeds {text} is not allowed: give whole numbers with commas between, such as 3407,1,2")
    return list(dict.fromkeys(int(word) for word in words))


def _device(given: Namespace) -> tuple[str, ...]:
    return ("--trainer.accelerator", "cpu") if given.jobs is not None else ("--trainer.devices", "1")


def _slots(given: Namespace) -> list[dict[str, str]]:
    """Return the environment of each process that may run at a time."""
    if given.devices:
        return [{"CUDA_VISIBLE_DEVICES": device} for device in given.devices.split(",")]
    if given.jobs is None:
        return [{}]
    require_number("--jobs", given.jobs, at_least=1, whole=True)
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    return [{"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}] * given.jobs


def _commands(row: Row, place: Place) -> list[list[str]]:
    """Return what is left to run of a row, one command after the other."""
    command = next_command(row, place)
    if command is None:
        return []
    if not place.test or command[0] == "test":
        return [command]
    return [command, tested(next(iter(runs_of(row, place)), place.next_run(row)))]


def _parser() -> OneLineParser:
    parser = OneLineParser(
        prog="snn-sparsity sweep",
        usage="snn-sparsity sweep --grid NAME [OPTIONS] [-- ARGUMENTS OF FIT]",
        description="Run a grid. Finished runs are skipped, broken ones go on from their last checkpoint: after any stop, give the same "
        "command again.",
    )  # fmt: skip
    parser.add_argument("--grid", required=True, metavar="NAME", help=f"{', '.join(names())}, or a file of your own (docs/reproduce.md)")
    parser.add_argument("--only", metavar="PATTERN", help="rows whose configuration, or group/configuration, matches, such as 'sew18*'")
    parser.add_argument("--seeds", default="3407", metavar="A,B,...", help="a run of each row for each seed (default: 3407, the paper's)")
    parser.add_argument("--max_epochs", type=int, metavar="N", help="train N epochs instead of the grid's")
    parser.add_argument("--samples", type=int, metavar="N", help="train on N images and test on N images")
    parser.add_argument("--data_root", metavar="DIR", help="where the images or the archive lie")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=int, metavar="N", help="N processes at a time, on the CPU (default: one, on what there is)")
    where.add_argument("--devices", metavar="0,1,...", help="a process at a time on each of these GPUs")
    parser.add_argument("--test", action="store_true", help="then test the best checkpoint of each run on all test images")
    parser.add_argument("--part", metavar="I/N", help="every N-th row from I on, for machines that share a grid (slurm/sweep.sbatch)")
    parser.add_argument("--root", default="runs", metavar="DIR", help="runs go to DIR/<grid>/<group>/<config>/seed_<n>/<k> (default: runs)")
    parser.add_argument("--print", action="store_true", help="print the commands that are left to run, and run nothing")
    return parser
