"""HopSkipJump on the lattice of 8-bit images: a walk along the decision boundary that sees only the winning class."""

from dataclasses import dataclass
from itertools import count
from math import sqrt

import torch
from torch import Tensor

from snn_sparsity.attacks.base import Attack, Passes, Target, at_least_single, beside, correct, project, random_corners
from snn_sparsity.attacks.lattice import on_lattice
from snn_sparsity.attacks.sapgd import over_its_mean
from snn_sparsity.randomness import mix
from snn_sparsity.validation import require_number

STARTS = 20
"""Random inputs that are tried for a first one of another class."""
MEMORY = 0.8
"""What a round keeps of the directions that earlier ones felt: measured, it makes up for what the lattice costs."""
FINE = 1 / 16
"""How exactly a radius is known, in grey levels."""


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(Attack):
    """Walk along the boundary between classes towards x; of the logits only their winner counts (Chen et al., arXiv 1904.02144).

    From a random input y of another class, each round: (1) the direction away from the label's class is
    ``v = mean_b (s_b - mean s) u_b``, with u_b random signs times a width, and s_b = 1 where another class wins at ``y + u_b``, else -1;
    (2) ``y + l sign(v)``, l halved from radius / sqrt(round) until another class wins; (3) the smallest radius r at which another class
    wins at that point clipped to ``[x - r, x + r]``, by bisection that tries eps first. A round feels for ``probes sqrt(round)``
    directions. What is nearer to x is the next y. Samples whose radius has come down to eps leave the batch.

    The published attack moves each pixel by a small part of a grey level to feel for the boundary, which no 8-bit image shows. Here
    widths and steps are whole grey levels, the width a quarter of the radius and a level at least, and a radius between two levels clips
    a share of the pixels, drawn once, to the larger one, so that all that is tried are 8-bit images; and v is added to 0.8 times that of
    the round before, both over their means. RayS looks along straight lines from x; this goes around corners.

    Args:
        eps: Radius of the ball, in the units of x; for images a whole number of grey levels.
        queries: Forward passes for each sample, at most.
        probes: Directions that the first round feels for, at least 1.

    Raises:
        InputError: For a number outside its range; in a call, for an eps between two grey levels of an image.

    Example:
        >>> HopSkipJump(queries=500)
        HopSkipJump(eps=8/255, queries=500, probes=20)
    """

    queries: int = 5000
    probes: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        require_number("queries", self.queries, at_least=1, whole=True)
        require_number("probes", self.probes, at_least=1, whole=True)

    def __call__(self, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Attack. See :meth:`Attack.__call__`."""
        attack = on_lattice(self) if target.space == "image" else self
        with torch.no_grad():
            walk = _Walk(attack, target, x, labels, generator or torch.Generator().manual_seed(0))
            walk.start()
            for number in count(1):
                left = walk.left()
                if not len(left):
                    return walk.result()
                walk.hop(left, number)
        raise AssertionError("the queries of all samples come to an end")

    @property
    def passes(self) -> Passes:
        """One forward pass a query, at most."""
        return Passes(self.queries, 0)


class _Walk:
    """Where each sample stands: the nearest input of another class, how far it is, and in which direction other classes lie."""

    def __init__(self, attack: HopSkipJump, target: Target, x: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        self.attack, self.target, self.x, self.labels, self.generator = attack, target, x, labels, generator
        self.seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self.share: Tensor | None = None
        if target.space == "image":
            self.share = torch.rand(x[:1].shape, generator=generator, device=generator.device).to(x)
        self.queries = torch.zeros(len(x), dtype=torch.long, device=x.device)
        self.nearest, self.direction = x.clone(), torch.zeros_like(x, dtype=at_least_single(x))
        everywhere = torch.arange(len(x), device=x.device)
        self.radius = torch.where(self.is_wrong(everywhere, x), 0.0, torch.inf).to(at_least_single(x))

    def start(self) -> None:
        """Give each sample a random input of another class, coarse ones first; some may find none."""
        self.begin(0)
        for number in range(STARTS):
            left = self.radius.isinf().nonzero().squeeze(1)
            if not len(left):
                return
            drawn = self.draw(number).expand_as(self.x[left])
            wrong = self.is_wrong(left, drawn)
            self.come_nearer(left[wrong], drawn[wrong])

    def draw(self, number: int) -> Tensor:
        """Draw an input of blocks that are half as large each time, on the lattice."""
        low, high = self.target.bounds
        shape, blocks = list(self.x.shape[1:]), 2**number
        if len(shape) > 1:
            shape[-2:] = [min(blocks, side) for side in shape[-2:]]
        values = low + (high - low) * torch.rand(1, *shape, generator=self.generator, device=self.generator.device).to(self.x)
        if len(shape) > 1:
            for dim in (-2, -1):
                side = self.x.shape[dim]
                values = values.index_select(dim, torch.arange(side, device=values.device) * values.shape[dim] // side)
        return values if self.share is None else (255 * values).round() / 255

    def left(self) -> Tensor:
        """Return the places of the samples that go on."""
        far = (self.radius > self.attack.eps + 1e-6) & self.radius.isfinite()
        return (far & (self.queries < self.attack.queries)).nonzero().squeeze(1)

    def begin(self, number: int) -> None:
        """Draw what the round alone says: how many draws its neighbours took before must not matter to a sample."""
        self.generator = torch.Generator(self.generator.device).manual_seed(mix(self.seed, number))

    def hop(self, places: Tensor, number: int) -> None:
        """Go one round."""
        self.begin(number)
        here, radius = self.nearest[places], self.radius[places]
        felt = self.feel(places, here, self.whole(radius / 4), int(self.attack.probes * sqrt(number)))
        self.direction[places] = MEMORY * self.direction[places] + over_its_mean(felt.to(self.direction))
        direction = self.direction[places].sign()
        length, jumped = self.whole(radius / sqrt(number)), torch.zeros_like(places, dtype=torch.bool)
        there = here.clone()
        while True:
            trying = (~jumped & (length > 0) & (self.queries[places] < self.attack.queries)).nonzero().squeeze(1)
            if not len(trying):
                break
            tried = (here[trying] + beside(length[trying], here) * direction[trying]).clamp(*self.target.bounds).to(here)
            wrong = self.is_wrong(places[trying], tried)
            there[trying[wrong]], jumped[trying[wrong]] = tried[wrong], True
            length = torch.where(length < 1.5 / 255, 0, self.whole(length / 2))
        self.come_nearer(places[jumped], there[jumped])

    def feel(self, places: Tensor, here: Tensor, width: Tensor, probes: int) -> Tensor:
        """Estimate in which direction the other classes lie."""
        towards, moves, sides = torch.zeros_like(here), torch.zeros_like(here), torch.zeros_like(width)
        asked = 0
        for _ in range(probes):
            if not (self.queries[places] < self.attack.queries).any():
                break
            asked += 1
            signs = random_corners(self.x[:1], 1.0, self.generator)
            tried = (here + beside(width, here) * signs).clamp(*self.target.bounds)
            side = torch.where(self.is_wrong(places, tried), 1.0, -1.0).to(here)
            towards, moves, sides = towards + beside(side, here) * (tried - here), moves + (tried - here), sides + side
        constant = sides.abs() == asked
        # Where all directions end on one side, there is no contrast: their mean has to do.
        return torch.where(beside(constant, here), towards, towards - beside(sides / max(asked, 1), here) * moves)

    def come_nearer(self, places: Tensor, there: Tensor) -> None:
        """Find the smallest radius to which inputs of another class can be clipped; what is nearer than before is kept."""
        high = (there - self.x[places]).abs().flatten(1).amax(1).to(self.radius) if len(places) else self.radius[places]
        low, eps = torch.zeros_like(high), self.attack.eps
        while True:
            going = (high > eps + 1e-6) & (high - low > FINE / 255) & (self.queries[places] < self.attack.queries)
            if not going.any():
                break
            middle = torch.where(low < eps, eps, (low + high) / 2)
            wrong = torch.zeros_like(going)
            wrong[going] = self.is_wrong(places[going], self.clipped(places[going], there[going], middle[going]))
            high, low = torch.where(going & wrong, middle, high), torch.where(going & ~wrong, middle, low)
        nearer = high < self.radius[places]
        self.nearest[places[nearer]] = self.clipped(places[nearer], there[nearer], high[nearer])
        self.radius[places[nearer]] = high[nearer]

    def clipped(self, places: Tensor, there: Tensor, radius: Tensor) -> Tensor:
        """Return inputs moved into the ball of a radius each."""
        x, radius = self.x[places], beside(radius, there)
        if self.share is not None:
            # Between two grey levels a share of the pixels, drawn once, has the larger radius; a whole number stays what it is.
            radius = (255 * radius + 0.001 + 0.998 * self.share).floor() / 255
        return torch.minimum(torch.maximum(there, x - radius), x + radius).clamp(*self.target.bounds).to(self.x)

    def whole(self, lengths: Tensor) -> Tensor:
        """Return lengths as whole grey levels, one at least."""
        return (255 * lengths).round().clamp(min=1) / 255

    def is_wrong(self, places: Tensor, x: Tensor) -> Tensor:
        """Look up whether another class wins; for a sample without queries left, nobody looks, and the answer is no."""
        wrong = torch.zeros_like(places, dtype=torch.bool)
        asking = (self.queries[places] < self.attack.queries).nonzero().squeeze(1)
        if len(asking):
            self.queries[places[asking]] += 1
            wrong[asking] = ~correct(self.target.logits(x[asking].to(self.x)), self.labels[places[asking]])
        return wrong

    def result(self) -> Tensor:
        """Return what is wrong within the ball, and else its nearest point to what was found."""
        return project(self.nearest, self.x, self.attack.eps, self.target.bounds)
