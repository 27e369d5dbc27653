"""What is timed: launches, the benchmark against a plain loop, CUDA graphs, and an epoch."""

import copy
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from lightning import Callback, Trainer
from scipy import stats

from benchmarks.baseline import Loop
from benchmarks.gpu_proof.claims import Claim, Place, judged, measured, not_run
from benchmarks.gpu_proof.images import NoiseImages
from benchmarks.ours import Project
from benchmarks.work import EPS, STEP_LENGTH, Work
from snn_sparsity.attacks import PGD
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.networks import SEWResNet
from snn_sparsity.networks.gpu import settle_kernels
from snn_sparsity.networks.replay import Replayed
from snn_sparsity.numerics import settle_numerics
from snn_sparsity.training.cuda_graphs import CUDAGraphs
from snn_sparsity.training.finite_check import FiniteCheck

PAPER_EPOCHS, PAPER_STEPS, PAPER_BATCH = 100, 3125, 16
ALONE = "run it again on a GPU that nothing else uses; docs/performance.md says what each number is made of"


def _work(place: Place) -> Work:
    return Work(device="cuda", batches=(16, 64, 128), attack_batch=64) if place.gpu else Work(batches=(2,), attack_batch=2, time_steps=2)


def _wait(place: Place) -> None:
    if place.gpu:
        torch.cuda.synchronize()


def _seconds(place: Place, act: Callable[[], object]) -> float:
    _wait(place)
    began = time.perf_counter()
    act()
    _wait(place)
    return time.perf_counter() - began


def _told(times: list[float]) -> str:
    return f"{1e3 * statistics.median(times):.2f} ms ({1e3 * min(times):.2f}-{1e3 * max(times):.2f}, n={len(times)})"


# Launches -----------------------------------------------------------------------------------------------------------------


def launches(place: Place) -> Iterator[Claim]:
    """Count the kernels that a training step and a step of an attack launch."""
    settle_kernels(torch.device(place.device))
    work = _work(place)
    ours, plain = Project(work), Loop(work)
    batch = ours.batch(work.batches[0])
    target, x = SpikeTarget(ours.classifier, "batch"), batch.spikes.transpose(0, 1).contiguous()
    steps: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "training step": (partial(ours.train_step, batch), partial(plain.train_step, batch.spikes, batch.labels)),
        "attack step": (
            partial(PGD(eps=EPS, alpha=STEP_LENGTH, steps=1, keep="last"), target, x, batch.labels),
            partial(plain._ascend, batch.spikes, batch.spikes, batch.labels, STEP_LENGTH, 1),
        ),
    }
    for name, (step, plain_step) in steps.items():
        count, busy = _launches(place, step)
        plain_count, plain_busy = _launches(place, plain_step)
        found = f"{count:.0f} launches, {busy:.2f} ms of the GPU; plain SpikingJelly {plain_count:.0f}, {plain_busy:.2f} ms"
        if not place.gpu:
            found = f"{count:.0f} operations; plain SpikingJelly {plain_count:.0f}"
        remedy = "torch.profiler's table of the step names the operations; the tap and sparse forms must run on the CPU only"
        # SpikingJelly's own optimiser is not fused: a twentieth more is no fault of a form.
        yield judged(
            f"launches, {name}, batch {work.batches[0]}", "on a GPU no more than a plain loop's, within 5 %", found,
            not place.gpu or count <= 1.05 * plain_count, remedy, launches=count, plain=plain_count, ms=busy, plain_ms=plain_busy,
        )  # fmt: skip


def _launches(place: Place, step: Callable[[], object], repetitions: int = 3) -> tuple[float, float]:
    """Return launches and milliseconds of the GPU a step; without one, operations of the host."""
    step()
    step()
    _wait(place)
    with torch.profiler.profile() as watch:
        for _ in range(repetitions):
            step()
        _wait(place)
    events = watch.key_averages()
    if not place.gpu:
        return sum(event.count for event in events) / repetitions, 0.0
    count = sum(event.count for event in events if "LaunchKernel" in event.key)
    # An operation of the host and the kernels that it launches both have the kernels' time.
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(float(event.self_device_time_total) for event in kernels)
    return count / repetitions, busy / repetitions / 1e3


# The benchmark ------------------------------------------------------------------------------------------------------------

TARGETS = {"training step": 1.0, "FGSM + PGD-7": 1.0, "clean evaluation": 1.0}
"""Times as fast as the plain loop, in the same precision: what is claimed until it has been measured."""


def bench(place: Place) -> Iterator[Claim]:
    """Time training, attack and evaluation against the plain loop, at each batch and precision, with peak memory."""
    settle_kernels(torch.device(place.device))
    work = _work(place)
    ours, plain = Project(work), Loop(work)
    precisions = ("float32", "TF32", "bf16") if place.gpu else ("float32",)
    for precision in precisions:
        for size in work.batches:
            batch = ours.batch(size)
            pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
                "training step": (partial(ours.train_step, batch), partial(plain.train_step, batch.spikes, batch.labels)),
                "clean evaluation": (partial(ours.evaluate, batch), partial(plain.evaluate, batch.spikes, batch.labels)),
                "FGSM + PGD-7": (partial(ours.attack, batch), partial(plain.attack, batch.spikes, batch.labels)),
            }
            for name, sides in pairs.items():
                yield _raced(place, name, size, precision, sides)
    settle_numerics()


def _raced(place: Place, name: str, size: int, precision: str, sides: tuple[Callable[[], object], Callable[[], object]]) -> Claim:
    """Time both by turns, and say how many times as fast ours is: the median of the pairs with its 95 % interval."""
    settle_numerics(precision == "TF32")
    pairs, warm = ((6, 1) if name.startswith("FGSM") else (10, 3)) if place.gpu else (1, 0)
    label = f"{name}, batch {size}, {precision}"
    try:
        with _autocast(place, precision):
            peaks = [_peak(place, act, warm) for act in sides]
            turns = [[_seconds(place, act) for act in sides] for _ in range(pairs)]
    except Exception as error:  # noqa: BLE001  # one precision that fails must not hide the others
        return judged(label, "runs", f"{type(error).__name__}: {error}"[:300], False, "train in float32 or TF32")
    ours, plain = map(list, zip(*turns, strict=True))
    faster = Ratio.of([theirs / own for own, theirs in turns])
    found = f"{_told(ours)}; plain SpikingJelly {_told(plain)}: {faster} times as fast; {peaks[0]:.0f} MiB against {peaks[1]:.0f}"
    numbers = {"ours": ours, "plain": plain, "faster": list(faster), "peak_mib": peaks}
    if not place.gpu:
        return measured(label, found, **numbers)
    holds = faster.high >= TARGETS[name]
    return judged(label, f"no slower than {TARGETS[name]:g} times a plain loop: the interval reaches it", found, holds, ALONE, **numbers)


class Ratio(NamedTuple):
    """The median of some ratios and its 95 % interval, between two of them; infinitely wide where there are fewer than six."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, ratios: list[float]) -> "Ratio":
        """Count it out.

        Example:
            >>> print(Ratio.of([1.0, 1.1, 1.2, 1.3, 1.4, 1.5]))
            1.25 [1.00, 1.50]
        """
        interval = stats.quantile_test(ratios).confidence_interval(0.95)
        bounds = (-math.inf if math.isnan(interval.low) else interval.low, math.inf if math.isnan(interval.high) else interval.high)
        return cls(statistics.median(ratios), *map(float, bounds))

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def _peak(place: Place, act: Callable[[], object], warm: int) -> float:
    """Return the MiB that it takes beyond what is there, while it warms up."""
    if place.gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if place.gpu else 0
    for _ in range(warm):
        act()
    _wait(place)
    return (torch.cuda.max_memory_allocated() - before) / 2**20 if place.gpu else 0.0


def _autocast(place: Place, precision: str) -> AbstractContextManager[Any]:
    return torch.autocast(place.device, torch.bfloat16) if precision == "bf16" else nullcontext()


# CUDA graphs --------------------------------------------------------------------------------------------------------------


GRAPH_STEPS = 20


def graphs(place: Place) -> Iterator[Claim]:
    """Train twenty steps eagerly and through a captured graph: equal losses, and the time of a step of each."""
    name = "CUDA graph of the network"
    if not place.gpu:
        yield not_run(name, "there is no GPU", excused=True)
        return
    settle_numerics()
    settle_kernels(torch.device("cuda"))
    work = _work(place)
    project = Project(work)
    batches = [project.batch(work.batches[0])._replace(labels=torch.randint(0, 10, (work.batches[0],), device="cuda")) for _ in range(4)]
    for deterministic in (True, False):
        torch.backends.cudnn.deterministic = deterministic
        try:
            eager, eager_times = _train(project, batches, graphed=False)
            graphed, graphed_times = _train(project, batches, graphed=True)
        except Exception as error:  # noqa: BLE001  # whatever cannot be captured, with its reason
            yield judged(name, "can be captured", f"{type(error).__name__}: {error}"[:600], False, "train without the callback CUDAGraphs")
            return
        apart = max(abs(a - b) for a, b in zip(eager, graphed, strict=True))
        faster = statistics.median(eager_times) / statistics.median(graphed_times)
        found = (
            f"{GRAPH_STEPS} steps: losses {apart:.1e} apart at most (first {abs(eager[0] - graphed[0]):.1e}); "
            f"a step eager {_told(eager_times)}, graphed {_told(graphed_times)}: {faster:.2f} times as fast"
        )
        numbers = {"eager": eager, "graphed": graphed, "eager_s": eager_times, "graphed_s": graphed_times, "faster": faster}
        if deterministic:
            yield judged(f"{name}, deterministic", "equal losses", found, apart == 0, "train without the callback CUDAGraphs", **numbers)
        else:
            yield measured(f"{name}, by default", found, **numbers)
    yield from _graphed_attacks(place, project, batches)


def _train(project: Project, batches: list[Any], graphed: bool) -> tuple[list[float], list[float]]:
    """Return the losses of twenty steps, and the seconds of each."""
    classifier = copy.deepcopy(project.classifier).train()
    optimizer: Any = classifier.configure_optimizers()
    if graphed:
        classifier.replayed = Replayed(classifier.network)
    losses, times = [], []
    for step in range(GRAPH_STEPS):
        batch = batches[step % len(batches)]
        torch.cuda.synchronize()
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(classifier(batch.spikes), batch.labels)
        loss.backward()
        optimizer.step()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
        losses.append(float(loss))
    return losses, times[3:]


def _graphed_attacks(place: Place, project: Project, batches: list[Any]) -> Iterator[Claim]:
    """Attack batches eagerly and through captured graphs: equal results, and the time of each."""
    for batch_norm in ("eval", "batch"):
        name = f"CUDA graph of PGD-7's passes, BatchNorm {batch_norm}"
        eager = copy.deepcopy(project.classifier).eval()
        graphed = copy.deepcopy(eager)
        graphed.replayed = Replayed(graphed.network)
        torch.backends.cudnn.deterministic = True
        try:
            apart = max(
                float((_attacked(eager, batch, batch_norm) - _attacked(graphed, batch, batch_norm)).abs().max()) for batch in batches
            )
            torch.backends.cudnn.deterministic = False
            _attacked(graphed, batches[0], batch_norm)
            turns = [[_seconds(place, partial(_attacked, model, batches[0], batch_norm)) for model in (eager, graphed)] for _ in range(10)]
        except Exception as error:  # noqa: BLE001  # whatever cannot be captured, with its reason
            yield judged(name, "can be captured", f"{type(error).__name__}: {error}"[:600], False, "leave the callback CUDAGraphs out")
            continue
        eager_times, graphed_times = map(list, zip(*turns, strict=True))
        faster = Ratio.of([slow / fast for slow, fast in turns])
        found = (
            f"{len(batches)} batches of {len(batches[0].labels)}, each behind a target of its own: results {apart:.1e} apart at most with "
            f"deterministic kernels; by default eager {_told(eager_times)}, graphed {_told(graphed_times)}: {faster} times as fast"
        )
        numbers = {"eager_s": eager_times, "graphed_s": graphed_times, "faster": list(faster)}
        yield judged(name, "equal results", found, apart == 0, "leave the callback CUDAGraphs out", **numbers)


def _attacked(classifier: SpikingClassifier, batch: Any, batch_norm: Any) -> torch.Tensor:
    target, x = SpikeTarget(classifier, batch_norm), batch.spikes.transpose(0, 1).contiguous()
    return PGD(eps=EPS, alpha=STEP_LENGTH, steps=7, keep="last")(target, x, batch.labels, torch.Generator().manual_seed(0))


# An epoch -----------------------------------------------------------------------------------------------------------------


class Beats(Callback):
    """When each training step began, without waiting for the GPU but at the first and last that count."""

    def __init__(self, place: Place, first: int, last: int) -> None:
        self.place, self.bounds, self.at = place, (first, last), dict[int, float]()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note it."""
        if batch_idx in self.bounds:
            _wait(self.place)
            self.at[batch_idx] = time.perf_counter()


def epoch(place: Place) -> Iterator[Claim]:
    """Time steps of the paper's training within ``fit`` and in a bare loop, and say what 100 epochs would take."""
    settle_numerics()
    settle_kernels(torch.device(place.device))
    batch, warm, steps = (PAPER_BATCH, 10, 60) if place.gpu else (2, 1, 2)
    data = NoiseImages(images=batch * (warm + steps + 1), batch_size=batch, validation="test")
    classifier = SpikingClassifier(SEWResNet(depth=18, num_classes=10))
    within = _within_fit(place, classifier, data, warm, steps, [])
    bare = _bare(place, classifier.to(place.device), data, batch, warm, steps)
    hours = PAPER_EPOCHS * PAPER_STEPS * within / 3600
    found = (
        f"{1e3 * within:.2f} ms a step of {batch} images within fit, {1e3 * bare:.2f} ms in a bare loop (n={steps}): "
        f"Lightning and the checks add {100 * (within / bare - 1):.0f} %; "
        f"100 epochs of {PAPER_STEPS} steps: {hours:.2f} h without validation and probes"
    )
    numbers = {"fit_s": within, "bare_s": bare, "hours_of_100_epochs": hours}
    if not place.gpu:
        yield measured("an epoch of SEW-ResNet18, times 100", found, **numbers)
        return
    remedy = "`host synchronisations` and `launches` say what a step waits for"
    yield judged(
        "an epoch of SEW-ResNet18, times 100", "Lightning and the checks add at most 30 %", found, within <= 1.3 * bare, remedy, **numbers
    )
    # Last: what cannot be captured must not hide the numbers above.
    replayed = _within_fit(place, classifier, data, warm, steps, [CUDAGraphs()])
    hours = PAPER_EPOCHS * PAPER_STEPS * replayed / 3600
    found = f"{1e3 * replayed:.2f} ms a step within fit, {within / replayed:.2f} times as fast as without; 100 epochs: {hours:.2f} h"
    yield measured("the same with the callback CUDAGraphs", found, fit_s=replayed, hours_of_100_epochs=hours)


def _within_fit(place: Place, classifier: SpikingClassifier, data: NoiseImages, warm: int, steps: int, callbacks: list[Callback]) -> float:
    """Return the seconds of a step within ``fit``."""
    beats = Beats(place, warm, warm + steps)
    trainer = Trainer(
        max_epochs=1, accelerator="gpu" if place.gpu else "cpu", devices=1, callbacks=[FiniteCheck(), beats, *callbacks], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
    )  # fmt: skip
    trainer.fit(classifier, datamodule=data)
    first, last = (at for _, at in sorted(beats.at.items()))
    return (last - first) / steps


def _bare(place: Place, classifier: SpikingClassifier, data: NoiseImages, batch: int, warm: int, steps: int) -> float:
    """Return the seconds of a step without Lightning: gather, encode, forward, backward, optimiser."""
    images, labels = (part.to(place.device) for part in data.split("train"))
    encoder, optimizer = data.spike_encoder.to(place.device), classifier.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Optimizer)
    classifier.train()
    places = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).to(place.device).split(batch)
    at = []
    for number in range(warm + steps):
        if number == warm:
            _wait(place)
            at.append(time.perf_counter())
        optimizer.zero_grad()
        chosen = places[number]
        F.cross_entropy(classifier(encoder(images[chosen])), labels[chosen]).backward()
        optimizer.step()
    _wait(place)
    at.append(time.perf_counter())
    return next(after - before for before, after in pairwise(at)) / steps
