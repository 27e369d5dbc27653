"""In what a run is not the paper's, in words that nobody can miss."""

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from snn_sparsity.reproduction.paper import DATASETS, paper
from snn_sparsity.reproduction.results import Result, SeedGroup


def conditions(group: SeedGroup) -> str:
    """Return in what these runs are not the paper's; empty if in nothing."""
    result = group.results[0]
    said = [*_failures(group), *_length(group)]
    if result.record.dataset in DATASETS:
        said += [*_images(result), *_pixels(result), *_settings(result)]
    return "; ".join(said)


def _failures(group: SeedGroup) -> Iterator[str]:
    for result in group.results:
        if result.failure:
            yield f"seed {result.record.seed} FAILED: {result.failure}"


def _length(group: SeedGroup) -> Iterator[str]:
    for result in group.results:
        record = result.record
        if not result.failure and (record.record.get("status") != "finished" or record.epochs < record.max_epochs):
            yield f"UNFINISHED: seed {record.seed} after {record.epochs} of {record.max_epochs} epochs"
    asked, wanted = group.first.max_epochs, paper()["epochs"]
    if asked != wanted:
        yield f"{'SHORT' if asked < wanted else 'LONG'}: {asked} epochs, the paper {wanted}"


def _images(result: Result) -> Iterator[str]:
    wanted = paper()["images"]
    counts = (
        (result.record.images("train"), wanted["train"], "trained on"),
        (result.clean_images, wanted["test"], "judged"),
        (result.attacked_images, wanted["test"], "attacked"),
    )
    fewer = [f"{_count(count)} of {whole:,} {what}" for count, whole, what in counts if count is None or count < whole]
    if fewer:
        yield f"FEWER IMAGES: {', '.join(fewer)}{_uncertainty(result.attacked_images)}"


def _count(count: int | None) -> str:
    return "an unknown number" if count is None else f"{count:,}"


def _uncertainty(images: int | None) -> str:
    """Return how uncertain a share of so few images is: half of the widest 95 % interval, ``1.96 / (2 sqrt(n))``."""
    return f" (up to ± {98 / math.sqrt(images):.0f} points)" if images and images <= 2500 else ""


def _pixels(result: Result) -> Iterator[str]:
    if not result.record.original_pixels:
        yield "OTHER PIXELS: a folder of images (JPEG)"
    found = result.record.recognised
    for what, words in (("jpeg", "JPEG versions"), ("unknown", "not known")):
        if found.get(what):
            yield f"SOME IMAGES: {found[what]:,} of {found['images']:,} are {words}"


def _settings(result: Result) -> Iterator[str]:
    record, network = result.record, result.record.network
    found: Mapping[str, Mapping[str, Any]] = {
        "model": record.config["model"],
        "network": network,
        "neuron": network.get("neuron") or {},
        "encoder": record.data.get("encoder") or {},
        "data": {**record.data, "batch_size": record.record.get("effective_batch_size", record.data.get("batch_size"))},
    }
    others = [f"{name} {value['class']}" for name, value in record.optimisation.items() if isinstance(value, dict)]
    for part, settings in paper()["settings"].items():
        for name, said in settings.items():
            wanted = said.get(network["class"]) if isinstance(said, dict) else said
            given = found[part].get(name, wanted)
            if given != wanted:
                others.append(f"{name} {_plain(given)}, the paper {_plain(wanted)}")
    if others:
        yield f"OTHER SETTINGS: {'; '.join(others)}"


def _plain(value: Any) -> str:
    return json.dumps(value)
