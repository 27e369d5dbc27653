"""Which attacks an audit runs, by budget and protocol."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

from snn_sparsity.attacks import (
    APGD,
    BPDA,
    EOT,
    FGSM,
    MDSE,
    PGD,
    SAPGD,
    SPSA,
    AnnealedPGD,
    CodeBookAscent,
    HopSkipJump,
    Noise,
    RandomFlips,
    RayS,
    SpikeFlips,
    Square,
)
from snn_sparsity.attacks.base import Attack, LossName
from snn_sparsity.audit.evidence import Family, Role
from snn_sparsity.gradient_rules import (
    ASSG,
    BPTR,
    PDSG,
    RGA,
    DetachedReset,
    GradientRule,
    PoolGradient,
    StraightThrough,
    SurrogateShape,
    Unblocked,
)

BudgetName = Literal["quick", "standard", "full"]


class Job(NamedTuple):
    """An attack under a name, and what it is evidence for."""

    name: str
    role: Role
    attack: Attack
    family: Family = "none"
    stream: str = ""


@dataclass(frozen=True)
class Budget:
    """How much of everything.

    Attributes:
        samples: Images, unless the user says how many.
        steps: Steps of a gradient attack.
        restarts: Restarts of PGD in the native battery.
        references: Restarts that the arms are compared with, at least.
        targets: Classes that the targeted attack tries.
        noise: Random draws.
        queries: Queries of a black-box attack.
        radii: Levels of the eps sweep.
        rules: How many backward rules.
        probes: Images of the costlier diagnostics.
        planted: Images with a planted example: a thousand forward passes each, and an attack.
        draws: Of a random network that an attack averages over.
        walk: Queries of HopSkipJump; 0 leaves it out.
        mixed: Steps of MDSE over five surrogates; 0 leaves it out.
    """

    samples: int
    steps: int
    restarts: int
    references: int
    targets: int
    noise: int
    queries: int
    radii: tuple[int, ...]
    rules: int
    probes: int
    planted: int
    draws: int
    walk: int = 0
    mixed: int = 0


BUDGETS: dict[BudgetName, Budget] = {
    "quick": Budget(256, 10, 1, 4, 0, 10, 150, (32, 128, 255), 5, 8, 0, 5),
    "standard": Budget(256, 50, 3, 8, 3, 50, 1000, (2, 4, 16, 32, 64, 128, 255), 10, 32, 64, 10, 1000, 20),
    "full": Budget(1000, 100, 10, 12, 9, 100, 5000, (1, 2, 4, 16, 32, 64, 128, 255), 16, 64, 64, 20, 5000, 40),
}

# In the order of what they gained most often (docs/audit.md): a small budget runs the first ones.
RULES: dict[str, GradientRule] = {
    "ATan, alpha 1": SurrogateShape("atan", 1.0),
    "ASSG": ASSG(),
    "RGA": RGA(),
    "attached reset": DetachedReset(detached=False),
    "ATan, alpha 8": SurrogateShape("atan", 8.0),
    "PDSG": PDSG(),
    "triangle": SurrogateShape("triangle", 1.0),
    "BPTR": BPTR(),
    "ASSG, triangle": ASSG("triangle"),
    "ASSG, Gaussian": ASSG("gaussian"),
    "ASSG, sigmoid": ASSG("sigmoid"),
    "ASSG, rect": ASSG("rect"),
    "ATan, alpha 4": SurrogateShape("atan", 4.0),
    "sigmoid": SurrogateShape("sigmoid", 4.0),
    "Gaussian": SurrogateShape("gaussian", 2.0),
    "ATan, alpha 16": SurrogateShape("atan", 16.0),
}
POOLS: dict[str, GradientRule] = {"max pooling shares ties": PoolGradient("ties"), "max pooling as average": PoolGradient("uniform")}
ALPHA = 0.01
"""Step of the paper's PGD, in units of the input."""
UNBOUNDED = 1.0
MAIN, LOSS, DRAWS, ANYWHERE = "main", "cross-entropy", "draws", "unbounded"
"""Streams of references: restarts of the native attack, of its cross-entropy form, of it on single draws, and of it in the largest ball."""


class Facts(NamedTuple):
    """What decides which attacks make sense.

    Attributes:
        random: The network or its code gives other logits at each call.
        spiking: There are neurons whose surrogate a rule can change.
        max_pooling: There is a max pooling.
        coded: Pixels pass a code book that is no straight line: its own gradient is a box average's.
        num_classes: K; the DLR loss needs three, its targeted form four.
        blocked: Modules that block the gradient, to be passed straight through.
        why_no_rules: Why surrogate rules do not apply; empty where they do.
        idle: By name, why rules are not tried on this network.
    """

    random: bool
    spiking: bool
    max_pooling: bool
    coded: bool
    num_classes: int
    blocked: tuple[str, ...] = ()
    why_no_rules: str = ""
    idle: Mapping[str, str] = MappingProxyType({})


def step_length(eps: float, steps: int) -> float:
    """Return a step that can cross the ball in 40 % of the steps (Madry et al., arXiv 1706.06083), of a grey level at least."""
    return min(max(2.5 * eps / steps, 1 / 255), 1.0)


@dataclass(frozen=True)
class Battery:
    """The attacks of one protocol.

    Args:
        image: Whether pixels are attacked.
        budget: How much.
        eps: Radius of the ball, in units of the input.
        facts: What the network is.
    """

    image: bool
    budget: Budget
    eps: float
    facts: Facts

    @property
    def coded(self) -> bool:
        """Whether code-book ascent is the attack with the network's own gradient."""
        return self.image and self.facts.coded

    def host(self, loss: LossName = "margin", eps: float | None = None, steps: int | None = None) -> Attack:
        """Return the native attack that arms change one thing of, from a random start; of a random network on the mean of its draws."""
        return self._averaged(self._single(loss, self.eps if eps is None else eps, steps or self.budget.steps))

    def _single(self, loss: LossName, eps: float, steps: int) -> Attack:
        """Return the native attack on one draw a step."""
        if self.coded:
            return CodeBookAscent(eps=eps, steps=steps, loss=loss, random_start=True)
        return PGD(eps=eps, alpha=step_length(eps, steps), steps=steps, loss=loss)

    def cross_entropy(self) -> Iterator[Job]:
        """Attacks with the network's own gradient, on cross-entropy."""
        steps = self.budget.steps
        yield self._native("FGSM", FGSM(eps=self.eps) if not self.coded else CodeBookAscent(eps=self.eps, steps=1))
        if self.coded:
            yield self._native(f"code-book ascent, {steps} steps", CodeBookAscent(eps=self.eps, steps=steps))
        for restart in range(self.budget.restarts):
            yield Job(f"{self._name}, {steps} steps, start {restart + 1}", "native", self.host("ce"))
        if not self.coded:
            yield self._native(f"APGD, {steps} steps", APGD(eps=self.eps, steps=steps, loss="ce"))
            yield self._native(f"SA-PGD, {steps} steps", SAPGD(eps=self.eps, steps=steps))

    def scale_free(self) -> Iterator[Job]:
        """Attacks with the network's own gradient, on losses that no scale of the logits changes."""
        steps, classes = self.budget.steps, self.facts.num_classes
        if self.coded:
            yield self._native(f"code-book ascent, {2 * steps} steps, margin", CodeBookAscent(eps=self.eps, steps=2 * steps, loss="margin"))
            return
        yield Job(f"PGD, {steps} steps, margin", "native", self.host("margin"))
        if classes >= 3:
            yield self._native(f"APGD, {steps} steps, DLR", APGD(eps=self.eps, steps=steps, loss="dlr"))
        for rank in range(2, 2 + min(self.budget.targets, classes - 1) * (classes >= 4)):
            yield self._native(f"APGD, {steps} steps, class {rank}", APGD(eps=self.eps, steps=steps, loss="targeted", rank=rank))

    def loss_arm(self) -> list[Job]:
        """Compare losses where cross-entropy has no gradient."""
        reference = Job("cross-entropy again", "reference", self.host("ce"), stream=LOSS)
        return [reference, Job("margin loss", "arm", self.host("margin"), "loss", LOSS)]

    def averaging(self) -> tuple[list[Job], list[Job]]:
        """Compare, on a random network, the native attack on one draw a step with that on their mean, at the same cost."""
        if not self.facts.random:
            return [], []
        single, mean = self._single("margin", self.eps, self.budget.steps), self.host()
        count = -int(-cost(mean) // cost(single))
        references = [
            Job(f"{self._name} on one draw a step, start {number + 1}", "reference", single, stream=DRAWS) for number in range(count)
        ]
        return references, [Job(f"{self._name} on the mean of {self.budget.draws} draws", "arm", mean, "averaging", DRAWS)]

    def references(self) -> list[Job]:
        """Restarts of the native attack, for as many passes as the costliest arm and all rules together take."""
        host = self.host()
        arms = [job for job in self.arms() if job.attack.eps == self.eps]
        rules = sum(cost(job.attack) for job in arms if job.family == "rules")
        needed = max([rules, *(cost(job.attack) for job in arms)], default=0.0)
        count = max(self.budget.references, -int(-needed // cost(host)))
        return [Job(f"{self._name} again, start {number + 1}", "reference", host, stream=MAIN) for number in range(count)]

    def rules(self) -> dict[str, GradientRule]:
        """Return the backward rules that the budget tries, by name; those that change no gradient of this network are left out."""
        found: dict[str, GradientRule] = {}
        if self.facts.blocked:
            found[f"straight through {', '.join(self.facts.blocked)}"] = Unblocked(self.facts.blocked)
        found["straight through rounding"] = StraightThrough()
        found |= dict(list(RULES.items())[: self.budget.rules]) if self.facts.spiking else {}
        found |= POOLS if self.facts.max_pooling else {}
        return {name: rule for name, rule in found.items() if name not in self.facts.idle}

    def arms(self) -> list[Job]:
        """Attacks that change one thing of the native one, or need no gradient."""
        host, eps, mixed = self.host(), self.eps, self.budget.mixed
        found: list[tuple[str, Attack, Family]] = [(name, BPDA(host, rule, eps=eps), "rules") for name, rule in self.rules().items()]
        if mixed and any(isinstance(rule, SurrogateShape) for rule in self.rules().values()):
            found.append((f"MDSE, {mixed} steps", self._averaged(MDSE(self._single("margin", eps, mixed), eps=eps)), "rules"))
        if self.coded:
            steps = self.budget.steps
            annealed = AnnealedPGD(eps=eps, alpha=step_length(eps, steps), steps=steps, random_start=True, loss="margin")
            found.append(("box smoothing", self._averaged(annealed), "rules"))
        found += [(name, self._averaged(attack), "no gradient") for name, attack in self._without_gradients()]
        return [Job(name, "arm", attack, family, MAIN) for name, attack, family in found]

    def _without_gradients(self) -> Iterator[tuple[str, Attack]]:
        queries, walk = self._looks(self.budget.queries), self._looks(self.budget.walk)
        yield "noise", Noise(eps=self.eps, draws=self._looks(self.budget.noise), kind="levels" if self.image else "uniform")
        yield f"Square, {queries} queries", Square(eps=self.eps, queries=queries)
        if self.coded:
            yield f"Square on grey levels, {queries} queries", Square(eps=self.eps, queries=queries, lattice=True)
        yield f"RayS, {queries} queries", RayS(eps=self.eps, queries=queries)
        if self.budget.walk:
            yield f"HopSkipJump, {walk} queries", HopSkipJump(eps=self.eps, queries=walk)
        directions = 8
        spsa = SPSA(eps=self.eps, steps=max(queries // (2 * directions + 1), 1), directions=directions, alpha=step_length(self.eps, 5))
        yield f"SPSA, {spsa.passes.forwards} queries", spsa

    def _looks(self, queries: int) -> int:
        """Return how often a black box may look: of a random network at the mean of several draws, for the same cost."""
        return max(queries // self.budget.draws, 1) if self.facts.random else queries

    def _native(self, name: str, attack: Attack) -> Job:
        return Job(name, "native", self._averaged(attack))

    def _averaged(self, attack: Attack) -> Attack:
        return EOT(attack, draws=self.budget.draws, eps=attack.eps) if self.facts.random else attack

    @property
    def _name(self) -> str:
        return "code-book ascent" if self.coded else "PGD"


@dataclass(frozen=True)
class FlipBattery(Battery):
    """The attacks where spikes are flipped, at most so many.

    Args:
        flips: How many.
    """

    flips: int = 100

    def _single(self, loss: LossName, eps: float, steps: int) -> Attack:
        return SpikeFlips(eps=eps, flips=self.flips, steps=steps, loss=loss, random_start=True)

    def cross_entropy(self) -> Iterator[Job]:
        """Flips by the network's own gradient, on cross-entropy."""
        for steps in (1, self.budget.steps):
            yield self._native(f"flips, {steps} steps", SpikeFlips(flips=self.flips, steps=steps, loss="ce"))
        for restart in range(self.budget.restarts):
            yield Job(f"flips, {self.budget.steps} steps, start {restart + 1}", "native", self.host("ce"))

    def scale_free(self) -> Iterator[Job]:
        """Flips by the network's own gradient, on the margin."""
        yield self._native(f"flips, {2 * self.budget.steps} steps, margin", SpikeFlips(flips=self.flips, steps=2 * self.budget.steps))

    def _without_gradients(self) -> Iterator[tuple[str, Attack]]:
        for queries in (self._looks(self.budget.noise), self._looks(self.budget.queries)):
            yield f"random flips, {queries} queries", RandomFlips(flips=self.flips, queries=queries)

    @property
    def _name(self) -> str:
        return "flips"


def quoted(eps: float) -> Attack:
    """Return the attack that is quoted where nobody says which: the paper's."""
    return PGD(eps=eps, alpha=ALPHA, steps=7, keep="last")


def cost(attack: Attack) -> float:
    """Return units an image: a backward pass is worth two forward passes."""
    return attack.passes.forwards + 2 * attack.passes.backwards
