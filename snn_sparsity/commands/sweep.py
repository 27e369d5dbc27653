"""``snn-sparsity sweep``: run a grid of configurations, datasets and seeds, from wherever it was left."""

import os
import re
import shlex
from argparse import Namespace

from snn_sparsity.sweep.grid import GridRow, chosen, part, read_grid
from snn_sparsity.sweep.state import Place, next_command, runs_of, tested
from snn_sparsity.sweep.workers import Sweep
from snn_sparsity.validation import InputError, require_cores, require_number


def run(given: Namespace) -> int:
    """Run the command."""
    if given.jobs is not None:
        require_number("--jobs", given.jobs, at_least=1, whole=True)
        require_cores("--jobs", given.jobs)
    if given.devices is not None and not all(given.devices.split(",")):
        raise InputError(f"--devices {given.devices} is not allowed: give GPUs with commas between, such as 0,1")
    rows = _rows(given)
    device = ("--trainer.accelerator", "cpu") if given.jobs is not None else ("--trainer.devices", "1")
    place = Place(given.root, device, given.data_root, given.test)
    if given.print:
        for row in rows:
            command = next_command(row, place)
            left = [command] if command else []
            if command and place.test and command[0] != "test":
                left.append(tested(next(iter(runs_of(row, place)), place.next_run(row))))
            for words in left:
                print(shlex.join(["snn-sparsity", *words]))
        return 0
    if not rows:
        print("nothing in this part")
        return 0
    # The environment of each process that may run at a time.
    slots: list[dict[str, str]] = [{}]
    if given.devices is not None:
        slots = [{"CUDA_VISIBLE_DEVICES": device} for device in given.devices.split(",")]
    elif given.jobs is not None:
        threads = max(1, (os.cpu_count() or 1) // given.jobs)
        slots = [{"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}] * given.jobs
    return Sweep(rows, place, slots).run()


def _rows(given: Namespace) -> list[GridRow]:
    shorter = []
    for name, options in (("max_epochs", ["--trainer.max_epochs"]), ("samples", ["--data.train_samples", "--data.test_samples"])):
        number = getattr(given, name)
        if number is not None:
            require_number(f"--{name}", number, at_least=1, whole=True)
            shorter += [word for option in options for word in (option, str(number))]
    seeds = given.seeds.split(",")
    if not all(re.fullmatch(r"\d{1,10}", word) for word in seeds):
        raise InputError(f"--seeds {given.seeds} is not allowed: give whole numbers with commas between, such as 3407,1,2")
    rows = chosen(read_grid(given.grid, list(dict.fromkeys(map(int, seeds))), [*shorter, *given.more]), given.only)
    return part(rows, given.part) if given.part else rows
