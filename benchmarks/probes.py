"""What the gradient probes cost: together against the dearest alone, and against training.

    python benchmarks/probes.py [--repetitions 5] [--out benchmarks/results/probes.json]

SEW-ResNet18, T=10, batches of 16 images of 32x32, float32. Repetitions are interleaved; figures are medians with the range.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.callbacks import GradientSparsity, PassProbe, ProbeContext, SparsityOrigin, SurrogateSaturation
from snn_sparsity.callbacks.probe import undisturbed
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.networks import SEWResNet

BATCH = 16
EPOCH_IMAGES, PROBED_IMAGES = 10_000, 1_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    arms = make_arms()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for repetition in range(given.repetitions + 1):
        for name, arm in arms.items():
            began = time.perf_counter()
            arm()
            # The first round warms up.
            if repetition:
                seconds[name].append(time.perf_counter() - began)
    result = summary(seconds)
    print(json.dumps(result, indent=2))
    if given.out:
        given.out.write_text(json.dumps(result, indent=2) + "\n")


def make_arms() -> dict[str, Callable[[], object]]:
    """Return what is timed: a training step, each probe on a batch, and all three."""
    torch.manual_seed(0)
    classifier = SpikingClassifier(SEWResNet())
    optimizer = classifier.configure_optimizers()
    images, labels = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8), torch.randint(0, 10, (BATCH,))
    batch = SpikeBatch(PhaseEncoder()(images), labels, images)

    def train() -> None:
        classifier.train()
        optimizer.zero_grad()
        F.cross_entropy(classifier(batch.spikes), labels).backward()
        optimizer.step()

    def measure(*probes: PassProbe) -> None:
        with undisturbed(classifier):
            for probe in probes:
                probe.measure(ProbeContext(classifier, None, torch.Generator(), 0, probes), batch.clone())

    probes = {"sparsity": GradientSparsity(), "origin": SparsityOrigin(), "surrogate": SurrogateSaturation()}
    arms: dict[str, Callable[[], object]] = {"training step": train}
    for name, probe in probes.items():
        arms[name] = lambda probe=probe: measure(probe)
    arms["all three"] = lambda: measure(*probes.values())
    return arms


def summary(seconds: dict[str, list[float]]) -> dict[str, object]:
    """Return medians, ranges and the two ratios of the issue."""
    median = {name: statistics.median(values) for name, values in seconds.items()}
    dearest = max(median[name] for name in ("sparsity", "origin", "surrogate"))
    epoch = median["training step"] * EPOCH_IMAGES / PROBED_IMAGES
    machine = {"processor": platform.processor() or platform.machine(), "threads": torch.get_num_threads(), "torch": str(torch.__version__)}
    return {
        "machine": machine,
        "batch": BATCH,
        "seconds": {name: {"median": median[name], "min": min(values), "max": max(values)} for name, values in seconds.items()},
        "three together / dearest alone": median["all three"] / dearest,
        f"sparsity on {PROBED_IMAGES} images / training epoch of {EPOCH_IMAGES}": median["sparsity"] / epoch,
        f"all three on {PROBED_IMAGES} images / training epoch of {EPOCH_IMAGES}": median["all three"] / epoch,
    }


if __name__ == "__main__":
    main()
