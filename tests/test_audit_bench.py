"""The bench of the audit: its truths, its rates, and the whole of it on two tiny networks."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.audit_bench import run, truth, zoo
from benchmarks.audit_bench.data import Digits, digits
from benchmarks.audit_bench.layers import Function, Normalise, quantised, straight_quantised
from benchmarks.audit_bench.rejudge import Audited, Rates, Seen, Won, choose, look, modal, rates, subsets, words
from benchmarks.audit_bench.truth import Truth, measure
from benchmarks.audit_bench.zoo import EPS, KINDS, Built, Kind
from snn_sparsity.audit.evidence import Evidence
from snn_sparsity.audit.judge.answers import judge
from snn_sparsity.audit.judge.thresholds import CALIBRATED
from snn_sparsity.validation import InputError
from tests.test_verdict import EVEN, LEFT, NATIVE, again, arm, attack, evidence

ALL = 500


def known(meant="honest", quoted=300, native=300, knowing=300, **more):
    """What is true of a network of 500 images, at both efforts alike."""
    by_effort = [value if isinstance(value, dict) else {"short": value, "long": value} for value in (native, knowing)]
    made = {"meant": meant, "images": ALL, "clean": 480, "quoted": quoted, "native": by_effort[0], "knowing": by_effort[1], "left": 200}
    return Truth(**(made | more))


def linear(train):
    """Each class's mean image, less what all classes share: a template for each class."""
    means = torch.stack([train.pixels[train.labels == label].mean(0).flatten() for label in range(10)])
    layer = nn.Linear(64, 10)
    with torch.no_grad():
        layer.weight.copy_(20 * (means - means.mean(0)))
        layer.bias.copy_(-10 * means.square().sum(1) - layer.weight @ torch.full((64,), 0.0))
    return nn.Sequential(Normalise(), nn.Flatten(), layer).eval()


TINY = [
    Kind("open", "honest", "nothing hides", lambda train: Built(linear(train)), "choose"),
    Kind(
        "shut", "masked", "a rounding hides", lambda train: Built(zoo.in_front(quantised, linear(train)), [linear(train)]), "report"
    ),
]  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(run, "KINDS", TINY)
    monkeypatch.setattr(truth, "STEPS", {"short": 3, "long": 5})
    monkeypatch.setattr(run, "identity_of", lambda kind, images: {"name": kind.name, "images": images})


def test_the_whole_bench_on_two_tiny_networks_and_again_without_auditing(tiny, tmp_path, monkeypatch):
    table = run.bench(tmp_path, images=40, subsets_=4, size=20)
    assert "| open | choose |" in table
    assert "| shut | report |" in table
    result = json.loads((tmp_path / "table.json").read_text())
    rows = {row["name"]: row for row in result["networks"]}
    assert rows["shut"]["fault"] == "masked"
    assert rows["shut"]["all_images"] == "MASKED"
    assert all(row["worst"] <= row["truth"]["quoted"] for row in rows.values())
    assert (result["rates"]["choose"]["honest"], result["rates"]["report"]["faulty"]) == (1, 1)
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    monkeypatch.setattr(run, "examine", lambda *_: pytest.fail("what is audited already is not audited again"))
    assert run.bench(tmp_path, images=40, subsets_=4, size=20) == table
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == written


def test_other_attacks_and_another_network_are_audited_again(tmp_path, monkeypatch):
    kind = KINDS[0]
    before = run.identity_of(kind, 24)
    assert run.identity_of(kind, 24) == before
    assert run.identity_of(kind, 25) != before
    assert run.identity_of(replace(kind, build=KINDS[1].build), 24) != before
    monkeypatch.setattr(run, "ATTACKS", ("attacks",))
    assert run.identity_of(kind, 24) != before


def test_a_name_that_is_none_and_subsets_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(InputError, match="no network has such a name"):
        run.bench(tmp_path, only="quantum")
    with pytest.raises(InputError, match="at least one image and at most all"):
        run.bench(tmp_path, images=10, size=11)
    assert not list(tmp_path.iterdir())


# Truth -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "fault"),
    [
        ({}, "none"),
        ({"knowing": 290}, "none"),  # 2 points
        ({"knowing": 289}, "between"),
        ({"knowing": 275}, "masked"),  # 5 points
        ({"knowing": 340}, "none"),
        ({"quoted": 320}, "none"),  # 4 points
        ({"quoted": 321}, "between"),
        ({"quoted": 340}, "weak"),  # 8 points
        ({"quoted": 340, "knowing": 275}, "masked"),
        ({"meant": "not valid", "knowing": 0}, "not valid"),
    ],
)
def test_faults(counts, fault):
    assert known(**counts).fault == fault


def test_either_effort_shows_what_is_hidden():
    assert known(native={"short": 400, "long": 300}, knowing={"short": 300, "long": 300}).fault == "masked"
    assert known(native={"short": 300, "long": 300}, knowing={"short": 300, "long": 200}).fault == "masked"


def test_no_answer_about_a_network_in_between_is_wrong_but_an_accusation_of_the_wrong_kind():
    assert known(quoted=325).accepted == {"NO SIGN OF MASKING", "WEAK ATTACK"}
    assert known(knowing=285).accepted == {"NO SIGN OF MASKING", "WEAK ATTACK", "MASKED"}


def test_the_certified_margin_is_exact():
    """The nearest corner of the ball to each other class breaks exactly the images that are not certified."""
    train, test = digits()
    network, images = linear(train), Digits(test.images[:100], test.labels[:100])
    certified = zoo.linear_margin(network, images)
    weights = network[-1].weight.detach()
    with torch.no_grad():
        broken = network(images.pixels).argmax(1) != images.labels
        for other in range(10):
            corner = EPS * (weights[other] - weights[images.labels]).sign().view(-1, 1, 8, 8)
            broken |= network(images.pixels + corner).argmax(1) != images.labels
    assert torch.equal(certified, ~broken)
    assert 0 < certified.sum() < 100


def test_who_knows_finds_what_rounding_hides(monkeypatch):
    monkeypatch.setattr(truth, "STEPS", {"short": 3, "long": 5})
    train, test = digits()
    images = Digits(test.images[:60], test.labels[:60])
    found = measure(TINY[1], TINY[1].build(train), images)
    assert found.knowing["short"] < found.native["short"] == found.quoted
    assert found.left <= min(*found.native.values(), *found.knowing.values())
    assert measure(TINY[0], TINY[0].build(train), images).fault in ("none", "weak", "between")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.meant == "masked"], ids=lambda kind: kind.name)
def test_who_knows_attacks_the_same_decision(kind, monkeypatch):
    """A twin is another gradient and no other network; untrained ones decide alike too."""
    monkeypatch.setattr(zoo, "learn", lambda model, *_, **__: model.eval())
    torch.manual_seed(0)
    train, test = digits()
    built, few = kind.build(train), Digits(test.images[:20], test.labels[:20])
    assert built.twins
    hunt = truth._Hunt(built, few)
    logits = [hunt._target(network, few.labels).logits(few.pixels).detach() for network in (built.model, *built.twins)]
    # A shake moves logits a little at each call.
    assert all(torch.equal(logits[0].argmax(1), other.argmax(1)) or built.random for other in logits[1:])


def test_kinds_are_enough_and_in_both_halves():
    meant = {kind.name: kind.meant for kind in KINDS}
    assert len(KINDS) >= 20
    assert sum(value == "masked" for value in meant.values()) >= 10
    assert sum(value == "honest" for value in meant.values()) >= 8
    for value in set(meant.values()):
        halves = [kind.half for kind in KINDS if kind.meant == value]
        assert abs(halves.count("choose") - halves.count("report")) <= 1


def test_a_straight_quantiser_has_the_value_and_a_gradient():
    x = torch.rand(1, 1, 8, 8, requires_grad=True)
    assert torch.equal(straight_quantised(x), quantised(x))
    (gradient,) = torch.autograd.grad(straight_quantised(x).sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))
    assert F.mse_loss(Function(quantised)(x), x) < 1 / 31**2


# Rates and thresholds --------------------------------------------------------------------------------------------------------


def audited(name="a", half="choose", **counts):
    return Audited(name=name, half=half, truth=known(**counts), evidence=evidence())


def test_rates_by_hand():
    networks = [audited(), audited(knowing=100), audited(knowing=289), audited(quoted=400)]
    answers = [
        ["NO SIGN OF MASKING"] * 3 + ["MASKED"],
        ["MASKED"] * 2 + ["WEAK ATTACK"] * 2,
        ["MASKED"] * 4,
        ["WEAK ATTACK", "MASKED", "NO SIGN OF MASKING", "NO SIGN OF MASKING"],
    ]
    # Honest are the first and the last: one answer of four each accuses falsely. Faulty are the second, missed twice, and the last, missed
    # three times. The third is in between: nothing is held against an answer, and it alone always gets the same.
    assert rates(networks, answers) == Rates(
        honest=2, false=0.25, faulty=2, missed=(0.5 + 0.75) / 2, stable=0.25, same=(0.75 + 0.5 + 1 + 0.5) / 4
    )  # fmt: skip


def test_the_thresholds_that_are_chosen_accuse_nobody_and_miss_nothing():
    """A sound network with a gain of 1 point at p = .005, a masked one with 10 points at p = .0005."""
    sound, masked = Seen(True, [Won(0.005, 0.01)], Won(0.005, 0.01), False), Seen(True, [Won(0.0005, 0.1)], Won(1.0, 0.0), False)
    chosen, tried = choose([audited(), audited(knowing=100)], [[sound] * 4, [masked] * 4])
    assert words(sound, chosen) == "NO SIGN OF MASKING"
    assert words(masked, chosen) == "MASKED"
    assert chosen == CALIBRATED, "of several that do as well, what is in use"
    assert {found.false for _, found in tried} == {0.0, 1.0}


@pytest.mark.parametrize(
    "attacks",
    [
        [attack("claim", range(100)), NATIVE, *EVEN],
        [attack("claim", range(100)), NATIVE, again([], LEFT), arm(range(100, 130), LEFT)],
        [attack("claim", range(60)), NATIVE, again([], LEFT), arm([100], LEFT)],
        [NATIVE, *EVEN],
    ],
    ids=["sound", "masked", "weak", "no claim"],
)
def test_the_words_of_the_bench_are_the_judges(attacks):
    network = replace(audited(), evidence=evidence(*attacks))
    for places in [list(range(256)), *subsets(256, 256, 2)]:
        assert words(look(network, places), CALIBRATED) == judge(network.evidence.of(places))["image"].belief


def test_subsets_are_random_without_repetition_and_the_same_each_time():
    found = subsets(50, 20, 3)
    assert found == subsets(50, 20, 3)
    assert all(len(set(places)) == 20 for places in found)
    assert found[0] != found[1]
    assert modal(["MASKED"]) == ("MASKED", 1.0)


# What was audited ------------------------------------------------------------------------------------------------------------

RESULTS = Path(__file__).parents[1] / "results" / "audit_bench"


@pytest.mark.parametrize(
    ("name", "broken", "belief"),
    [
        ("dropout at test time", True, None),
        ("scaled logits", None, "MASKED"),
        ("quantised input", None, "MASKED"),
        ("half the channels detached", True, None),
        ("threshold of three", True, None),
        ("adversarially trained cnn", False, "NO SIGN OF MASKING"),
        ("undefended snn", True, "NO SIGN OF MASKING"),
        ("undefended ann", True, "NO SIGN OF MASKING"),
        ("spike count read out", True, None),
    ],
)
def test_networks_that_the_first_audit_misjudged(name, broken, belief):
    kept = json.loads(gzip.decompress((RESULTS / "networks" / f"{name.replace(' ', '_')}.json.gz").read_bytes()))
    answers = judge(Evidence.from_json(kept["evidence"]))["image"]
    assert broken is None or answers.broken is broken, answers.under_attack
    assert belief is None or answers.belief == belief, answers.because
    assert answers.belief != "NOT VALID"


def test_the_thresholds_in_use_are_those_that_were_chosen_and_the_table_is_in_the_documentation():
    result = json.loads((RESULTS / "table.json").read_text())
    assert {name: result["chosen"][name] for name in ("level", "gain", "weakness")} == {
        "level": CALIBRATED.level, "gain": CALIBRATED.gain, "weakness": CALIBRATED.weakness,
    }  # fmt: skip
    rates_of_halves = [line for line in (RESULTS / "table.md").read_text().splitlines() if line.startswith(("| thresholds", "| reported"))]
    assert len(rates_of_halves) == 2
    documented = (RESULTS.parents[1] / "docs" / "audit.md").read_text()
    assert all(line in documented for line in rates_of_halves)
