"""Time this project against a plain SpikingJelly loop on the same work, in one run.

    python -m benchmarks.run [--device cpu|cuda] [--limit avx2] [--only TEXT] [--repetitions 5] [--out benchmarks/results]

SEW-ResNet18, T=10, random images of 32x32, float32. The sides run in processes of their own and take turns; figures are medians
with the range. Writes DEVICE.json, DEVICE.md and DEVICE.png; ``benchmarks.table`` puts the tables into docs/performance.md.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.figure import draw
from benchmarks.floors import COPIED, bytes_of_the_rest, cost
from benchmarks.ours import Project
from benchmarks.table import markdown
from benchmarks.work import Work
from benchmarks.worker import PEAK, Side, Worker
from snn_sparsity.networks import SEWResNet

DEAR = ("FGSM + PGD-7", "epoch", "probe")
"""Arms that take many seconds are repeated less often and not warmed up."""
CURVES = ("growth", "density", "floor")
"""Arms that are compared with each other are repeated less often."""
PUBLISHED = ("training step, batch 16", "clean evaluation", "epoch")
"""What the published loop does as well."""
DIGITS = ("training step, batch 16", "clean evaluation")
"""What is done on digits, with untrained and with trained weights."""
TRAINED_STEPS = 60
LIMITS = {"avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "CC": "cc -mno-avx512f"}}
"""What makes all that computes do without newer instructions."""
START_UP = {
    "--help": ["--help"],
    "predict --help": ["predict", "--help"],
    "audit --help": ["audit", "--help"],
    "fit --print_config": ["fit", "--config", "demo", "--print_config"],
}
PROFILED = 10
REMEMBERED = ("training step, batch 64", "FGSM + PGD-7")
"""Arms that need more memory than those before them."""

Timings = dict[str, dict[str, list[float]]]
"""Seconds by arm and side."""
Peaks = dict[str, dict[str, float]]
"""MiB by arm and side."""


def main() -> None:
    """Measure, print the tables and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--limit", choices=list(LIMITS), help="newest instructions of the processor that are used")
    parser.add_argument("--only", default="", help="only arms whose name contains this")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    work = Work() if given.device == "cpu" else Work(device="cuda", batches=(16, 64, 256), scale=20)
    began = time.perf_counter()
    # Before a side begins in a process of its own.
    os.environ.update(LIMITS.get(given.limit, {}))
    result = measure(work, given.only, given.repetitions)
    result["machine"]["limit"] = given.limit
    result["minutes"] = (time.perf_counter() - began) / 60
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / "-".join(filter(None, (given.device, given.limit)))
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    draw(result, path.with_suffix(".png"))
    print(markdown(result))


def measure(work: Work, only: str, repetitions: int) -> dict[str, Any]:
    """Return everything that was measured."""
    seconds, peaks = take_turns(work, lambda arm: only in arm, repetitions, published=True)
    if only in "epoch, worn":
        worn, _ = take_turns(work, lambda arm: arm == "epoch", repetitions, worn=True)
        seconds["epoch, worn"] = worn["epoch"]
    costs = {}
    if only in "digits":
        of_digits, costs_of_digits = on_digits(work, repetitions)
        seconds |= of_digits
        costs = {"random images, untrained": cost_of_a_step(Project(work)), **costs_of_digits}
    return {
        "machine": machine(work.device),
        "work": vars(work) | {"epoch_train": work.epoch_train, "epoch_test": work.epoch_test},
        "arms": {arm: {side: summary(times) for side, times in sides.items()} for arm, sides in seconds.items()},
        "costs": costs,
        "bytes_of_the_rest": traffic(work),
        "bytes_copied": COPIED,
        "profile": profile(work) if not only else {},
        "peak_mib": peaks,
        "start_up": {name: summary(start_up(options)) for name, options in START_UP.items() if not only},
    }


def take_turns(
    work: Work, wanted: Callable[[str], bool], repetitions: int, worn: bool = False, published: bool = False, weights: Path | None = None
) -> tuple[Timings, Peaks]:
    """Time the arms that are wanted, each side in turn; note the peak of memory after those that need more than all before."""
    sides: list[Side] = ["baseline", "published", "ours"] if published else ["baseline", "ours"]
    workers = {side: Worker(side, work, worn, weights) for side in sides}
    seconds: Timings = {}
    peaks: Peaks = {}
    for arm in filter(wanted, workers["ours"].arms):
        dear = arm.startswith(DEAR)
        able = {side: worker for side, worker in workers.items() if arm in (PUBLISHED if side == "published" else worker.arms)}
        seconds[arm] = {side: [] for side in able}
        for number in range(min(repetitions, 3) if dear else 1 + min(repetitions, 3 if arm.startswith(CURVES) else repetitions)):
            for side, worker in able.items():
                taken = worker.ask(arm)
                if dear or number:
                    seconds[arm][side].append(taken)
        if arm in REMEMBERED:
            peaks[arm] = {side: worker.ask(PEAK) for side, worker in workers.items() if side != "published"}
        print(arm, {side: round(statistics.median(times), 4) for side, times in seconds[arm].items()}, file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.close()
    return seconds, peaks


def on_digits(work: Work, repetitions: int) -> tuple[Timings, dict[str, dict[str, float]]]:
    """Time both sides on real images, with untrained weights and with trained ones, and count what a training step costs."""
    work = replace(work, pictures="digits")
    seconds: Timings = {}
    project = Project(work)
    costs = {"digits, untrained": cost_of_a_step(project)}
    project.train_on(TRAINED_STEPS * work.batches[0])
    costs["digits, trained"] = cost_of_a_step(project)
    with TemporaryDirectory() as folder:
        trained = Path(folder) / "weights.pt"
        torch.save(project.network.state_dict(), trained)
        for name, weights in (("untrained", None), ("trained", trained)):
            found, _ = take_turns(work, DIGITS.__contains__, repetitions, weights=weights)
            seconds |= {f"{arm}, digits, {name}": sides for arm, sides in found.items()}
    return seconds, costs


def cost_of_a_step(project: Project) -> dict[str, float]:
    """Return what the convolutions of a training step cost, dense and on spikes."""
    project.classifier.train()
    return cost(project.network, project.batch(project.work.batches[0]).spikes)._asdict()


def traffic(work: Work) -> int:
    """Return what must be moved besides the convolutions, in a training step of the first batch size."""
    network = SEWResNet(depth=18)
    return bytes_of_the_rest(network, torch.zeros(work.time_steps, work.batches[0], 3, 32, 32))


def profile(work: Work, steps: int = 3) -> dict[str, float]:
    """Return the share of each of PyTorch's operations in the time of a training step, the largest first."""
    project = Project(work)
    batch = project.batch(work.batches[0])
    project.train_step(batch)
    with torch.profiler.profile() as watch:
        for _ in range(steps):
            project.train_step(batch)
    name = "self_device_time_total" if work.device == "cuda" else "self_cpu_time_total"
    # Not the kernels themselves, which a GPU lists beside the operations that launch them.
    operations = [event for event in watch.key_averages() if event.device_type == torch.autograd.DeviceType.CPU]
    times = {event.key: float(getattr(event, name)) for event in operations}
    return {key: times[key] / sum(times.values()) for key in sorted(times, key=times.__getitem__, reverse=True)[:PROFILED]}


def start_up(options: list[str], repetitions: int = 3) -> list[float]:
    """Return the seconds that the command line takes to answer."""
    seconds = []
    for _ in range(repetitions):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "snn_sparsity", *options], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - began)
    return seconds


def summary(values: list[float]) -> dict[str, float | list[float]]:
    """Return median, range and all values."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "values": values}


def machine(device: str) -> dict[str, Any]:
    """Describe where this ran."""
    names = [line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    flags = next((line.split(":")[1].split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": [flag for flag in ("avx2", "avx512f", "amx_tile") if flag in flags],
        "load before": os.getloadavg()[0],
        "gpu": torch.cuda.get_device_name() if device == "cuda" else None,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "system": platform.platform(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    main()
