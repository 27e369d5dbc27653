"""One network under attackers who take the pooling's gradient to be what they like: the same images, the same random starts."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, Literal

import torch
from torch import Tensor, nn

from snn_sparsity.attacks import PGD, CodeBookAscent
from snn_sparsity.attacks.base import correct, input_gradient, project, uniform_noise
from snn_sparsity.attacks.drift import Statistics, running_statistics
from snn_sparsity.attacks.targets import ImageTarget, SpikeTarget
from snn_sparsity.encoders.base import Encoder
from snn_sparsity.gradient_rules import PoolGradient
from snn_sparsity.measure.gradients import record_gradients
from snn_sparsity.networks.replay import replaying
from snn_sparsity.protocols import BatchNormMode
from snn_sparsity.randomness import stream
from snn_sparsity.reproduction import attackers
from snn_sparsity.reproduction.attackers import ALPHA, ATTACKERS, EPS, MODES, Attacker, Mode, attacks_in, same_as
from snn_sparsity.validation import InputError

RESULTS = 1 + 2 * len(MODES) * len(ATTACKERS)
"""How often :func:`measure` asks for a result."""
ZEROS_ON = 64
"""Images on which zeros at the pool are counted."""


def pooling_of(network: nn.Module) -> Literal["max", "avg"]:
    """Return what pools in windows.

    Raises:
        InputError: If there is no windowed pooling, or both kinds.
    """
    found: set[Literal["max", "avg"]] = {"max" for module in network.modules() if isinstance(module, nn.MaxPool2d)}
    found |= {"avg" for module in network.modules() if isinstance(module, nn.AvgPool2d)}
    if len(found) != 1:
        raise InputError(f"the network has {'both max and average' if found else 'no'} pooling in windows: give one with one kind")
    return found.pop()


@dataclass(frozen=True)
class ModelUnderTest:
    """A trained network and the images it is judged on.

    Args:
        classifier: Maps spikes [T,N,C,H,W] to logits [N,K]; in eval mode.
        encoder: Its spike code.
        images: [n,C,H,W] uint8.
        labels: [n] int64.
        batch_size: Images attacked at a time in ``spikes_batch``: BatchNorm's batch.
        eval_batch_size: Images attacked at a time where BatchNorm is in eval mode.
        graphs: Whether attacks' passes are replayed as CUDA graphs.
    """

    classifier: nn.Module
    encoder: Encoder
    images: Tensor
    labels: Tensor
    batch_size: int = 16
    eval_batch_size: int = 128
    graphs: bool = False

    @property
    def device(self) -> torch.device:
        """Where the classifier is."""
        return next(iter(self.classifier.parameters())).device

    @property
    def network(self) -> nn.Module:
        """The network inside the classifier, if it has one."""
        network = getattr(self.classifier, "network", self.classifier)
        assert isinstance(network, nn.Module)
        return network

    def spikes(self, count: int, first: int = 0) -> Tensor:
        """Return the spikes [T,N,C,H,W] of some images."""
        return self.encoder(self.images[first : first + count].to(self.device), stream(0))

    def clean(self) -> list[bool]:
        """Return which images are classified right."""
        batches = self._batches(self.eval_batch_size)
        judged = [correct(SpikeTarget(self.classifier).judge(spikes), labels) for _, spikes, _, labels in batches]
        return [hit for hits in judged for hit in hits.tolist()]

    def attacked(self, mode: Mode, attacker: Attacker) -> dict[str, list[bool]]:
        """Return which images are still classified right, for each attack of a mode.

        PGD is the paper's: a random start, steps of 0.01, the last iterate; 1, 7 and 20 steps are iterates of one ascent. In
        ``spikes_batch`` BatchNorm uses the batch while crafting, and its running statistics drift through all batches up to the one
        that is judged, as in published code. Starts are the same for all networks and attackers. In eval mode images are independent:
        one that is wrong without an attack is not attacked, and counts as wrong.

        Args:
            mode: ``spikes_eval``, ``spikes_batch`` or ``pixels`` (code-book ascent, BatchNorm in eval mode).
            attacker: Whose gradient a window of the pooling has.
        """
        right: dict[str, list[bool]] = {name: [] for name in attacks_in(mode)}
        drifted: dict[str, Statistics] = {name: running_statistics(self.classifier) for name in right}
        rule = PoolGradient(same_as(attacker, pooling_of(self.classifier)))
        with rule.applied(self.classifier), replaying(self.classifier) if self.graphs else nullcontext():
            for place, spikes, images, labels in self._batches(self.batch_size if mode == "spikes_batch" else self.eval_batch_size):
                if mode == "spikes_batch":
                    for name, x_adv, crafted in self._ascent(spikes, labels, "batch", place):
                        drifted[name] = crafted.drift().of(drifted[name])
                        judge = SpikeTarget(self.classifier, "batch")
                        judge.judge_with(drifted[name])
                        right[name] += correct(judge.judge(x_adv), labels).tolist()
                    continue
                alive = correct(SpikeTarget(self.classifier).judge(spikes), labels)
                for name, hits in self._withstood(mode, place, spikes, images, labels, alive):
                    right[name] += alive.index_put((alive.nonzero()[:, 0],), hits).tolist()
        return right

    def _withstood(
        self, mode: Mode, place: int, spikes: Tensor, images: Tensor, labels: Tensor, alive: Tensor
    ) -> Iterator[tuple[str, Tensor]]:
        """Yield, by attack, which of the images that are right without one stay right; nothing is attacked where there are none."""
        if not alive.any():
            yield from ((name, alive[:0]) for name in attacks_in(mode))
        elif mode == "pixels":
            (name,) = attacks_in(mode)
            code = ImageTarget(self.classifier, self.encoder, generator=stream(place))
            attack = CodeBookAscent(eps=EPS, steps=attackers.CODEBOOK_STEPS)
            yield name, correct(code.judge(attack(code, images[alive].float() / 255, labels[alive], stream(place))), labels[alive])
        else:
            for name, x_adv, target in self._ascent(spikes, labels, "eval", place, alive):
                yield name, correct(target.judge(x_adv), labels[alive])

    def zeros(self, mode: Mode, attacker: Attacker) -> float:
        """Return the share of exact zeros at the pooling's input, of clean images, as the attacker sees it."""
        x, labels = self._encoded(self.images[:ZEROS_ON]), self.labels[:ZEROS_ON].to(self.device)
        target = SpikeTarget(self.classifier, "batch" if mode == "spikes_batch" else "eval")
        rule = PoolGradient(same_as(attacker, pooling_of(self.classifier)))
        with rule.applied(self.classifier), record_gradients(self.network, ["pool"]) as record:
            input_gradient(target.logits, x, labels)
        return float(record.values[record.operations[1].path][0].mean())

    def _ascent(
        self, spikes: Tensor, labels: Tensor, batch_norm: BatchNormMode, place: int, chosen: Tensor | slice = slice(None)
    ) -> Iterator[tuple[str, Tensor, SpikeTarget]]:
        target = SpikeTarget(self.classifier, batch_norm)
        # Drawn for the whole batch, so that an image's start is the same whichever others are attacked.
        x_adv, done = project(spikes + uniform_noise(spikes, EPS, stream(place)), spikes, EPS, target.bounds)[chosen], 0
        spikes, labels = spikes[chosen], labels[chosen]
        for steps in attackers.STEPS:
            x_adv = PGD(eps=EPS, alpha=ALPHA, steps=steps - done, keep="last").ascend(target, spikes, labels, x_adv)
            done = steps
            yield f"pgd_{steps}", x_adv, target

    def _batches(self, size: int) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        for start in range(0, len(self.labels), size):
            images = self.images[start : start + size].to(self.device)
            yield start, self._encoded(images), images, self.labels[start : start + size].to(self.device)

    def _encoded(self, images: Tensor) -> Tensor:
        return self.encoder(images.to(self.device), stream(0)).transpose(0, 1).contiguous()


Once = Callable[[str, Callable[[], Any]], Any]
"""From a name and how to compute a result to the result, which is computed only the first time."""


def measure(case: ModelUnderTest, once: Once) -> dict[str, Any]:
    """Return clean and attacked outcomes of a network, and zeros at its pooling, under every attacker; each is asked for once.

    Args:
        case: The network and images.
        once: Keeps what is there already, so that a stopped experiment goes on.

    Returns:
        ``clean``: outcomes; ``attacked``: by mode, attacker and attack; ``zeros``: by mode and attacker. Outcomes are texts of 0 and 1,
        an image each. The attacker ``own`` is another one to the bit, and stands for itself all the same.
    """
    pooling = pooling_of(case.classifier)
    attacked: dict[str, dict[str, dict[str, str]]] = {mode: {} for mode in MODES}
    zeros: dict[str, dict[str, float]] = {mode: {} for mode in MODES}
    clean = once("clean", lambda: bits(case.clean()))
    for mode, attacker in product(MODES, ATTACKERS):
        share = same_as(attacker, pooling)
        zeros[mode][attacker] = once(f"zeros {mode} {share}", partial(case.zeros, mode, share))
        attacked[mode][attacker] = once(f"{mode} {share}", partial(_outcomes, case, mode, share))
    return {"pooling": pooling, "clean": clean, "attacked": attacked, "zeros": zeros}


def _outcomes(case: ModelUnderTest, mode: Mode, attacker: Attacker) -> dict[str, str]:
    return {name: bits(right) for name, right in case.attacked(mode, attacker).items()}


def bits(outcomes: list[bool]) -> str:
    """Return outcomes as a text of 0 and 1.

    Example:
        >>> bits([True, False, True])
        '101'
    """
    return "".join("1" if outcome else "0" for outcome in outcomes)
