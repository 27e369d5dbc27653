"""The tables of what was measured: ``python -m benchmarks.table benchmarks/results/cpu.json [docs/performance.md]``.

Printed; a page that is named gets them between its two marks instead.
"""

import json
import sys
from pathlib import Path
from typing import Any

TARGETS = {
    "cpu": {
        "training step, batch 16": 3.8,
        "training step, batch 64": 3.8,
        "FGSM + PGD-7": 5.0,
        "clean evaluation": 4.5,
        "input pipeline": 10.0,
        "epoch": 3.8,
        "epoch, worn": 2.0,
    },
    "cuda": {"training step, batch 16": 8.0, "training step, batch 256": 3.0, "FGSM + PGD-7": 5.0, "epoch": 6.0},
}
START_UP_TARGETS = {"--help": 2.0, "predict --help": 0.5, "audit --help": 0.5, "fit --print_config": 5.0}
FLOOR_TARGET = 1
PROBED, PROBE_TARGET = 48, 0.1
PROBE_IMAGES, TRAIN_IMAGES = 1_000, 50_000
DEFAULT_PROBES = {"sparsity": 1, "fgsm": 1, "pgd": 1, "codebook": 5}
"""Those of configs/paper.yaml: measured every so many epochs."""
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def markdown(result: dict[str, Any]) -> str:
    """Return all tables of a result.

    Args:
        result: What ``benchmarks.run`` writes.

    Returns:
        Markdown; parts that were not measured are left out.
    """
    parts = (about, against_the_baseline, against_the_published_loop, floors, densities, costs, profile, probes, memory, growth, start_up)
    texts = (part(result) for part in parts)
    return "\n\n".join(text for text in texts if text) + "\n"


def refreshed(page: str, tables: str) -> str:
    """Return a page with these tables between its marks."""
    before, rest = page.split(BEGIN)
    return before + BEGIN + tables + END + rest.split(END)[1]


def about(result: dict[str, Any]) -> str:
    """Say where this was measured."""
    machine, work = result["machine"], result["work"]
    limit = f", limited to {machine['limit']}" if machine.get("limit") else ""
    place = machine["gpu"] or f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['instructions'])}{limit})"
    return (
        f"Measured on {place}, {machine['threads']} threads, torch {machine['torch']}, load {machine['load before']:.1f} before the run. "
        f"SEW-ResNet{work['depth']}, T={work['time_steps']}, random images of 32x32, float32; attacks and evaluation on "
        f"{work['attack_batch']} images at a time; the epoch is the paper's divided by {work['scale']}: "
        f"{work['epoch_train']} training images and {work['epoch_test']} test images, evaluated and attacked. Medians (range)."
    )


def against_the_baseline(result: dict[str, Any]) -> str:
    """Return what both sides did."""
    targets = TARGETS[result["work"]["device"]]
    rows = [
        [arm, _seconds(sides["baseline"]), _seconds(sides["ours"]), _ratio(sides), _verdict(_times_faster(sides), targets.get(arm))]
        for arm, sides in result["arms"].items()
        if "baseline" in sides
    ]
    return _table(["work", "plain SpikingJelly, s", "this project, s", "times faster", "target"], rows)


def against_the_published_loop(result: dict[str, Any]) -> str:
    """Return what the published loop did as well."""
    rows = [
        [arm, _seconds(sides["published"]), _seconds(sides["ours"]), _ratio(sides, "published")]
        for arm, sides in result["arms"].items()
        if "published" in sides
    ]
    return _table(["work", "the published loop as it was written, s", "this project, s", "times faster"], rows)


def floors(result: dict[str, Any]) -> str:
    """Return a training step beside what cannot be avoided."""
    arms = result["arms"]
    names = ("training step, batch 16", "floor: convolutions, batch 16", "floor: copy")
    if not all(name in arms for name in names):
        return ""
    step, convolutions, copy = (arms[name]["ours"]["median"] for name in names)
    rest = result["bytes_of_the_rest"] / (result["bytes_copied"] / copy)
    spikes = {name: arms[name]["ours"]["median"] for name in ("floor: convolutions on spikes, batch 16",) if name in arms}
    rows = [
        ["training step, batch 16", f"{step:.3f}", ""],
        ["convolutions and linear layers alone, forward and backward", f"{convolutions:.3f}", f"{step / convolutions:.2f}"],
        *(["the same on lists of spikes", f"{seconds:.3f}", f"{step / seconds:.2f}"] for seconds in spikes.values()),
        [f"all else, {result['bytes_of_the_rest'] / 1e6:.0f} MB at the speed of a copy", f"{rest:.3f}", ""],
        ["both floors", f"{convolutions + rest:.3f}", f"{step / (convolutions + rest):.2f}"],
    ]
    note = f"Target: at most {FLOOR_TARGET} times the convolutions: {'met' if step <= FLOOR_TARGET * convolutions else '**missed**'}."
    return _table(["floor", "s", "step / floor"], rows) + "\n\n" + note


def densities(result: dict[str, Any]) -> str:
    """Return how convolutions on spikes grow with density."""
    arms = {arm.removeprefix("density: "): sides["ours"] for arm, sides in result["arms"].items() if arm.startswith("density: ")}
    dense = result["arms"].get("floor: convolutions, batch 16")
    rows = [[name, _seconds(times), f"{times['median'] / dense['ours']['median']:.2f}" if dense else ""] for name, times in arms.items()]
    return _table(["density of random spikes", "convolutions of a training step, batch 16, s", "of the dense ones"], rows)


def costs(result: dict[str, Any]) -> str:
    """Return what there is to multiply and to move, dense and on spikes."""
    rows = [
        [name, f"{cost['density']:.1%}", *(f"{cost[of] / 1e9:.1f}" for of in ("multiplications", "on_spikes"))]
        + [f"{cost[of] / 1e6:.0f}" for of in ("bytes", "bytes_on_spikes")]
        for name, cost in result.get("costs", {}).items()
    ]
    header = ["convolutions of a training step, batch 16", "density", "multiplications, 1e9", "on spikes, 1e9", "moved, MB", "as lists, MB"]
    return _table(header, rows)


def profile(result: dict[str, Any]) -> str:
    """Return where the time of a training step goes."""
    rows = [[f"`{name}`", f"{share:.1%}"] for name, share in result["profile"].items()]
    return _table(["operation of a training step, batch 16", "its own share"], rows)


def probes(result: dict[str, Any]) -> str:
    """Return what probes cost at their defaults, beside the training of an epoch."""
    arms = {arm.removeprefix("probe "): sides["ours"]["median"] for arm, sides in result["arms"].items() if arm.startswith("probe ")}
    if not arms or "training step, batch 16" not in result["arms"]:
        return ""
    epoch = result["arms"]["training step, batch 16"]["ours"]["median"] / 16 * TRAIN_IMAGES
    rows = [[name, f"{seconds / PROBED * 1e3:.1f}", f"{seconds / PROBED * PROBE_IMAGES / epoch:.1%}"] for name, seconds in arms.items()]
    table = _table(["probe", "ms an image", f"share of an epoch's training ({PROBE_IMAGES} of {TRAIN_IMAGES} images)"], rows)
    if not set(DEFAULT_PROBES) <= set(arms):
        return table
    share = sum(arms[name] / every for name, every in DEFAULT_PROBES.items()) / PROBED * PROBE_IMAGES / epoch
    verdict = "met" if share <= PROBE_TARGET else "**missed**"
    said = f"The default probes, the code book every fifth epoch: **{share:.1%}** of the training. At most {PROBE_TARGET:.0%}: {verdict}."
    return f"{table}\n\n{said}"


def memory(result: dict[str, Any]) -> str:
    """Return peaks."""
    rows = [
        [arm, f"{peak['baseline']:.0f}", f"{peak['ours']:.0f}", "met" if peak["ours"] <= peak["baseline"] else "**missed**"]
        for arm, peak in result["peak_mib"].items()
    ]
    return _table(["peak memory beyond network and data", "plain SpikingJelly, MiB", "this project, MiB", "not above"], rows)


def growth(result: dict[str, Any]) -> str:
    """Return how a training step grows."""
    rows = [[arm.removeprefix("growth: "), _seconds(sides["ours"])] for arm, sides in result["arms"].items() if arm.startswith("growth: ")]
    return _table(["training step of this project (batch 16, T=10, depth 18 unless said), or training on so many images", "s"], rows)


def start_up(result: dict[str, Any]) -> str:
    """Return how long the command line takes."""
    rows = [
        [f"`snn-sparsity {name}`", _seconds(times), _verdict(-times["median"], -START_UP_TARGETS[name])]
        for name, times in result["start_up"].items()
    ]
    return _table(["start-up", "s", "target"], rows)


def _times_faster(sides: dict[str, Any], than: str = "baseline") -> float:
    return float(sides[than]["median"] / sides["ours"]["median"])


def _ratio(sides: dict[str, Any], than: str = "baseline") -> str:
    pairs = [slow / fast for slow, fast in zip(sides[than]["values"], sides["ours"]["values"], strict=True)]
    return f"**{_times_faster(sides, than):.2f}** ({min(pairs):.2f}-{max(pairs):.2f})"


def _seconds(times: dict[str, Any]) -> str:
    return f"{times['median']:.3f} ({times['min']:.3f}-{times['max']:.3f})"


def _verdict(value: float, target: float | None) -> str:
    """Say whether a value reaches a target; negative ones are upper limits."""
    if target is None:
        return ""
    return f"{abs(target):g}: {'met' if value >= target else '**missed**'}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


if __name__ == "__main__":
    tables = markdown(json.loads(Path(sys.argv[1]).read_text()))
    if sys.argv[2:]:
        page = Path(sys.argv[2])
        page.write_text(refreshed(page.read_text(), tables))
    else:
        print(tables, end="")
