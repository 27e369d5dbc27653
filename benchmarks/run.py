"""Time this project against a plain SpikingJelly loop on the same work, in one run.

    python -m benchmarks.run [--device cpu|cuda] [--only TEXT] [--repetitions 5] [--out benchmarks/results]

SEW-ResNet18, T=10, random images of 32x32, float32. The two sides run in processes of their own and take turns; figures are medians
with the range. Writes DEVICE.json, DEVICE.md (the tables of docs/performance.md) and DEVICE.png.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.figure import draw
from benchmarks.floors import COPIED, bytes_of_the_rest
from benchmarks.ours import Project
from benchmarks.table import markdown
from benchmarks.work import Work
from benchmarks.worker import PEAK, Worker
from snn_sparsity.networks import SEWResNet

DEAR = ("FGSM + PGD-7", "epoch", "probe")
"""Arms that take many seconds are repeated less often and not warmed up."""
START_UP = {"--help": ["--help"], "fit --print_config": ["fit", "--config", "demo", "--print_config"]}
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
    parser.add_argument("--only", default="", help="only arms whose name contains this")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    work = Work() if given.device == "cpu" else Work(device="cuda", batches=(16, 64, 256), scale=20)
    began = time.perf_counter()
    result = measure(work, given.only, given.repetitions)
    result["minutes"] = (time.perf_counter() - began) / 60
    given.out.mkdir(parents=True, exist_ok=True)
    path = given.out / given.device
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(result))
    draw(result, path.with_suffix(".png"))
    print(markdown(result))


def measure(work: Work, only: str, repetitions: int) -> dict[str, Any]:
    """Return everything that was measured."""
    seconds, peaks = take_turns(work, only, repetitions)
    if only in "epoch, worn":
        worn, _ = take_turns(work, "epoch", repetitions, worn=True)
        seconds["epoch, worn"] = worn["epoch"]
    return {
        "machine": machine(work.device),
        "work": vars(work) | {"epoch_train": work.epoch_train, "epoch_test": work.epoch_test},
        "arms": {arm: {side: summary(times) for side, times in sides.items()} for arm, sides in seconds.items()},
        "bytes_of_the_rest": traffic(work),
        "bytes_copied": COPIED,
        "profile": profile(work) if not only else {},
        "peak_mib": peaks,
        "start_up": {name: summary(start_up(options)) for name, options in START_UP.items() if not only},
    }


def take_turns(work: Work, only: str, repetitions: int, worn: bool = False) -> tuple[Timings, Peaks]:
    """Time the arms whose names contain ``only``, each side in turn; note the peak of memory after those that need more than all before."""
    workers = {"baseline": Worker("baseline", work, worn), "ours": Worker("ours", work, worn)}
    seconds: Timings = {}
    peaks: Peaks = {}
    for arm in workers["ours"].arms:
        if only not in arm:
            continue
        dear = arm.startswith(DEAR)
        able = {side: worker for side, worker in workers.items() if arm in worker.arms}
        seconds[arm] = {side: [] for side in able}
        for number in range(min(repetitions, 3) if dear else repetitions + 1):
            for side, worker in able.items():
                taken = worker.ask(arm)
                if dear or number:
                    seconds[arm][side].append(taken)
        if arm in REMEMBERED:
            peaks[arm] = {side: worker.ask(PEAK) for side, worker in workers.items()}
        print(arm, {side: round(statistics.median(times), 4) for side, times in seconds[arm].items()}, file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.close()
    return seconds, peaks


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
