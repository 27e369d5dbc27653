"""The contract between an attack and what it attacks, and the verbs all attacks share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn_sparsity.protocols import Space
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError, require_number

LossName = Literal["ce", "margin", "dlr"]


class Target(Protocol):
    """What an attack sees: a pure, batch-first function from inputs in a box to logits."""

    @property
    def space(self) -> Space:
        """Whether x is an image or a spike train."""

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value an input may take."""

    @property
    def network(self) -> nn.Module:
        """The module whose backward pass a rule may change."""

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [N,K] of inputs [N,...]; where x requires a gradient, they may be [M,N,K]: M draws of a random network."""


class Passes(NamedTuple):
    """What an attack costs, in images pushed through the network for each image attacked.

    Attributes:
        forwards: Forward passes, those that a gradient is taken through included.
        backwards: Backward passes.
    """

    forwards: int
    backwards: int


@dataclass(frozen=True, kw_only=True)
class Attack(ABC):
    """An L-infinity attack: ``attack(target, x, labels, generator) -> x_adv``, untargeted.

    Args:
        eps: Radius of the ball around x, in the units of x (8/255 is eight grey levels of an image in [0,1]); at most 1, all of it.

    Raises:
        InputError: For a number outside its range.
    """

    eps: Levels | float = Levels(8 / 255)

    def __post_init__(self) -> None:
        require_number("eps", self.eps, at_least=0, at_most=1)
        # Written in grey levels, however it was given.
        object.__setattr__(self, "eps", Levels(self.eps))

    @abstractmethod
    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return inputs in the ball around x that the target should get wrong.

        Args:
            target: What is attacked.
            x: [N,...] in ``target.bounds``.
            labels: [N] int64, the true classes.
            generator: The only source of randomness; attacks that need one and are given none draw from a fresh one.

        Returns:
            A tensor of the shape of x, within ``eps`` of it and in the bounds. Samples without a gradient stay as they are.
        """

    @property
    @abstractmethod
    def passes(self) -> Passes:
        """What attacking one image costs; at most, for an attack that drops images already broken."""

    def __str__(self) -> str:
        """Return eps, in grey levels where that is a whole number, all other whole numbers, and what is not as it comes.

        Example:
            >>> from snn_sparsity.attacks import PGD
            >>> str(PGD(keep="last")), str(PGD(eps=0.05, steps=9))
            ('PGD(eps=8/255, steps=7, restarts=1, keep=last)', 'PGD(eps=0.05, steps=9, restarts=1)')
        """
        shown = [f"eps={Levels(self.eps)}"]
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == Levels | float:
                value = Levels(value)
            whole = isinstance(value, int) and not isinstance(value, bool)
            if field.name != "eps" and (whole or value != field.default):
                shown.append(f"{field.name}={value}")
        return f"{type(self).__name__}({', '.join(shown)})"


def require_attack(attack: object) -> None:
    """Raise InputError unless it is an attack, not its name or class.

    Example:
        >>> from snn_sparsity.attacks import PGD
        >>> require_attack(PGD)
        Traceback (most recent call last):
        snn_sparsity.validation.InputError: attack=PGD is the class: give an attack made of it, PGD()
    """
    if isinstance(attack, type) and issubclass(attack, Attack):
        raise InputError(f"attack={attack.__name__} is the class: give an attack made of it, {attack.__name__}()")
    if not isinstance(attack, Attack):
        raise InputError(f"attack={attack!r:.80} is no attack: give one such as PGD(), or one's own subclass of Attack")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``max_{i != y} z_i - z_y`` per sample, [N]: above 0 where the label is not the winner.

    Example:
        >>> margin(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([1])).tolist()
        [-3.0]
    """
    true = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return others.amax(1) - true.squeeze(1)


def difference_of_logits_ratio(logits: Tensor, labels: Tensor) -> Tensor:
    """Return ``(max_{i != y} z_i - z_y) / (z_(1) - z_(3))`` per sample, [N]: DLR, which no scale of the logits changes.

    From Croce and Hein, arXiv 2003.01690, equation 6. 1e-12 is added to the denominator.

    Raises:
        InputError: With fewer than three classes.

    Example:
        >>> difference_of_logits_ratio(torch.tensor([[2.0, 5.0, 1.0]]), torch.tensor([1])).tolist()
        [-0.75]
    """
    if logits.shape[1] < 3:
        raise InputError(f"loss='dlr' needs at least 3 classes, there are {logits.shape[1]}: use 'margin'")
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy per sample, [N], in nats."""
    return F.cross_entropy(logits, labels, reduction="none")


Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[LossName, Loss] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": difference_of_logits_ratio,
}


def input_gradient(function: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, loss: LossName | Loss = "ce") -> tuple[Tensor, Tensor]:
    """Return the gradient of the summed loss with respect to x, and the logits it was taken at.

    Works inside any evaluation loop (``no_grad`` and ``inference_mode``) and never touches a parameter's ``.grad``. The loss
    is summed, so that a sample's gradient does not depend on its batch. Of a function that returns M draws, [M,N,K], it is the
    mean gradient (expectation over transformation, Athalye et al., arXiv 1802.00420). An entry that is no number counts as 0.

    Args:
        function: Inputs [N,...] to logits [N,K] or [M,N,K].
        x: [N,...].
        labels: [N] int64.
        loss: A name in ``LOSSES``, or a function of logits [N,K] and labels [N]; the gradient points to where it grows.

    Returns:
        The gradient, of the shape of x, and the logits [N,K] (the mean over draws), both detached.

    Example:
        >>> gradient, logits = input_gradient(lambda x: x, torch.tensor([[1.0, 3.0]]), torch.tensor([1]), "margin")
        >>> gradient.tolist(), logits.tolist()
        ([[1.0, -1.0]], [[1.0, 3.0]])
    """
    # Inference tensors cannot be saved for the backward pass: clone outside inference mode.
    with torch.inference_mode(False), torch.enable_grad():
        x = x.detach().clone().requires_grad_()
        logits = function(x)
        draws = logits if logits.ndim == 3 else logits.unsqueeze(0)
        measure = loss if callable(loss) else LOSSES[loss]
        value = measure(draws.flatten(0, 1), labels.repeat(len(draws))).sum() / len(draws)
        (gradient,) = torch.autograd.grad(value, x)
    # Nobody can follow NaN: whoever did would leave the ball.
    return torch.where(gradient.isnan(), 0, gradient), draws.detach().mean(0)


def project(x_adv: Tensor, x: Tensor, eps: float, bounds: tuple[float, float]) -> Tensor:
    """Return the nearest point within ``eps`` of x and inside the bounds, element by element."""
    return torch.minimum(torch.maximum(x_adv, x - eps), x + eps).clamp(*bounds)


def beside(values: Tensor, x: Tensor) -> Tensor:
    """Return values [N] as [N,1,...], to go with x [N,...]."""
    return values.view(-1, *[1] * (x.ndim - 1))


def largest(values: Tensor, count: int) -> Tensor:
    """Return where the ``count`` largest values of each sample are, among those above 0.

    Example:
        >>> largest(torch.tensor([[2.0, 2.0, 1.0], [1.0, -1.0, -2.0]]), 2).tolist()
        [[True, True, False], [True, False, False]]
    """
    flat = values.flatten(1)
    top = flat.topk(count, dim=1)
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, top.indices, top.values > 0).view(values.shape)


def uniform_noise(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """Draw noise uniform in [-eps, eps], of the shape of x, without touching the global random state.

    Drawn on the generator's device: a CPU generator gives the same noise whatever device x is on.
    """
    generator = generator or torch.Generator().manual_seed(0)
    draws = torch.rand(x.shape, generator=generator, device=generator.device, dtype=x.dtype)
    return (2 * draws.to(x.device) - 1) * eps


def at_least_single(x: Tensor) -> torch.dtype:
    """Return the precision of a number that belongs to each sample: x's own, float32 at least."""
    return torch.promote_types(x.dtype, torch.float32)


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """Return which samples [N] are classified right; one whose logits are not all finite never is.

    Example:
        >>> correct(torch.tensor([[2.0, 1.0], [float("nan"), 1.0], [0.0, 1.0]]), torch.tensor([0, 0, 0])).tolist()
        [True, False, False]
    """
    return logits.isfinite().all(1) & (logits.argmax(1) == labels)


def infinite_where_broken(losses: Tensor, logits: Tensor) -> Tensor:
    """Return the losses [N], infinite where the logits are not all finite: there no label is right.

    Example:
        >>> infinite_where_broken(torch.tensor([-1.0, float("nan")]), torch.tensor([[2.0, 1.0], [float("nan"), 1.0]])).tolist()
        [-1.0, inf]
    """
    return torch.where(logits.isfinite().all(1), losses, torch.inf)


def random_corners(x: Tensor, eps: float, generator: torch.Generator | None) -> Tensor:
    """Draw -eps or eps for each element, of the shape of x, as :func:`uniform_noise` draws."""
    return torch.where(uniform_noise(x, 1.0, generator) < 0, -eps, eps).to(x.dtype)


@dataclass
class BestSoFar:
    """The input of each sample with the largest margin seen so far (fooled inputs have margin above 0).

    Where logits are not all finite, the margin counts as infinite.

    Attributes:
        x: [N,...].
        margin: [N].
    """

    x: Tensor
    margin: Tensor

    @classmethod
    def nothing(cls, x: Tensor) -> "BestSoFar":
        """Start with x and a margin that anything beats."""
        return cls(x.clone(), torch.full((len(x),), float("-inf"), dtype=at_least_single(x), device=x.device))

    def update(self, x: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Keep x where its margin is larger than that of what is kept."""
        new = infinite_where_broken(margin(logits, labels), logits).to(self.margin)
        better = new > self.margin
        self.x[better] = x[better]
        self.margin = torch.where(better, new, self.margin)
