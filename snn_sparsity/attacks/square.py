"""Square attack: random search, no gradient."""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, BestSoFar, Passes, Target, project, random_corners
from snn_sparsity.attacks.lattice import lattice_radius, random_levels
from snn_sparsity.validation import InputError, require_number

HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""After how many squares the share of the image that one covers halves."""


@dataclass(frozen=True, kw_only=True)
class Square(Attack):
    """Try random squares of random corners of the ball, one after another, and keep each that raises the margin (arXiv 1912.00049).

    The start is vertical stripes of -eps and eps. Each query draws a square for the whole batch and for each channel -eps or eps, and sets
    the perturbation inside it to that. A square covers the share ``share`` of the image at first; after 10, 50, 200, 500, 1000, 2000, 4000,
    6000 and 8000 queries the share halves. Samples already fooled leave the batch. If this black box wins where gradients do
    not, the gradients mask.

    Corners are no privileged points of a bit-plane code: with ``lattice`` each channel's value is any whole number of grey levels
    in the ball, and every second query is a single pixel.

    Args:
        eps: Radius of the ball, in the units of x.
        queries: Number of squares tried, at least 1.
        share: Share of the image's area that the first squares cover, above 0 and at most 1.
        lattice: Whether to draw whole grey levels instead of -eps and eps. For images only.

    Raises:
        InputError: For a number outside its range; in a call, for inputs that are no images, or ``lattice`` on spikes.

    Example:
        >>> Square(queries=200, lattice=True)
        Square(eps=8/255, queries=200, share=0.8, lattice=True)
    """

    queries: int = 5000
    share: float = 0.8
    lattice: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("queries", self.queries, at_least=1, whole=True)
        require_number("share", self.share, above=0, at_most=1)
        if self.lattice:
            object.__setattr__(self, "eps", lattice_radius(self.eps))

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack images [N,C,H,W], or spikes [N,T,C,H,W] as images of T x C channels. See :meth:`Attack.__call__`."""
        if x.ndim not in (4, 5):
            raise InputError(f"Square needs images [N,C,H,W] or spikes [N,T,C,H,W], not inputs of shape {list(x.shape)}")
        if self.lattice and target.space != "image":
            raise InputError("Square(lattice=True) draws grey levels: it needs space='image'")
        generator = generator or torch.Generator().manual_seed(0)
        best = BestSoFar.nothing(x)
        with torch.no_grad():
            stripes = project(x + self._draw(x[..., :1, :], generator), x, self.eps, target.bounds)
            best.update(stripes, target.logits(stripes), labels)
            for query in range(self.queries):
                left = (best.margin <= 0).nonzero().squeeze(1)
                if not len(left):
                    break
                window, value = self._window(query, x, generator), self._draw(x[:1, ..., :1, :1], generator)
                mine = BestSoFar(best.x[left], best.margin[left])
                tried = torch.where(window, project(x[left] + value, x[left], self.eps, target.bounds), mine.x)
                mine.update(tried, target.logits(tried), labels[left])
                best.x[left], best.margin[left] = mine.x, mine.margin
        return best.x

    @property
    def passes(self) -> Passes:
        """One forward pass for the stripes and each query, at most."""
        return Passes(self.queries + 1, 0)

    def side(self, query: int, height: int, width: int) -> int:
        """Return the side of the square of a query, counted from 0, in pixels.

        Example:
            >>> Square().side(query=0, height=32, width=32), Square().side(query=4999, height=32, width=32)
            (29, 3)
        """
        if self.lattice and query % 2:
            return 1
        share = self.share / 2 ** sum(query > after for after in HALVED_AFTER)
        return min(max(round(sqrt(share * height * width)), 1), height, width)

    def _draw(self, x: Tensor, generator: torch.Generator) -> Tensor:
        return (random_levels if self.lattice else random_corners)(x, self.eps, generator)

    def _window(self, query: int, x: Tensor, generator: torch.Generator) -> Tensor:
        """Return [H,W] bool: where the square of a query is."""
        side = self.side(query, *x.shape[-2:])
        inside = []
        for extent in x.shape[-2:]:
            first = torch.randint(extent - side + 1, (), generator=generator, device=generator.device).to(x.device)
            place = torch.arange(extent, device=x.device)
            inside.append((place >= first) & (place < first + side))
        return inside[0][:, None] & inside[1]
