"""What each run came to: its numbers at its best epoch, whether it failed, and the runs that differ in their seed alone."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from snn_sparsity.measure.names import LOSS, TRAIN_LOSS_EPOCH, accuracy_of
from snn_sparsity.protocols import Protocol
from snn_sparsity.reproduction.attack_settings import AttackSettings, attacks_of, order
from snn_sparsity.runs.metrics import Accuracy, Number
from snn_sparsity.runs.records import Record

SPLITS = {"val": "validation", "test": "test"}
"""The images that a stage judges."""
LOSSES = (TRAIN_LOSS_EPOCH, f"val/{LOSS}", accuracy_of("val"))


@dataclass(frozen=True)
class Result:
    """A run's numbers: of a test of its best checkpoint on all test images, where there is one, else of its best epoch.

    Best is the epoch of the highest clean accuracy, or of the lowest loss, as the run's checkpoint was chosen (``best`` in its
    configuration), among those at which every attack was made. Clean accuracy is that of the fit where this judged more of the test
    images (``validation: test``) than the test did.

    Attributes:
        number: By which the report calls the run, from 1.
        record: The run.
    """

    number: int
    record: Record

    @property
    def mark(self) -> str:
        """``[R1]``: what stands in tables for the run."""
        return f"[R{self.number}]"

    @cached_property
    def attacks(self) -> dict[AttackSettings, str]:
        """The probe of each attack."""
        return {attack: name for name, attack in attacks_of(self._judged).items()}

    @cached_property
    def epoch(self) -> int | None:
        """The best epoch, from 0; None if there is none."""
        # An attack that is not made at every epoch has no say in which one is the best.
        every = [probe for probe in self.attacks.values() if self.tested or self.record.probes[probe].get("every_n_epochs", 1) == 1]
        return self._best(self._judged, self._stage, every)

    @property
    def clean(self) -> Number | None:
        """Clean accuracy, in [0,1]."""
        record, stage, epoch = self._clean
        return None if self.epoch is None or epoch is None else record.metrics[accuracy_of(stage)][epoch]

    def attacked(self, attack: AttackSettings) -> Number | None:
        """Return the accuracy under an attack, in [0,1]; None if it was not made at the best epoch."""
        if self.epoch is None or attack not in self.attacks:
            return None
        return self._judged.metrics.get(accuracy_of(self.attacks[attack]), {}).get(self.epoch)

    @property
    def clean_images(self) -> int | None:
        """Number of images behind the clean accuracy."""
        record, stage, _ = self._clean
        return record.images(SPLITS[stage])

    @property
    def attacked_images(self) -> int | None:
        """Smallest number of images behind the accuracy under an attack."""
        images = self._judged.images(SPLITS[self._stage])
        if images is None or not self.attacks:
            return None
        limits = [None if self.tested else self.record.probes[probe].get("max_samples") for probe in self.attacks.values()]
        return min(images if limit is None else min(int(limit), images) for limit in limits)

    @property
    def tested(self) -> bool:
        """Whether the numbers are those of a test on all test images."""
        return self.record.test is not None and self.record.test.record.get("status") == "finished"

    @cached_property
    def failure(self) -> str:
        """Why the run failed; empty if it did not."""
        names = [*LOSSES, *(accuracy_of(probe) for probe in attacks_of(self.record))]
        broken = [number for name in names for number in self.record.metrics.get(name, {}).values() if not math.isfinite(number.value)]
        if broken:
            first = min(broken, key=lambda number: (number.epoch, number.line))
            return f"{first.name} is {first.value} at epoch {first.epoch} (metrics.csv line {first.line})"
        if self.record.record.get("status") == "failed":
            return str(self.record.record.get("error", "it says no more"))
        return "" if self.clean is not None or self.record.record.get("status") != "finished" else "no epoch has all its numbers"

    @property
    def finished(self) -> bool:
        """Whether the run ended by itself, after all epochs that were asked for."""
        return self.record.record.get("status") == "finished" and self.record.epochs >= self.record.max_epochs

    @property
    def _judged(self) -> Record:
        return self.record.test if self.tested and self.record.test else self.record

    @property
    def _stage(self) -> str:
        return "test" if self.tested else "val"

    @property
    def _clean(self) -> tuple[Record, str, int | None]:
        """Record, stage and epoch of the clean accuracy."""
        of_fit, of_test = self.record.images("validation") or 0, self._judged.images("test") or 0
        # The checkpoint that was tested is that of the best epoch of all.
        best = self._best(self.record, "val", [])
        more = self.tested and self.record.data.get("validation") == "test" and of_fit > of_test and best is not None
        return (self.record, "val", best) if more else (self._judged, self._stage, self.epoch)

    def _best(self, record: Record, stage: str, attacks: Iterable[str]) -> int | None:
        """Return the best epoch among those at which clean accuracy and the attacks were measured."""
        by = str(self.record.config.get("best", "accuracy"))
        judge, sign = record.metrics.get(f"{stage}/{by}", {}), -1 if by == "loss" else 1
        curves = [judge, *(record.metrics.get(accuracy_of(name), {}) for name in (stage, *attacks))]
        # The first of equals, as checkpoints are kept.
        return max(sorted(set.intersection(*map(set, curves))), key=lambda epoch: sign * judge[epoch].value, default=None)


@dataclass(frozen=True)
class SeedGroup:
    """Runs that differ in their seed alone.

    Attributes:
        results: At least one.
    """

    results: Sequence[Result]

    @property
    def first(self) -> Record:
        """The run that speaks for all."""
        return self.results[0].record

    @property
    def trained(self) -> int:
        """Images seen in training: epochs times images."""
        return self.first.epochs * (self.first.images("train") or 0)

    @property
    def sound(self) -> list[Result]:
        """The runs that have numbers and did not fail."""
        return [result for result in self.results if not result.failure and result.clean is not None]

    @property
    def attacks(self) -> list[AttackSettings]:
        """The attacks that were made on these runs."""
        return list(dict.fromkeys(attack for result in self.results for attack in result.attacks))

    @property
    def marks(self) -> str:
        """The marks of the runs."""
        return " ".join(result.mark for result in self.results)

    def accuracy(self, attack: AttackSettings | None) -> Accuracy | None:
        """Return the accuracy under an attack, or without one; None where no run has it."""
        numbers = [result.clean if attack is None else result.attacked(attack) for result in self.sound]
        given = [number for number in numbers if number is not None]
        return Accuracy(given) if given else None

    def cell(self, attack: AttackSettings | None) -> str:
        """Return the accuracy as a table shows it."""
        accuracy = self.accuracy(attack)
        if accuracy is not None:
            return str(accuracy)
        return "FAILED" if all(result.failure for result in self.results) else "-"


def results_of(records: Sequence[Record]) -> list[Result]:
    """Return the results of runs, numbered."""
    return [Result(number, record) for number, record in enumerate(records, 1)]


def groups_of(results: Sequence[Result]) -> list[SeedGroup]:
    """Return the runs by everything but their seed, in the order of dataset, network, pooling (max first) and length."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(result.record.key(), []).append(result)
    groups = [SeedGroup(sorted(same, key=lambda result: result.record.seed)) for same in found.values()]

    def place(group: SeedGroup) -> tuple[str, str, int, bool, int, int]:
        dataset, network, depth, pool = group.first.setting
        return dataset, network, depth, pool != "max", -group.first.max_epochs, group.results[0].number

    return sorted(groups, key=place)


def pairs_of(groups: Sequence[SeedGroup]) -> Iterator[tuple[SeedGroup, SeedGroup]]:
    """Yield each group with max pooling and the one that differs from it in average pooling alone."""
    average = {group.first.key(pool=False): group for group in groups if group.first.setting[3] == "avg"}
    for group in groups:
        other = average.get(group.first.key(pool=False))
        if group.first.setting[3] == "max" and other is not None:
            yield group, other


def protocols_of(groups: Sequence[SeedGroup]) -> Mapping[Protocol, list[AttackSettings]]:
    """Return the attacks that were made in each protocol, the paper's protocol first."""
    attacks = sorted({attack for group in groups for attack in group.attacks}, key=lambda each: (each.column or "~", each.details))
    protocols = sorted({attack.protocol for attack in attacks}, key=order)
    return {protocol: [attack for attack in attacks if attack.protocol == protocol] for protocol in protocols}
