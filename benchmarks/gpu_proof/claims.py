"""What a part of the proof says, and what it is given."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Status = Literal["PASS", "FAIL", "MEASURED", "NOT RUN"]


@dataclass(frozen=True)
class Claim:
    """One claim, and what was found.

    Attributes:
        name: What it is about.
        expected: What is claimed.
        found: What was seen, with numbers.
        status: MEASURED is a number that nothing was promised about.
        remedy: What to do if it fails.
        numbers: The same for programs.
        excused: Whether, not having run, it counts as no failure: it needs what is not there.
    """

    name: str
    expected: str
    found: str
    status: Status
    remedy: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    excused: bool = False

    @property
    def fails(self) -> bool:
        """Whether the proof fails by it."""
        return self.status == "FAIL" or (self.status == "NOT RUN" and not self.excused)

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps(asdict(self))


def judged(name: str, expected: str, found: str, holds: bool, remedy: str, **numbers: Any) -> Claim:
    """Return a claim that holds or not."""
    return Claim(name, expected, found, "PASS" if holds else "FAIL", remedy, numbers)


def measured(name: str, found: str, **numbers: Any) -> Claim:
    """Return a number that nothing was promised about."""
    return Claim(name, "-", found, "MEASURED", "", numbers)


def not_run(name: str, reason: str, excused: bool = False) -> Claim:
    """Return a claim that could not be tried."""
    return Claim(name, "-", reason, "NOT RUN", excused=excused)


@dataclass(frozen=True)
class Place:
    """Where a part runs.

    Attributes:
        device: ``cuda``, or ``cpu`` for the half that needs no GPU, at tiny sizes.
        scratch: A folder of the part's own.
        data: Folder with the authors' golden cases, if at hand.
    """

    device: str
    scratch: Path
    data: Path | None

    @property
    def gpu(self) -> bool:
        """Whether there is a GPU."""
        return self.device == "cuda"


@dataclass(frozen=True)
class Part:
    """A part of the proof, run in a process of its own.

    Attributes:
        module: Of ``benchmarks.gpu_proof``; its function of the part's name yields claims, each kept as it comes.
        limit: Seconds after which it is killed on a GPU.
        alone: Whether it is timed, so that nothing else may run.
    """

    module: str
    limit: int
    alone: bool = False
