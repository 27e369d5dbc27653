"""A network of the causal grid and what was measured on it, as ``causal.json`` holds it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snn_sparsity.reproduction.attackers import Attacker, Mode, same_as
from snn_sparsity.validation import InputError

MEASURED = "causal.json"
SPARSE, DENSE = "sparse", "dense"
WORST = "worst of all attackers"


@dataclass(frozen=True)
class Trained:
    """One network of the grid and what was measured on it.

    Attributes:
        name: The run's.
        pooling: Forward: ``max`` or ``avg``.
        backward: Share of the pooling's gradient in training.
        weight_decay: Of training.
        seed: Of training.
        outcomes: ``clean`` and, by mode, attacker and attack, which images were classified right.
        zeros: Zeros at the pool by mode and attacker.
        audit: Accuracy in the worst case of the run's audit by protocol, in words; empty without one.
        network: ``SEW-ResNet18``.
        dataset: ``cifar10``.
        epochs: Epochs trained.
        train_images: Images trained on.
        original_images: How many of the judged images are known to be the dataset's own pixels.
    """

    name: str
    pooling: str
    backward: Attacker
    weight_decay: float
    seed: int
    clean: Sequence[bool]
    outcomes: Mapping[Mode, Mapping[Attacker, Mapping[str, Sequence[bool]]]]
    zeros: Mapping[Mode, Mapping[Attacker, float]]
    audit: Mapping[str, str]
    network: str
    dataset: str
    epochs: int
    train_images: int
    original_images: int

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Trained":
        """Return a network from what ``causal.json`` holds of it."""
        outcomes = {
            mode: {attacker: {name: _right(text) for name, text in attacks.items()} for attacker, attacks in by.items()}
            for mode, by in content["attacked"].items()
        }
        return cls(
            content["name"], content["pooling"], content["backward"], content["weight_decay"], content["seed"], _right(content["clean"]),
            outcomes, content["zeros"], content["audit"],
            *(content[name] for name in ("network", "dataset", "epochs", "train_images", "original_images")),
        )  # fmt: skip

    @property
    def training(self) -> str:
        """Whether training's gradient at the pool was sparse or dense."""
        return SPARSE if same_as(self.backward, self.pooling) in ("first", "random") else DENSE

    @property
    def setting(self) -> tuple[str, str, int, int, float, int]:
        """What networks of one set share: network, dataset, epochs, images, weight decay and seed."""
        return self.network, self.dataset, self.epochs, self.train_images, self.weight_decay, self.seed

    @property
    def seen(self) -> int:
        """Images seen in training: epochs times images."""
        return self.epochs * self.train_images

    @property
    def label(self) -> str:
        """What it is, in a table."""
        return f"{self.pooling}, trained {self.training} ({self.backward}), decay {self.weight_decay:g}, seed {self.seed}"

    def right(self, mode: Mode, attack: str, attacker: Attacker) -> Sequence[bool]:
        """Return which images withstand an attack of a mode, or all of them (``WORST``)."""
        return self.worst(mode) if attack == WORST else self.outcomes[mode][attacker][attack]

    def worst(self, mode: Mode) -> list[bool]:
        """Return which images withstand every attacker and attack of a mode, and are classified right without one."""
        every = [self.clean, *(outcome for attacks in self.outcomes[mode].values() for outcome in attacks.values())]
        return [all(each) for each in zip(*every, strict=True)]


def read(file: Path) -> dict[str, Any]:
    """Return what an experiment measured, as its file holds it.

    Raises:
        InputError: If there is no such file, or it holds something else.
    """
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{file} cannot be read ({type(error).__name__}): give runs to measure, or --out with a {file.name} in it"
        ) from error
    if not isinstance(content, dict) or content.get("schema") != 1 or not content.get("networks"):
        raise InputError(f"{file} holds no such experiment")
    return content


def networks_of(file: Path) -> list[Trained]:
    """Return the networks of an experiment.

    Raises:
        InputError: If the file cannot be read, or holds something else.
    """
    try:
        return [Trained.read(each) for each in read(file)["networks"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} is of another version ({type(error).__name__}: {error}): measure again") from error


def _right(text: str) -> list[bool]:
    return [sign == "1" for sign in text]
