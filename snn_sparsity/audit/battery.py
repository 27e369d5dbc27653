"""Which attacks an audit runs: by protocol and budget, cheap and strong ones first."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from snn_sparsity.attacks import APGD, EOT, FGSM, PGD, SAPGD, AnnealedPGD, CodeBookAscent, Noise, RayS, Square
from snn_sparsity.attacks.base import Attack, LossName
from snn_sparsity.attacks.bpda import BPDA
from snn_sparsity.gradient_rules import (
    ASSG,
    BPTR,
    PDSG,
    RGA,
    DetachedReset,
    GradientRule,
    PoolGradient,
    SurrogateShape,
)

BudgetName = Literal["quick", "standard", "full"]
Group = Literal["claim", "noise", "standard", "scale-free", "codebook", "rules", "pool", "blackbox", "transfer", "sweep"]
"""``scale-free`` losses belong to the standard attacks, unless cross-entropy has no gradient: then they are its cure, a rule."""


class Job(NamedTuple):
    """An attack under a name, in the group that it is evidence for."""

    name: str
    group: Group
    attack: Attack


@dataclass(frozen=True)
class Budget:
    """How much of everything.

    Attributes:
        samples: Images, unless the user says how many.
        steps: Steps of a gradient attack.
        restarts: Restarts of PGD in the standard group.
        targets: Classes that the targeted attack tries.
        noise: Random draws.
        queries: Queries of a black-box attack.
        radii: Levels of the eps sweep.
        rules: How many backward rules.
        probes: Images of the costlier diagnostics.
        planted: Images with a planted example: a thousand forward passes each, and an attack.
    """

    samples: int
    steps: int
    restarts: int
    targets: int
    noise: int
    queries: int
    radii: tuple[int, ...]
    rules: int
    probes: int
    planted: int


BUDGETS: dict[BudgetName, Budget] = {
    "quick": Budget(48, 10, 1, 0, 10, 50, (32, 128, 255), 4, 8, 0),
    "standard": Budget(256, 50, 3, 3, 50, 1000, (2, 4, 16, 32, 64, 128, 255), 8, 32, 64),
    "full": Budget(1000, 100, 10, 9, 100, 5000, (1, 2, 4, 16, 32, 64, 128, 255), 12, 64, 64),
}

# In the order of what they gained most often (docs/audit.md): a small budget runs the first ones.
RULES: dict[str, GradientRule] = {
    "alpha 1": SurrogateShape("atan", 1.0),
    "adaptive sharpness": ASSG(),
    "alpha 8": SurrogateShape("atan", 8.0),
    "rate gradient": RGA(),
    "attached reset": DetachedReset(detached=False),
    "potential dependent": PDSG(),
    "triangle": SurrogateShape("triangle", 1.0),
    "fired at least once": BPTR(),
    "alpha 4": SurrogateShape("atan", 4.0),
    "sigmoid": SurrogateShape("sigmoid", 4.0),
    "gaussian": SurrogateShape("gaussian", 2.0),
    "alpha 16": SurrogateShape("atan", 16.0),
}
POOLS: dict[str, GradientRule] = {
    "ties shared": PoolGradient("ties"),
    "softmax": PoolGradient("softmax"),
    "uniform": PoolGradient("uniform"),
}
ALPHA = 0.01
"""Step of the paper's PGD, in units of the input."""


class Facts(NamedTuple):
    """What decides which attacks make sense.

    Attributes:
        random: The network or its code gives other logits at each call.
        spiking: There are neurons whose surrogate a rule can change.
        max_pooling: There is a max pooling.
        code_book: The code works pixel by pixel.
        num_classes: K; the DLR loss needs three, its targeted form four.
    """

    random: bool
    spiking: bool
    max_pooling: bool
    code_book: bool
    num_classes: int


def step_length(eps: float, steps: int) -> float:
    """Return a step that can cross the ball in 40 % of the steps (Madry et al., arXiv 1706.06083), of a grey level at least."""
    return max(2.5 * eps / steps, 1 / 255)


def jobs(protocol: str, budget: Budget, eps: float, facts: Facts) -> list[Job]:
    """Return the attacks of a protocol, in the order in which they run.

    Args:
        protocol: ``image``, ``spikes`` or ``paper``.
        budget: How much.
        eps: Radius of the ball, in units of the input.
        facts: What the network is.

    Example:
        >>> facts = Facts(random=False, spiking=True, max_pooling=True, code_book=True, num_classes=10)
        >>> [job.name for job in jobs("paper", BUDGETS["quick"], 8 / 255, facts)]
        ['fgsm', 'pgd_7']
    """
    coded = protocol == "image" and facts.code_book
    claim = [Job("codebook_10", "claim", CodeBookAscent(eps=eps, steps=10))] if coded else list(_paper(eps))
    if protocol == "paper":
        return claim
    return [*claim, *_standard(coded, budget, eps, facts), *_adaptive(protocol, coded, budget, eps, facts)]


def _paper(eps: float) -> Iterator[Job]:
    """The paper's two attacks, with its numbers."""
    yield Job("fgsm", "claim", FGSM(eps=eps))
    yield Job("pgd_7", "claim", PGD(eps=eps, alpha=ALPHA, steps=7, keep="last"))


def _standard(coded: bool, budget: Budget, eps: float, facts: Facts) -> Iterator[Job]:
    """Attacks A1-A3 with the gradient that the network declares itself."""

    def pgd(loss: LossName) -> Attack:
        descent = AnnealedPGD if coded else PGD
        return descent(eps=eps, alpha=step_length(eps, budget.steps), steps=budget.steps, random_start=True, loss=loss)

    yield Job("fgsm", "standard", FGSM(eps=eps))
    for restart in range(budget.restarts):
        yield Job(f"pgd_{budget.steps}" + (f" (restart {restart})" if restart else ""), "standard", pgd("ce"))
    yield Job(f"apgd_{budget.steps}", "standard", APGD(eps=eps, steps=budget.steps, loss="ce"))
    yield Job(f"pgd_{budget.steps} (margin)", "scale-free", pgd("margin"))
    if facts.num_classes >= 3:
        yield Job(f"apgd_{budget.steps} (dlr)", "scale-free", APGD(eps=eps, steps=budget.steps, loss="dlr"))
    if facts.num_classes >= 4:
        for rank in range(2, 2 + min(budget.targets, facts.num_classes - 1)):
            yield Job(f"apgd_{budget.steps} (class {rank})", "scale-free", APGD(eps=eps, steps=budget.steps, loss="targeted", rank=rank))


def _adaptive(protocol: str, coded: bool, budget: Budget, eps: float, facts: Facts) -> Iterator[Job]:
    """Attacks that know what the network does to gradients, and attacks that use none."""
    image = protocol == "image"
    yield Job("noise", "noise", Noise(eps=eps, draws=budget.noise, kind="levels" if image else "uniform"))
    yield Job("noise (corners)", "noise", Noise(eps=eps, draws=budget.noise, kind="corners"))
    if coded:
        yield Job("codebook_1", "codebook", CodeBookAscent(eps=eps, steps=1))
        yield Job(f"codebook_{2 * budget.steps}", "codebook", CodeBookAscent(eps=eps, steps=2 * budget.steps, loss="margin"))
        random = CodeBookAscent(eps=eps, steps=budget.steps, random_start=True, restarts=budget.restarts)
        yield Job(f"codebook_{budget.steps} (random start)", "codebook", random)
    host: Attack = CodeBookAscent(eps=eps, steps=budget.steps, loss="margin") if coded else SAPGD(eps=eps, steps=budget.steps)
    if not coded:
        yield Job(f"sapgd_{budget.steps}", "rules", host)
    if facts.spiking:
        for name, rule in list(RULES.items())[: budget.rules]:
            yield Job(name, "rules", BPDA(host, rule, eps=eps))
    if facts.random:
        yield Job("pgd (EOT)", "rules", EOT(PGD(alpha=step_length(eps, budget.steps), steps=budget.steps, loss="margin"), eps=eps))
    if facts.max_pooling:
        for name, rule in POOLS.items():
            yield Job(f"pool {name}", "pool", BPDA(host, rule, eps=eps))
    yield Job(f"square_{budget.queries}", "blackbox", Square(eps=eps, queries=budget.queries))
    if image:
        yield Job(f"square_{budget.queries} (levels)", "blackbox", Square(eps=eps, queries=budget.queries, lattice=True))
    yield Job(f"rays_{budget.queries}", "blackbox", RayS(eps=eps, queries=budget.queries))
