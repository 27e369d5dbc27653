"""Whole runs of the command line: determinism, resume, ranks, precision, and who waits for the GPU."""

import os
import re
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from scipy import stats

from benchmarks.gpu_proof.claims import Claim, Place, judged, measured, not_run
from snn_sparsity.runs.metrics import read_numbers

PATIENCE = 150
"""Seconds after which a run counts as hanging; the part is killed before, on a GPU."""


def _small(place: Place, folder: str, *more: str) -> list[str]:
    """Return a fit of digits with every default attack on a GPU, tiny and without any on a CPU."""
    sizes = ("320", "64", "10", "16") if place.gpu else ("16", "4", "2", "8")
    names = ("--data.train_samples", "--data.test_samples", "--data.encoder.num_steps", "--data.batch_size")
    few = [word for probe in ("fgsm", "pgd", "codebook", "sparsity") for word in (f"--probes.{probe}.max_samples", "32")]
    return [
        *("fit", "--data", "DigitsDataModule", "--data.validation", "test", "--data.encoder", "PhaseEncoder"),
        *(word for pair in zip(names, sizes, strict=True) for word in pair),
        *(few if place.gpu else ["--probes", "null"]),
        *("--trainer.max_epochs", "2", "--trainer.log_every_n_steps", "1", "--trainer.enable_progress_bar", "false"),
        *_on(place), "--trainer.default_root_dir", str(place.scratch / folder), *more,
    ]  # fmt: skip


def _on(place: Place) -> list[str]:
    return ["--trainer.accelerator", "gpu" if place.gpu else "cpu", "--trainer.devices", "1"]


class Run:
    """A command in a process of its own, begun at once."""

    def __init__(self, module: str, arguments: Sequence[str], log: Path) -> None:
        self.log = log
        with log.open("w") as file:
            self.process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=file, stderr=subprocess.STDOUT)

    def end(self) -> int:
        """Return its exit code when it has ended."""
        return self.process.wait(PATIENCE)

    @property
    def last(self) -> str:
        """The last line it said."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][-400:] if lines else "nothing said"


def repeated(place: Place) -> Iterator[Claim]:
    """Run the same seed twice, and once killed and resumed; where an operation has no deterministic form, with a warning of it."""
    usual = {name: _fit(place, name) for name in ("default one", "default other")} if place.gpu else {}
    for mode in ("true", "warn"):
        names = [f"{mode} {which}" for which in ("one", "other", "killed")]
        failed = yield from _repeated(place, mode, *names)
        if not failed:
            break
    if usual and all(run.end() == 0 for run in usual.values()):
        found = _equal(place, "", *usual, "")
        yield measured("the same seed twice, by default (cuDNN may sum in any order)", found.found, **found.numbers)


def _repeated(place: Place, mode: str, one: str, other: str, killed: str) -> Generator[Claim, None, bool]:
    """Try a way to be deterministic; return whether a run failed in it."""
    way = ["--trainer.deterministic", mode]
    runs = {name: _fit(place, name, *way) for name in (one, other)}
    dying = Run("benchmarks.gpu_proof.killed", ["30" if place.gpu else "3", *_small(place, killed, *way)], place.scratch / f"{killed}.log")
    codes = {name: run.end() for name, run in runs.items()} | {killed: dying.end()}
    name, remedy = (
        f"the same seed twice, trainer.deterministic={mode}",
        "the line names what has no deterministic form on this GPU: give `warn`",
    )
    if codes[one] or codes[other]:
        yield judged(name, "equal weights and rows", f"exit codes {codes}; {runs[one].last}", False, remedy)
        return True
    yield _equal(place, name, one, other, remedy)
    resumed = _fit(place, killed, *way, "--resume")
    code = resumed.end()
    name, remedy = "killed in the second epoch and resumed", "compare the logs of both; docs/resume.md says what is restored"
    if code or codes[killed] != -signal.SIGKILL:
        told = f"killed: {codes[killed]} (-9 is right), resumed: {code}; {dying.last}; {resumed.last}"
        yield judged(name, "the bytes of a run never killed", told, False, remedy)
    else:
        yield _equal(place, name, one, killed, remedy)
    return False


def _fit(place: Place, folder: str, *more: str) -> Run:
    log = place.scratch / f"{folder}{'-resumed' if '--resume' in more else ''}.log"
    return Run("snn_sparsity", _small(place, folder, *more), log)


def _equal(place: Place, name: str, one: str, other: str, remedy: str) -> Claim:
    """Compare weights, optimiser and rows of two runs."""
    (first, rows), (second, other_rows) = (_left(place.scratch / folder) for folder in (one, other))
    far = {
        key: float((first[key].double() - second[key].double()).abs().max()) for key in first if not torch.equal(first[key], second[key])
    }
    different = [f"{a} | {b}" for a, b in zip(rows, other_rows, strict=False) if a != b]
    holds = not far and rows == other_rows and first.keys() == second.keys()
    found = (
        f"{len(first)} tensors: {len(far)} differ, by {max(far.values(), default=0):.1e} at most; {len(rows)} and {len(other_rows)} rows"
    )
    found += f": {len(different)} differ, the first: {different[0]}" if different else ""
    return judged(name, "equal weights, optimiser and rows", found, holds, remedy, tensors=len(first), apart=max(far.values(), default=0.0))


def _left(folder: Path) -> tuple[dict[str, torch.Tensor], list[str]]:
    (checkpoint,) = folder.glob("**/last.ckpt")
    kept: Any = torch.load(checkpoint, map_location="cpu", weights_only=True)
    moments = {
        f"optimiser {number}.{name}": torch.as_tensor(value)
        for number, state in kept["optimizer_states"][0]["state"].items()
        for name, value in state.items()
    }
    lines = (checkpoint.parent / "metrics.csv").read_text().splitlines()
    return kept["state_dict"] | moments, [line for line in lines if ",time/" not in line]


def ranks(place: Place) -> Iterator[Claim]:
    """Train with one process, and with two on one device, over gloo."""
    files = {count: place.scratch / f"{count}.pt" for count in (1, 2)}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        os.environ |= {"MASTER_PORT": str(probe.getsockname()[1]), "GLOO_SOCKET_IFNAME": "lo"}
    runs = {
        count: Run("benchmarks.gpu_proof.ranks", [place.device, str(count), str(file)], place.scratch / f"ranks{count}.log")
        for count, file in files.items()
    }
    codes = {count: run.end() for count, run in runs.items()}
    name = f"two ranks on one {'GPU' if place.gpu else 'CPU'} (gloo)"
    remedy = "a machine with two GPUs and NCCL is the real test (docs/cluster.md); here the log of the ranks says what gloo cannot do"
    if any(codes.values()):
        failed = next(count for count, code in codes.items() if code)
        yield judged(name, "train as one", f"exit codes {codes}: {runs[failed].last}", False, remedy)
        return
    one, two = (torch.load(file, weights_only=True) for file in files.values())
    losses = [abs(a - b) for a, b in zip(one["losses"], two["losses"], strict=True)]
    apart = two["ranks_apart"]
    found = (
        f"{len(losses)} steps: losses {losses[0]:.1e} apart at the first, {max(losses):.1e} at most; "
        f"the ranks' weights are {apart:.1e} apart; "
        f"one process and two {float((one['weights'] - two['weights']).abs().max()):.1e}"
    )
    # One process uses cuDNN's BatchNorm, two our own over both: rounding flips a spike now and then.
    holds = losses[0] < 1e-2 and apart == 0
    yield judged(name, "the first loss within 0.01 of one process, equal weights on both ranks", found, holds, remedy, losses=losses)


SEEDS = (3407, 1, 2)
"""Two runs of one seed differ on a GPU as two seeds do: cuDNN sums in any order."""


def precision(place: Place) -> Iterator[Claim]:
    """Train the demo in float32 and in bf16-mixed, with each seed, side by side."""
    quiet = ["--probes", "null", "--trainer.callbacks", "null", "--trainer.enable_progress_bar", "false"]
    demo = ["fit", "--config", "demo", *quiet, *_on(place)]
    sizes = ["--trainer.max_epochs", "3"]
    if not place.gpu:
        tiny = {"max_epochs": "1", "limit_train_batches": "2", "limit_val_batches": "1"}
        sizes = [word for name, value in tiny.items() for word in (f"--trainer.{name}", value)]
        sizes += ["--data.encoder.num_steps", "2", "--data.batch_size", "4"]
    runs = {}
    for kind, seed in product(("32-true", "bf16-mixed"), SEEDS if place.gpu else SEEDS[:2]):
        here = place.scratch / f"{kind}-{seed}"
        more = ["--trainer.precision", kind, "--seed_everything", str(seed), "--trainer.default_root_dir", str(here)]
        runs[kind, seed] = Run("snn_sparsity", [*demo, *sizes, *more], place.scratch / f"{here.name}.log"), here
    codes = {key: run.end() for key, (run, _) in runs.items()}
    name = "bf16-mixed on the demo"
    remedy = "train in float32 or TF32 (settle_numerics(True)); the log says which operation has no bf16"
    if any(codes.values()):
        failed = next(key for key, code in codes.items() if code)
        yield judged(name, "trains as well as float32", f"exit codes {codes}: {runs[failed][0].last}", False, remedy)
        return
    exact, half = (
        [_last_accuracy(here) for (kind, _), (_, here) in runs.items() if kind == wanted] for wanted in ("32-true", "bf16-mixed")
    )
    found, holds = compared(half, exact)
    yield judged(name, "no loss seen: the 95 % interval of the difference reaches 0", found, holds, remedy, bf16=half, float32=exact)


def compared(half: Sequence[float], exact: Sequence[float]) -> tuple[str, bool]:
    """Return the difference of two lists of accuracies with its 95 % interval, in words, and whether no loss is seen."""
    interval = stats.ttest_ind(half, exact).confidence_interval(0.95)
    shown = " against ".join(", ".join(f"{accuracy:.1%}" for accuracy in accuracies) for accuracies in (half, exact))
    middle = 100 * (sum(half) / len(half) - sum(exact) / len(exact))
    bounds = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    # Equal accuracies, as tiny runs can have, have no interval.
    return f"clean accuracy {shown} in float32: {middle:+.1f} points {bounds}, a network each", not interval.high < 0


def _last_accuracy(folder: Path) -> float:
    (file,) = folder.glob("**/metrics.csv")
    curve = read_numbers(file)["val/accuracy"]
    return curve[max(curve)].value


FIRST, WATCHED = 10, 50
"""Steps before the first that is watched, and how many are."""


def waits(place: Place) -> Iterator[Claim]:
    """Count where the host waits for the GPU in fifty training steps of the command line."""
    if not place.gpu:
        yield not_run("host synchronisations", "there is no GPU", excused=True)
        return
    from snn_sparsity.classifier import SpikingClassifier
    from snn_sparsity.commands.main import main

    seen: Counter[str] = Counter()
    done = 0
    train = SpikingClassifier.training_step

    def note(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if "called a synchronizing" in str(message):
            seen[_line()] += 1

    def training_step(self: SpikingClassifier, *given: Any, **named: Any) -> Any:
        nonlocal done
        done += 1
        if done == FIRST + 1:
            warnings.simplefilter("always")
            warnings.showwarning = note
            torch.set_warn_always(True)
            torch.cuda.set_sync_debug_mode("warn")
        if done == FIRST + WATCHED + 1:
            torch.cuda.set_sync_debug_mode("default")
        return train(self, *given, **named)

    SpikingClassifier.training_step = training_step  # type: ignore[method-assign]
    run = [
        *("fit", "--data", "DigitsDataModule", "--data.validation", "test", "--probes", "null", "--trainer.max_epochs", "1"),
        *("--trainer.limit_train_batches", str(FIRST + WATCHED + 5), "--trainer.limit_val_batches", "1"), *_on(place),
        *("--trainer.default_root_dir", str(place.scratch)),
    ]  # fmt: skip
    code = main(run)
    found = f"{sum(seen.values())} in {WATCHED} steps (exit code {code}): " + "; ".join(
        f"{count} at {where}" for where, count in seen.most_common(8)
    )
    each_step = [where for where, count in seen.items() if count >= WATCHED // 5]
    holds = code == 0 and done > FIRST + WATCHED and not each_step
    expected = "no line waits at each step: the progress bar twice a second and what is logged each 50 steps may"
    yield judged(
        "host synchronisations",
        expected,
        found,
        holds,
        "the line that is named calls .item(), .cpu() or makes a tensor",
        **{"lines": dict(seen)},
    )


def _line() -> str:
    """Return the innermost lines of this project and of Lightning that are running."""
    frames = [frame for frame in traceback.extract_stack()[:-2] if not re.search(r"benchmarks.gpu_proof|warnings\.py", frame.filename)]
    ours = [frame for frame in frames if "snn_sparsity" in frame.filename or "lightning" in frame.filename]
    return " <- ".join(f"{Path(frame.filename).name}:{frame.lineno} ({frame.line})" for frame in ours[-1:-3:-1]) or "the autograd engine"
