"""In what a run is not the paper's, in words that nobody can miss."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean
from typing import Any

from snn_sparsity.reproduction.paper import DATASETS, paper
from snn_sparsity.reproduction.results import Result, SeedGroup


def conditions(group: SeedGroup) -> str:
    """Return in what these runs are not the paper's; empty if in nothing."""
    asked, wanted = group.first.max_epochs, paper()["epochs"]
    said = [f"seed {each.record.seed} FAILED: {each.failure}" for each in group.results if each.failure]
    said += [
        f"UNFINISHED: seed {each.record.seed} after {each.record.epochs} of {each.record.max_epochs} epochs"
        for each in group.results
        if not each.failure and not each.finished
    ]
    if asked != wanted:
        said.append(f"{'SHORT' if asked < wanted else 'LONG'}: {asked} epochs, the paper {wanted}")
    if group.first.dataset in DATASETS:
        said += _images(group)
        if others := list(_other_settings(group.results[0])):
            said.append(f"OTHER SETTINGS: {'; '.join(others)}")
    return "; ".join(said)


def _images(group: SeedGroup) -> Iterator[str]:
    wanted, attacked = paper()["images"], _fewest(each.attacked_images for each in group.results)
    counts = (
        (_fewest(each.record.images("train") for each in group.results), wanted["train"], "trained on"),
        (_fewest(each.clean_images for each in group.results), wanted["test"], "judged"),
        *([(attacked, wanted["test"], "attacked")] if group.attacks else []),
    )
    fewer = [
        f"{'an unknown number' if count is None else f'{count:,}'} of {whole:,} {what}"
        for count, whole, what in counts
        if count is None or count < whole
    ]
    if fewer:
        # Half of the widest 95 % interval of a share, 1.96 / (2 sqrt(n)).
        uncertain = f" (up to ± {98 / math.sqrt(attacked):.0f} points)" if attacked and attacked <= 2500 else ""
        yield f"FEWER IMAGES: {', '.join(fewer)}{uncertain}"
    if not all(each.record.original_pixels for each in group.results):
        yield "OTHER PIXELS: a folder of images (JPEG)"
    found = group.first.recognised
    for what, words in (("jpeg", "JPEG versions"), ("unknown", "not known")):
        if found.get(what):
            yield f"SOME IMAGES: {found[what]:,} of {found['images']:,} are {words}"
    if found.get("test") and (ranges := list(_on_originals(group))):
        low, high = (100 * fmean(ends) for ends in zip(*ranges, strict=True))
        mean = f", the mean of {len(ranges)} seeds" if len(ranges) > 1 else ""
        yield f"clean on original pixels alone: {low:.2f} to {high:.2f} %{mean}, as up to {found['test']} test images are others"


def _fewest(counts: Iterable[int | None]) -> int | None:
    """Return the smallest count; None where one of them is not known."""
    every = list(counts)
    return None if None in every else min(count for count in every if count is not None)


def _on_originals(group: SeedGroup) -> Iterator[tuple[float, float]]:
    for each in group.sound:
        if each.clean is not None and each.clean_images:
            others = int(each.record.recognised.get("test", 0))
            yield on_originals(round(each.clean.value * each.clean_images), each.clean_images, others)


def on_originals(right: int, images: int, others: int) -> tuple[float, float]:
    """Return between what the accuracy on the original images lies, whichever of the others were classified right.

    Args:
        right: Images that were classified right, of all.
        images: All images.
        others: At most so many of them are not original.

    Example:
        >>> on_originals(75, 102, 2)
        (0.73, 0.75)
    """
    originals = max(images - others, 1)
    return max(right - others, 0) / originals, min(right, originals) / originals


def _other_settings(result: Result) -> Iterator[str]:
    record, network = result.record, result.record.network
    found: Mapping[str, Mapping[str, Any]] = {
        "model": record.config["model"],
        "network": network,
        "neuron": network.get("neuron") or {},
        "encoder": record.data.get("encoder") or {},
        "data": {**record.data, "batch_size": record.record.get("effective_batch_size", record.data.get("batch_size"))},
    }
    yield from (f"{name} {value['class']}" for name, value in record.optimisation.items() if isinstance(value, dict))
    for part, settings in paper()["settings"].items():
        for name, said in settings.items():
            wanted = said.get(network["class"]) if isinstance(said, dict) else said
            given = found[part].get(name, wanted)
            if given != wanted:
                yield f"{name} {json.dumps(given)}, the paper {json.dumps(wanted)}"
