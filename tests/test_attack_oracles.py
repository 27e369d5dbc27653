"""Attacks beside independent implementations (pyautoattack 0.2, a scalar loop), closed forms, and a meter."""

from contextlib import contextmanager
from math import cos, sin, sqrt

import pytest
import torch
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.square import SquareAttack
from torch import nn

from snn_sparsity.attacks import APGD, SAPGD, Noise, Square
from snn_sparsity.attacks.apgd import Climb
from snn_sparsity.attacks.base import Passes, margin, random_corners
from snn_sparsity.attacks.metering import Meter, Metered

# A power of two and inputs that are multiples of 1/1024: sums are exact, so that equality can be asked for bit by bit.
EPS = 1 / 32


class Recorded:
    """Any function as a target in image space that keeps what it was asked."""

    space, bounds = "image", (0.0, 1.0)

    def __init__(self, function):
        self.function = function
        self.asked = []

    def logits(self, x):
        self.asked.append(x.detach().clone())
        return self.function(x)

    def reset_asked(self):
        self.asked = []


def generator(seed=3):
    return torch.Generator().manual_seed(seed)


def networks(dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        cnn = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 5))
        linear = nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).to(dtype)
        # On waves long steps overshoot, so that a loss may rise again and again below the start's.
        return {"cnn": cnn.to(dtype), "linear": linear, "waves": lambda x: linear((40 * x).sin())}


def images(count=6, dtype=torch.float32):
    return torch.randint(0, 1025, (count, 3, 16, 16), generator=generator(2)).to(dtype) / 1024


def same(mine, theirs):
    return len(mine) == len(theirs) and all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


@contextmanager
def everything_in(dtype, seed):
    """pyautoattack draws from the global generator and keeps its books in the default type."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


# Auto-PGD ------------------------------------------------------------------------------------------------------------------


def pyautoattack_apgd(target, attack, x, labels, start=None, seed=0):
    """The points that pyautoattack asks for, and who is still right after them."""
    settings = {"n_iter": attack.steps, "eps": attack.eps, "rho": attack.rho}
    with everything_in(x.dtype, seed):
        if attack.loss == "targeted":
            theirs = APGDAttack_targeted(target.logits, **settings)
            theirs.y_target = target.function(x).sort(dim=1).indices[:, -attack.rank]
        else:
            theirs = APGDAttack(target.logits, loss=attack.loss, **settings)
        theirs.init_hyperparam(x)
        _, right, _, _ = theirs.attack_single_run(x, labels, x_init=start)
    asked = target.asked
    target.reset_asked()
    return asked, right


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", ["cnn", "linear", "waves"])
@pytest.mark.parametrize(
    "attack",
    [
        APGD(eps=EPS, steps=40, random_start=False),
        APGD(eps=4 * EPS, steps=100, random_start=False),
        APGD(eps=4 * EPS, steps=10, rho=0.25, random_start=False),
        APGD(eps=EPS, steps=1, random_start=False),
        APGD(eps=EPS, steps=40, loss="dlr", random_start=False),
        APGD(eps=EPS, steps=40, loss="targeted", random_start=False),
        APGD(eps=EPS, steps=30, loss="targeted", rank=4, rho=0.5, random_start=False),
    ],
    ids=str,
)
def test_apgd_goes_through_the_points_of_pyautoattack_bit_for_bit(attack, name, dtype):
    target, x = Recorded(networks(dtype)[name]), images(dtype=dtype)
    labels = target.function(x).argmax(1)
    theirs, right = pyautoattack_apgd(target, attack, x, labels, start=x)
    attacked = attack(target, x, labels)
    mine = target.asked[1:] if attack.loss == "targeted" else target.asked
    assert same(mine, theirs)
    assert torch.equal(margin(target.function(attacked), labels) > 0, ~right)
    assert not torch.equal(attacked, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_apgd_s_random_start_is_that_of_pyautoattack(dtype):
    target, x, labels = Recorded(networks(dtype)["cnn"]), images(dtype=dtype), torch.tensor([0, 1, 2, 3, 4, 0])
    attack = APGD(eps=EPS, steps=9)
    theirs, _ = pyautoattack_apgd(target, attack, x, labels, seed=5)
    attack(target, x, labels, generator(5))
    assert same(target.asked, theirs)
    assert not torch.equal(target.asked[0], x)


def test_that_equality_covers_samples_that_go_back_and_others_that_do_not(monkeypatch):
    halved, went_back = [], []
    slow_down = Climb.slow_down

    def spy(climb, now, rho):
        then = slow_down(climb, now, rho)
        halved.append(climb.halved)
        went_back.append((then.x != now.x).flatten(1).any(1))
        return then

    monkeypatch.setattr(Climb, "slow_down", spy)
    target, x = Recorded(networks()["cnn"]), images()
    APGD(eps=4 * EPS, steps=100, random_start=False)(target, x, target.function(x).argmax(1))
    assert any(now.any() and not now.all() for now in halved)
    assert torch.stack(went_back).any()


# Square --------------------------------------------------------------------------------------------------------------------


def pyautoattack_square(target, attack, x, labels, draws):
    """The points that pyautoattack asks for and its result, with random numbers from a generator.

    One correction: its squares never touch the last row and column (its random_int leaves out the last place).
    """
    theirs = SquareAttack(target.logits, n_queries=attack.queries, eps=attack.eps, p_init=attack.share, resc_schedule=False)
    theirs.init_hyperparam(x)
    theirs.random_choice = lambda shape: random_corners(torch.empty(shape), 1.0, draws)
    theirs.random_int = lambda low, high: torch.randint(low, high + 1, (1,), generator=draws)
    _, attacked = theirs.attack_single_run(x, labels)
    asked = target.asked
    target.reset_asked()
    return asked, attacked


@pytest.mark.parametrize("name", ["cnn", "linear"])
@pytest.mark.parametrize("eps", [EPS, EPS / 4])
def test_square_asks_for_the_points_of_pyautoattack_bit_for_bit(eps, name):
    target, x = Recorded(networks()[name]), images(12)
    labels, attack = target.function(x).argmax(1), Square(eps=eps, queries=110)
    with torch.no_grad():
        theirs, result = pyautoattack_square(target, attack, x, labels, generator())
    attacked = attack(target, x, labels, generator())
    assert same(target.asked, theirs)
    assert torch.equal(attacked, result)
    if eps == EPS:
        sizes = {len(asked) for asked in target.asked}
        assert len(sizes) > 2, "the test should meet samples that leave the batch"


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 16), (3, 5)])
def test_square_s_sides_are_those_of_pyautoattack(height, width):
    theirs = SquareAttack(None, p_init=0.8, resc_schedule=False, eps=EPS)
    for query in range(10000):
        side = max(round(sqrt(theirs.p_selection(query) * height * width)), 1)
        assert Square().side(query, height, width) == min(side, height, width)


# SA-PGD --------------------------------------------------------------------------------------------------------------------

WAVES = [0.9, -0.4, 0.05]


def wavy(x):
    """Logits (0, sum a sin 20 x): with label 0 the margin loss is the sum."""
    wave = (torch.tensor(WAVES, dtype=x.dtype) * (20 * x).sin()).sum(1, keepdim=True)
    return torch.cat([torch.zeros_like(wave), wave], 1)


def slow_sapgd(x0, eps, steps):
    """Every iterate of SA-PGD on ``wavy``, element by element."""
    size, length, points = len(x0), eps, [list(x0)]
    m, v = [0.0] * size, [0.0] * size
    for step in range(1, steps + 1):
        x = points[-1]
        g = [20 * a * cos(20 * value) for a, value in zip(WAVES, x, strict=True)]
        mean = sum(abs(value) for value in g) / size
        mean_square = sum(value * value for value in g) / size
        nxt = []
        for i in range(size):
            m[i] = 0.5 * m[i] + g[i] / mean
            v[i] = 0.8 * v[i] + g[i] * g[i] / mean_square
            t = max(-length, min(length, length * m[i] / (sqrt(v[i]) + 1e-12)))
            nxt.append(max(0.0, min(1.0, max(x0[i] - eps, min(x0[i] + eps, x[i] + t)))))
        points.append(nxt)
        if step in (11, 21, 30, 38, 45):  # 22 % of 50, then intervals one step (3 %, rounded down) shorter each time
            length /= 2
    return points


def test_sapgd_is_a_scalar_loop():
    starts = [[0.5, 0.31, 0.02], [0.9, 0.77, 0.4]]
    target = Recorded(wavy)
    x = torch.tensor(starts, dtype=torch.float64)
    attacked = SAPGD(eps=0.3, steps=50, loss="margin")(target, x, torch.tensor([0, 0]))
    slow = torch.tensor([slow_sapgd(start, 0.3, 50) for start in starts], dtype=torch.float64).transpose(0, 1)
    torch.testing.assert_close(torch.stack(target.asked), slow, rtol=0, atol=1e-9)
    heights = [
        [sum(a * sin(20 * value) for a, value in zip(WAVES, point, strict=True)) for point in points]
        for points in slow.transpose(0, 1).tolist()
    ]
    best = torch.stack([slow[heights[n].index(max(heights[n])), n] for n in range(2)])
    torch.testing.assert_close(attacked, best, rtol=0, atol=1e-9)


# Closed forms --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        APGD(eps=EPS, steps=1),
        APGD(eps=EPS, steps=20, loss="margin"),
        SAPGD(eps=EPS, steps=1),
        SAPGD(eps=EPS, steps=20, loss="margin"),
        Square(eps=EPS, share=1 / 16, queries=400),
    ],
    ids=str,
)
def test_the_optimum_on_a_linear_model_is_the_corner_of_the_weights_signs(attack):
    # Squares of one pixel: all 16 must be found, those of the last row and column too.
    weights = torch.randn(16, generator=generator(6))
    x = torch.rand(3, 1, 4, 4, generator=generator(7)) * 0.8 + 0.1
    target = Recorded(lambda x: torch.stack([torch.full((len(x),), 20.0), x.flatten(1) @ weights], 1))
    attacked = attack(target, x, torch.zeros(3, dtype=torch.int64), generator())
    torch.testing.assert_close(attacked, x + EPS * weights.sign().view(1, 1, 4, 4))


# Costs ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack",
    [
        Noise(),
        Noise(draws=5, kind="levels"),
        APGD(steps=6),
        APGD(steps=1, random_start=False),
        APGD(steps=6, loss="dlr"),
        APGD(steps=6, loss="targeted"),
        SAPGD(steps=6),
        SAPGD(steps=1, loss="margin"),
        Square(queries=7),
        Square(queries=1, lattice=True),
    ],
    ids=str,
)
def test_passes_equal_the_formula(attack):
    labels = torch.tensor([0, 1])
    # A constant lead that nothing in the ball can make up for: no sample leaves.
    lead = 100 * nn.functional.one_hot(labels, 4)
    meter = Meter(labels)
    attack(Metered(Recorded(lambda x: x.flatten(1)[:, :4] + lead), meter), images(2), labels)
    assert Passes(meter.forwards, meter.backwards) == Passes(*(2 * count for count in attack.passes))


def test_square_costs_less_where_samples_are_fooled():
    # The dark image never loses its label 0, the bright one has lost it before the first square.
    target = Recorded(lambda x: torch.stack([100 * (x.flatten(1).mean(1) < 0.5), torch.ones(len(x))], 1))
    x, labels = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 1, 4, 4), torch.tensor([0, 0])
    meter = Meter(labels)
    Square(eps=EPS, queries=20)(Metered(target, meter), x, labels)
    assert meter.forwards == 2 + 20
    assert [len(asked) for asked in target.asked] == [2] + 20 * [1]
