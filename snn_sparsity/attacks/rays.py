"""RayS: a search that sees only the winning class."""

from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, Passes, Target, beside, correct
from snn_sparsity.attacks.lattice import on_lattice
from snn_sparsity.validation import require_number

TOLERANCE = 1e-3
"""How exactly a radius is known, in the units of x, as in the authors' code."""


@dataclass(frozen=True, kw_only=True)
class RayS(Attack):
    """Look for the direction in which another class wins soonest; of the logits only their winner counts (arXiv 2006.12792).

    The radius of a direction d in {-1,1}^n is the least r at which ``x + r d``, clipped to the bounds, is given another class. From all
    ones on, the signs of a block of x are flipped: all of it, then halves, quarters, down to single elements, which take turns from then
    on. A flip is kept if another class wins at a radius smaller than the best one, which is then bisected. Samples whose radius has come
    down to ``eps`` leave the batch. Unlike a margin, a winner cannot be hidden by saturated or quantised logits.

    For images, a radius between two grey levels moves a share of the pixels, drawn once, by the larger one, so that all that is tried are
    8-bit images.

    Args:
        eps: Radius of the ball, in the units of x; for images a whole number of grey levels.
        queries: Forward passes for each sample, at least 1.

    Raises:
        InputError: For a number outside its range; in a call, for an eps between two grey levels of an image.

    Example:
        >>> RayS(queries=200)
        RayS(eps=8/255, queries=200)
    """

    queries: int = 10000

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("queries", self.queries, at_least=1, whole=True)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack. See :meth:`Attack.__call__`."""
        attack, share = self, None
        if target.space == "image":
            attack = on_lattice(self)
            generator = generator or torch.Generator().manual_seed(0)
            share = torch.rand(x[:1].shape, generator=generator, device=generator.device).to(x)
        with torch.no_grad():
            search = _Search(attack, target, x, labels, share)
            for flips in count():
                left = search.left()
                if not len(left):
                    return search.result()
                search.flip(block(flips, x[0].numel()), left)
        raise AssertionError("the queries of all samples come to an end")

    @property
    def passes(self) -> Passes:
        """One forward pass a query, at most."""
        return Passes(self.queries, 0)


class _Search:
    """The best direction and radius of each sample so far, and how often its winner was looked up."""

    def __init__(self, attack: RayS, target: Target, x: Tensor, labels: Tensor, share: Tensor | None) -> None:
        self.attack, self.target, self.x, self.labels, self.share = attack, target, x, labels, share
        self.queries = torch.zeros(len(x), dtype=torch.long, device=x.device)
        # The first block is all of it: the first direction tried is all ones.
        self.directions = -torch.ones_like(x)
        everywhere = torch.arange(len(x), device=x.device)
        self.radius = torch.where(self.is_wrong(everywhere, self.directions, torch.zeros(len(x)).to(x)), 0.0, torch.inf)

    def left(self) -> Tensor:
        """Return the places of the samples that are searched on."""
        return ((self.radius > self.attack.eps) & (self.queries < self.attack.queries)).nonzero().squeeze(1)

    def flip(self, part: slice, places: Tensor) -> None:
        """Flip a part of the directions at these places; keep it where that makes the radius smaller."""
        low, high = self.target.bounds
        tried = self.directions[places]
        tried.flatten(1)[:, part] *= -1
        closer = (self.radius[places] - TOLERANCE).clamp(self.attack.eps, high - low)
        better = self.is_wrong(places, tried, closer)
        places, tried = places[better], tried[better]
        self.directions[places] = tried
        self.radius[places] = self.bisect(places, tried, closer[better])

    def bisect(self, places: Tensor, directions: Tensor, high: Tensor) -> Tensor:
        """Return the radii of directions that are wrong at ``high``; the edge of the ball, which decides, is tried first."""
        low, eps = torch.zeros_like(high), self.attack.eps
        while True:
            left = (high > eps) & (high - low > TOLERANCE) & (self.queries[places] < self.attack.queries)
            if not left.any():
                return high
            middle = torch.where(low < eps, eps, (low + high) / 2)
            wrong = torch.zeros_like(left)
            wrong[left] = self.is_wrong(places[left], directions[left], middle[left])
            high, low = torch.where(left & wrong, middle, high), torch.where(left & ~wrong, middle, low)

    def is_wrong(self, places: Tensor, directions: Tensor, radii: Tensor) -> Tensor:
        """Look up whether another class wins."""
        self.queries[places] += 1
        return ~correct(self.target.logits(self.along(self.x[places], directions, radii)), self.labels[places])

    def along(self, x: Tensor, directions: Tensor, radii: Tensor) -> Tensor:
        """Return x moved by a radius each; images by whole grey levels."""
        radii = beside(radii, x)
        if self.share is not None:
            # A whole number of levels must stay that, whatever it was rounded to.
            radii = (255 * radii + 0.001 + 0.998 * self.share).floor() / 255
        return (x + radii * directions).clamp(*self.target.bounds).to(x.dtype)

    def result(self) -> Tensor:
        """Return what is wrong within the ball, and else the edge of the ball in the best direction."""
        return self.along(self.x, self.directions, self.radius.clamp(max=self.attack.eps))


def block(flips: int, length: int) -> slice:
    """Return which elements are flipped after so many flips: all, then each half, each quarter, and at last single ones in turn.

    Where the length is no power of two, the last blocks are smaller, or empty.

    Example:
        >>> [(part.start, part.stop) for part in (block(flips, 4) for flips in range(9))]
        [(0, 4), (0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4), (0, 1), (1, 2)]
    """
    stage = min((flips + 1).bit_length() - 1, (length - 1).bit_length())
    size = -(-length // 2**stage)
    first = (flips + 1 - 2**stage) % 2**stage * size
    return slice(min(first, length), min(first + size, length))
