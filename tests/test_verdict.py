"""The two answers, from evidence made by hand: each fault of the old decision rule is a case."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_sparsity.audit.evidence import (
    SCHEMA,
    AttackEvidence,
    Control,
    Diagnostics,
    Evidence,
    Harness,
    ProtocolEvidence,
    json_schema,
)
from snn_sparsity.audit.judge.answers import judge
from snn_sparsity.audit.judge.case import Case
from snn_sparsity.audit.judge.checks import CHECKS
from snn_sparsity.audit.judge.checks.v12_radius import by_radius
from snn_sparsity.audit.judge.thresholds import CALIBRATED
from snn_sparsity.validation import InputError

EPS = 8 / 255


def attack(role, broken, tried=None, **more):
    """An attack that broke these places of those it tried; all of them where that is not said."""
    n = more.pop("n", 256)
    broken, places = set(broken), set(range(n) if tried is None else tried)
    fooled = [place in broken if place in places else None for place in range(n)]
    return AttackEvidence(**{"name": role, "role": role, "units": 30.0, "eps": EPS, "fooled": fooled} | more)


def arm(broken, tried, family="rules", **more):
    return attack("arm", broken, tried, **{"family": family, "stream": "main", "name": family} | more)


def again(broken, tried, **more):
    return attack("reference", broken, tried, stream="main", **more)


def evidence(*attacks, n=256, right=None, **more):
    protocol = ProtocolEvidence(space="image", attacks=list(attacks), harness=Harness(deterministic=True, gap_repeat=0.0), **more)
    clean = [place < (n if right is None else right) for place in range(n)]
    return Evidence(eps=EPS, num_classes=10, labels=[0] * n, clean=clean, protocols={"image": protocol})


def answer(*attacks, **more):
    return judge(evidence(*attacks, **more))["image"]


def status(answers, id):
    return next(one.finding.status for one in answers.checks if one.check.id == id)


LEFT = range(100, 256)
"""Who is left after a native attack that broke the first hundred."""
NATIVE = attack("native", range(100))
CLAIM = attack("claim", range(100))
EVEN = again([], LEFT), arm([], LEFT)
"""An arm that does no better than a restart of the native attack."""


# Accuracy under attack -------------------------------------------------------------------------------------------------------


def test_broken_needs_the_upper_end_of_the_interval_at_5_percent():
    # Wilson's upper end of 6 of 256 is 5.0 %: (6 + 1.92 + 1.96 sqrt(6 * 250/256 + 0.96)) / 259.84 = 5.02 %; of 5 it is 4.48 %.
    assert answer(attack("native", range(251))).under_attack.startswith("BROKEN: 2.0 % (5 of 256")
    assert answer(attack("native", range(250))).under_attack.startswith("at most 2.3 % (6 of 256")
    # 0 of 48 leaves up to 7.4 %.
    assert answer(attack("native", range(48), n=48), n=48).under_attack.startswith("at most 0.0 %")


def test_every_success_inside_the_ball_counts_wherever_it_was_found():
    found = [
        CLAIM,
        NATIVE,
        again([100], LEFT),
        arm([101], LEFT),
        attack("radius", [102], eps=2 / 255),
        attack("extra", [103]),
        replace(attack("extra", []), seen=[place == 104 for place in range(256)]),
        attack("radius", range(256), eps=16 / 255),
    ]
    answers = answer(*found)
    assert round(answers.worst.value * 256) == 256 - 105, "a larger ball does not count, all the others do"


@given(
    st.lists(
        st.tuples(st.sampled_from(["claim", "native", "reference", "arm", "radius", "extra"]), st.sets(st.integers(0, 19))), max_size=8
    )
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_worst_never_exceeds_what_any_part_of_the_report_shows(made):
    attacks = [attack(role, broken, n=20, stream="main", family="rules" if role == "arm" else "none") for role, broken in made]
    given_ = evidence(*attacks, n=20)
    answers = judge(given_)["image"]
    for one in attacks:
        assert answers.worst.value <= 1 - sum(map(bool, one.fooled)) / 20
    for share in (answers.clean, answers.quoted, answers.native):
        assert share is None or answers.worst is None or answers.worst.value <= share.value
    heights = [share.value for _, share in by_radius(Case(given_, given_.protocols["image"]))]
    assert heights == sorted(heights, reverse=True), "the chart never rises"


# A quoted attack of another ball ---------------------------------------------------------------------------------------------


def test_a_quoted_attack_in_a_smaller_ball_is_compared_inside_it():
    quoted = attack("claim", range(20), eps=4 / 255)
    weak = answer(quoted, NATIVE, *EVEN, attack("radius", range(60), eps=4 / 255))
    assert (weak.belief, status(weak, "V27")) == ("WEAK ATTACK", "fail")
    assert weak.do == "Do not quote 92.2 % at eps 4/255: at most 76.6 % (196 of 256) survive there."
    fair = answer(quoted, NATIVE, *EVEN, attack("radius", range(21), eps=4 / 255))
    assert fair.belief == "NO SIGN OF MASKING", "that the larger ball breaks more says nothing of the quoted attack"
    assert fair.do == (
        "At eps 8/255: quote at most 60.9 % (156 of 256), as an upper bound: no sign of masking was found. "
        "To judge the quoted 92.2 % at eps 4/255, audit that ball."
    )
    assert any("the quoted attack's eps is 4/255, the audited one 8/255" in line for line in fair.beside)
    assert not any("quoted attack's eps" in line for line in answer(CLAIM, NATIVE, *EVEN).beside)


def test_a_quoted_attack_in_a_larger_ball_is_refuted_by_what_breaks_in_the_smaller():
    quoted = attack("claim", range(20), eps=16 / 255)
    answers = answer(quoted, NATIVE, again([], LEFT), attack("radius", [*range(100), 200], eps=16 / 255))
    assert answers.belief == "WEAK ATTACK"
    assert answers.do == "Do not quote 92.2 % at eps 16/255: at most 60.5 % (155 of 256) survive there."
    strong = answer(attack("claim", range(150), eps=16 / 255), NATIVE, *EVEN)
    assert strong.worst.value == 156 / 256, "what a larger ball breaks does not count in the audited one"
    assert strong.do.startswith("At eps 8/255: quote at most 60.9 % (156 of 256)")
    masked = answer(attack("claim", range(200), eps=16 / 255), NATIVE, again([], LEFT), arm(range(100, 130), LEFT))
    assert masked.do == (
        "At eps 8/255: do not quote an accuracy under this attack: at most 49.2 % (126 of 256) survive. "
        "To judge the quoted 21.9 % at eps 16/255, audit that ball."
    )


# Masked ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["rules", "no gradient", "transfer", "averaging", "loss", "unbounded"])
def test_a_clear_gain_at_equal_cost_is_masking_whatever_found_it(family):
    answers = answer(CLAIM, NATIVE, again([], LEFT), arm(range(100, 130), LEFT, family))
    assert answers.belief == "MASKED"
    assert answers.do == "Do not quote 60.9 %: at most 49.2 % (126 of 256) survive."
    assert "30 of 156" in answers.because


def test_what_was_won_inside_the_ball_is_told_first():
    anywhere = {"stream": "unbounded", "eps": 1.0}
    clearer = [attack("reference", [], LEFT, **anywhere), arm(range(100, 190), LEFT, "unbounded", **anywhere)]
    answers = answer(CLAIM, NATIVE, again([], LEFT), arm(range(100, 130), LEFT), *clearer)
    assert answers.because.startswith("rules breaks 30 of 156")


@pytest.mark.parametrize("n", [48, 256, 1000])
def test_one_image_never_decides(n):
    """The old rule: one image by transfer was PARTLY, the same by pooling too OBFUSCATED."""
    left = range(9)
    native = attack("native", range(9, n), n=n)
    arms = [arm([0], left, family, n=n) for family in ("transfer", "rules", "no gradient")]
    assert answer(native, again([], left, n=n), *arms, n=n).belief in ("NO SIGN OF MASKING", "TOO FEW IMAGES")


def test_the_neighbourhood_of_chance_is_no_sign():
    """The old rule: from 119 of 1000 to 118 was OBFUSCATED, because 10 % is chance."""
    left = range(119)
    native, claim = attack("native", range(119, 1000), n=1000), attack("claim", range(119, 1000), n=1000)
    assert answer(claim, native, again([], left, n=1000), arm([0], left, n=1000), n=1000).belief == "NO SIGN OF MASKING"


def test_5_points_of_1000_images_are_masked():
    """The old rule: 49 of 1000, p = 4e-15, was PARTLY."""
    left = range(500)
    native, claim = attack("native", range(500, 1000), n=1000), attack("claim", range(500, 1000), n=1000)
    assert answer(claim, native, again([], left, n=1000), arm(range(49), left, n=1000), n=1000).belief == "MASKED"


def test_the_sets_are_not_nested():
    """What the native attack breaks with as many passes counts against the arm."""
    gained = arm(range(100, 120), LEFT)
    assert answer(CLAIM, NATIVE, again([], LEFT), gained).belief == "MASKED"
    (one,) = answer(CLAIM, NATIVE, again(range(115, 135), LEFT), gained).comparisons
    assert (one.gained, one.lost, one.tried) == (15, 15, 156)
    assert answer(CLAIM, NATIVE, again(range(115, 135), LEFT), gained).belief == "NO SIGN OF MASKING"


def test_a_costly_arm_is_compared_with_as_many_restarts():
    """An arm for 90 units that wins against one restart for 30 has shown nothing if three restarts do as well."""
    restarts = [again(range(100, 106), LEFT), again(range(106, 112), range(106, 256)), again(range(112, 118), range(112, 256))]
    costly = arm(range(100, 118), LEFT, "no gradient", units=90.0)
    (one,) = answer(CLAIM, NATIVE, *restarts, costly).comparisons
    assert (one.gained, one.lost) == (0, 0)
    (one,) = answer(CLAIM, NATIVE, *restarts, replace(costly, units=30.0)).comparisons
    assert (one.gained, one.lost) == (12, 0)
    assert not answer(CLAIM, NATIVE, *restarts, replace(costly, units=91.0)).comparisons, "without as many passes nothing is compared"


def test_a_restart_that_found_nobody_left_still_counts_as_passes():
    everybody = again(LEFT, LEFT)
    nobody = again([], [])
    costly = arm(LEFT, LEFT, "no gradient", units=60.0)
    (one,) = answer(CLAIM, NATIVE, everybody, nobody, costly).comparisons
    assert (one.gained, one.lost) == (0, 0)


def test_many_comparisons_need_a_clearer_one():
    """Eight of eight have p = 1/256; alone that is enough, among twenty it is chance."""
    won, idle = arm(range(100, 108), LEFT), [arm([], LEFT, "no gradient", name=str(k)) for k in range(19)]
    assert answer(CLAIM, NATIVE, again([], LEFT), won).belief == "MASKED"
    assert answer(CLAIM, NATIVE, again([], LEFT), won, *idle).belief == "NO SIGN OF MASKING"


def test_several_rules_are_also_compared_together():
    """Three rules that each break a few others: no one is significant alone."""
    arms = [arm(range(100 + 5 * k, 105 + 5 * k), range(100 + 5 * k, 256)) for k in range(4)]
    references = [again([], LEFT) for _ in range(4)]
    answers = answer(CLAIM, NATIVE, *references, *arms)
    assert answers.belief == "MASKED"
    together = max(answers.comparisons, key=lambda one: one.gained)
    assert (together.gained, together.lost) == (20, 0)


def test_an_arm_of_another_stream_is_compared_with_its_own_references():
    anywhere = replace(again([], LEFT), stream="unbounded", eps=1.0)
    other = replace(arm(range(100, 140), LEFT, "unbounded"), stream="unbounded", eps=1.0)
    assert not answer(CLAIM, NATIVE, again([], LEFT), other).comparisons
    masked = answer(CLAIM, NATIVE, anywhere, other)
    assert masked.belief == "MASKED"
    assert masked.worst.value == 156 / 256, "what any image does breaks nobody inside the ball"


def test_a_gain_that_is_certain_and_small_is_no_masking():
    """15 of 1000 images, p = 3e-5: the number would change by 1.5 points."""
    left = range(500)
    native, claim = attack("native", range(500, 1000), n=1000), attack("claim", range(500, 1000), n=1000)
    answers = answer(claim, native, again([], left, n=1000), arm(range(15), left, n=1000), n=1000)
    assert answers.comparisons[0].adjusted < 1e-4
    assert answers.comparisons[0].gain < CALIBRATED.gain
    assert answers.belief == "NO SIGN OF MASKING"
    assert round(answers.worst.value * 1000) == 485, "the images count towards the worst case all the same"


# Nothing to compare ----------------------------------------------------------------------------------------------------------


def test_no_sign_needs_a_comparison_or_nobody_left():
    """Zero comparisons at equal cost said NO SIGN OF MASKING, in green."""
    for attacks in ([], [again([], LEFT)], [arm(range(100, 150), LEFT)]):
        answers = answer(CLAIM, NATIVE, *attacks)
        assert answers.belief == "TOO FEW IMAGES"
        assert "of which 156 no attack was compared on" in answers.because
    assert answer(attack("claim", range(256)), attack("native", range(256))).belief == "NO SIGN OF MASKING"


def test_a_native_attack_that_tried_one_image_settles_one():
    answers = answer(attack("native", [0], [0]), again([], [1]), arm([], [1]))
    assert answers.belief == "TOO FEW IMAGES"
    assert "of which 254 no attack was compared on" in answers.because


def test_a_restart_that_failed_on_some_images_is_compared_on_the_others():
    """One batch without memory in each restart: 48 images of a masked network were no longer counted, and the answer was green."""
    failed = [again([], range(132, 256), status="failed", why="CUDA out of memory") for _ in range(2)]
    answers = answer(CLAIM, NATIVE, *failed, arm(range(100, 180), LEFT, "no gradient", units=60.0))
    (one,) = answers.comparisons
    assert (answers.belief, one.gained, one.tried) == ("MASKED", 48, 124)
    partly = answer(CLAIM, NATIVE, again([], LEFT), replace(failed[0], units=30.0), arm([], LEFT, "no gradient", units=60.0))
    assert partly.comparisons[0].tried == 124, "32 images had one restart for 60 units, not two"
    assert (partly.belief, "of which 32 no attack was compared on" in partly.because) == ("TOO FEW IMAGES", True)


def test_an_arm_without_a_comparison_was_not_run_and_an_arm_with_nobody_left_passes():
    assert status(answer(CLAIM, NATIVE, arm(range(100, 150), LEFT, "no gradient")), "V16") == "not run"
    assert status(answer(CLAIM, attack("native", range(256)), arm([], [], "no gradient")), "V16") == "pass"


@pytest.mark.parametrize("n", [256, 1000, 4000])
def test_what_is_tried_on_64_images_is_a_share_of_64(n):
    """Of 4000 images 64 are 1.6 points, under the 2 that a masked network needs: this check could never fail."""
    native, left, few = attack("native", range(100), n=n), range(100, n), range(100, 164)
    anywhere = {"stream": "unbounded", "eps": 1.0, "n": n}
    even = [again([], left, n=n), arm([], left, n=n)]
    swapped = answer(native, *even, attack("reference", [], few, **anywhere), arm(range(100, 120), few, "unbounded", **anywhere), n=n)
    assert swapped.belief == "MASKED"
    one = swapped.comparisons[-1]
    assert (one.gain, one.samples) == (20 / 64, 64)
    chance = answer(native, *even, attack("reference", [], few, **anywhere), arm(range(100, 106), few, "unbounded", **anywhere), n=n)
    assert chance.belief == "NO SIGN OF MASKING"


# Weak attack -----------------------------------------------------------------------------------------------------------------


def test_a_quoted_attack_that_the_native_one_beats_is_weak():
    answers = answer(attack("claim", range(60)), NATIVE, again([], LEFT))
    assert answers.belief == "WEAK ATTACK"
    assert answers.do == "Do not quote 76.6 %: at most 60.9 % (156 of 256) survive."


def test_two_images_do_not_make_an_attack_weak():
    """The old rule accused an adversarially trained network for two images of 32."""
    assert answer(attack("claim", range(98)), NATIVE, *EVEN).belief == "NO SIGN OF MASKING"


def test_a_quoted_attack_that_is_a_little_weaker_is_not_accused():
    """30 of 1000 images, p = 1e-9: what a quick PGD usually leaves too much of an adversarially trained network."""
    native, claim = attack("native", range(500, 1000), n=1000), attack("claim", range(530, 1000), n=1000)
    answers = answer(claim, native, again([], range(500), n=1000), arm([], range(500), n=1000), n=1000)
    assert answers.belief == "NO SIGN OF MASKING"
    assert answers.do.startswith("Quote at most 50.0 % (500 of 1000)")


def test_a_quoted_attack_may_be_stronger():
    """The old chart zigzagged: the quoted attack of the demo was stronger than the standard ones."""
    answers = answer(attack("claim", range(140)), NATIVE, *EVEN)
    assert answers.belief == "NO SIGN OF MASKING"
    assert answers.worst.value == 116 / 256


def test_masking_comes_before_weakness():
    assert answer(attack("claim", range(10)), NATIVE, again([], LEFT), arm(range(100, 150), LEFT)).belief == "MASKED"


# Not valid, and too few ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "harness",
    [
        Harness(deterministic=False, gap_repeat=0.5),
        Harness(gap_batch=0.01),
        Harness(gap_batch=0.0, gap_state=0.01),
        Harness(gap_batch=0.0, gap_state=float("nan")),
        Harness(gap_judge=0.5, state_unchanged=True),
        Harness(state_unchanged=False),
        Harness(gap_judge=0.0, gap_rules=1e-3, state_unchanged=True),
        Harness(in_bounds=False),
        Harness(in_bounds=True, on_lattice=False),
        Harness(gap_batch=float("nan")),
    ],
)
def test_a_broken_measurement_is_not_valid_and_still_prints_what_it_can(harness):
    given_ = evidence(CLAIM, NATIVE, arm(range(100, 200), LEFT), again([], LEFT))
    broken = replace(given_, protocols={"image": replace(given_.protocols["image"], harness=harness)})
    answers = judge(broken)["image"]
    assert answers.belief == "NOT VALID"
    assert answers.do.startswith("Quote no accuracy under attack")
    assert answers.worst.value == 56 / 256


def test_a_change_outside_the_ball_is_not_valid():
    far = replace(NATIVE, largest_perturbation=EPS + 1e-3)
    given_ = evidence(CLAIM, far)
    assert judge(replace(given_, protocols={"image": replace(given_.protocols["image"], harness=Harness(in_bounds=True))}))[
        "image"
    ].belief == "NOT VALID"  # fmt: skip


def test_a_random_network_that_is_averaged_is_a_warning():
    random = Harness(deterministic=False, gap_repeat=0.5)
    given_ = evidence(*(replace(one, averaged=True) for one in (CLAIM, NATIVE, *EVEN)))
    answers = judge(replace(given_, protocols={"image": replace(given_.protocols["image"], harness=random)}))["image"]
    assert answers.belief == "NO SIGN OF MASKING"
    assert status(answers, "V1") == "warn"


def test_ties_of_logits_are_a_remark():
    """The old rule called an honest spike-count read-out INVALID for one tie in eight images."""
    tied = Harness(probabilities=False, ties=0.125)
    given_ = evidence(CLAIM, NATIVE, *EVEN)
    answers = judge(replace(given_, protocols={"image": replace(given_.protocols["image"], harness=tied)}))["image"]
    assert answers.belief == "NO SIGN OF MASKING"
    assert status(answers, "V5") == "pass"


def test_few_images_say_so_unless_the_result_is_beyond_doubt():
    left = range(10, 48)
    claim, native = attack("claim", range(10), n=48), attack("native", range(10), n=48)
    assert answer(claim, native, again([], left, n=48), n=48).belief == "TOO FEW IMAGES"
    grossly = answer(claim, native, again([], left, n=48), arm(range(10, 30), left, n=48), n=48)
    assert (grossly.belief, "p < 0.001" in grossly.because) == ("MASKED", True)
    slightly = answer(claim, native, again([], left, n=48), arm(range(10, 18), left, n=48), n=48)
    assert slightly.belief == "TOO FEW IMAGES", "p = 1/256 is enough for 256 images, not for 48"


def test_few_images_are_enough_where_the_native_gradient_leaves_nothing():
    answers = answer(attack("claim", range(100), n=100), attack("native", range(100), n=100), n=100)
    assert (answers.belief, answers.broken) == ("NO SIGN OF MASKING", True)
    assert "Wilson" in answers.because
    assert answers.do == "Call it broken: 0.0 % (0 of 100) survive."


def test_1000_images_with_nothing_left_are_broken_and_not_supported():
    answers = answer(attack("claim", range(1000), n=1000), attack("native", range(1000), n=1000), n=1000)
    assert (answers.broken, answers.belief) == (True, "NO SIGN OF MASKING")


def test_a_grossly_weak_quote_of_a_broken_network():
    answers = answer(attack("claim", range(75)), attack("native", range(256)))
    assert (answers.broken, answers.belief) == (True, "WEAK ATTACK")
    assert answers.do == "Do not quote 70.7 %: at most 0.0 % (0 of 256) survive."


# What stands beside ----------------------------------------------------------------------------------------------------------


def test_what_did_not_run_never_turns_an_answer_into_its_opposite():
    failed = AttackEvidence(name="square", role="arm", family="no gradient", status="failed", why="out of memory", fooled=[None] * 256)
    for attacks in ([CLAIM, NATIVE, *EVEN], [CLAIM, NATIVE, again([], LEFT), arm(range(100, 150), LEFT)]):
        whole, partial = answer(*attacks), answer(*attacks, failed)
        assert partial.belief == whole.belief
        assert any("out of memory" in line for line in partial.beside)


def test_symptoms_and_cautions_decide_nothing():
    rough = Diagnostics(loss_change=0.9, signs_agree=0.1, rank_correlation=-1.0, landscape=0.0, vanishing={"sn1": 1.0},
                        noise={"8": 0.0}, control=Control(clean=0.9, accuracy=0.9))  # fmt: skip
    answers = answer(CLAIM, NATIVE, *EVEN, diagnostics=rough)
    assert answers.belief == "NO SIGN OF MASKING"
    assert {id for id in ("V9", "V14", "V20", "V21", "V22", "V25") if status(answers, id) == "warn"} == {
        "V9",
        "V14",
        "V20",
        "V21",
        "V22",
        "V25",
    }


@pytest.mark.parametrize(("clean", "expected"), [(0.29, "not run"), (0.71, "pass")])
def test_a_control_must_have_learned(clean, expected):
    learned = Diagnostics(control=Control(clean=clean, accuracy=0.0))
    assert status(answer(CLAIM, NATIVE, diagnostics=learned), "V14") == expected


def test_nothing_ran():
    answers = answer()
    assert (answers.do, answers.under_attack) == ("Quote nothing: no attack ran.", "not measured")


# Some of the images ----------------------------------------------------------------------------------------------------------


def test_some_of_the_images_are_judged_as_if_only_they_had_been_audited():
    places = [*range(90, 110), *range(120, 150)]
    one = replace(arm(range(100, 130), LEFT), seen=[place > 200 for place in range(256)])
    some = evidence(CLAIM, NATIVE, again([], LEFT), one, right=140).of(places)
    assert some.clean == [True] * 40 + [False] * 10
    attacks = some.protocols["image"].attacks
    assert [sum(map(bool, other.fooled)) for other in attacks] == [10, 10, 0, 20]
    assert attacks[3].fooled[:10] == [None] * 10
    assert (attacks[0].seen, attacks[3].seen) == ([], [False] * 50)
    assert answer(CLAIM, NATIVE, again([], LEFT), one) == judge(evidence(CLAIM, NATIVE, again([], LEFT), one).of(range(256)))["image"]


def test_other_thresholds_give_other_words():
    given_ = evidence(CLAIM, NATIVE, again([], LEFT), arm(range(100, 130), LEFT))
    assert judge(given_)["image"].belief == "MASKED"
    assert judge(given_, replace(CALIBRATED, gain=0.2))["image"].belief == "NO SIGN OF MASKING"


# The record ------------------------------------------------------------------------------------------------------------------


def test_evidence_survives_json_and_another_schema_is_refused():
    given_ = evidence(CLAIM, NATIVE, diagnostics=Diagnostics(vanishing={"sn1": 0.5}, control=Control(clean=1.0, accuracy=0.0)))
    assert Evidence.from_json(given_.to_json()) == given_
    assert judge(Evidence.from_json(given_.to_json())) == judge(given_)
    with pytest.raises(InputError, match="schema"):
        Evidence.from_json(given_.to_json() | {"schema": SCHEMA - 1})
    with pytest.raises(InputError, match="clean"):
        Evidence.from_json(given_.to_json() | {"clean": "all"})
    assert "Evidence" in json_schema()["$defs"]


def test_nothing_depends_on_a_name_or_on_the_text_of_an_attack():
    attacks = [CLAIM, NATIVE, again([], LEFT), arm(range(100, 130), LEFT)]
    plain = answer(*attacks)
    renamed = answer(*(replace(one, name="EOT PGD FGSM", attack="Expectation(does not apply)") for one in attacks))
    assert (renamed.belief, renamed.do) == (plain.belief, plain.do)
    assert [one.finding.status for one in renamed.checks] == [one.finding.status for one in plain.checks]


def test_each_check_says_everything_a_reader_needs():
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    for check in CHECKS:
        assert all((check.question.endswith("?"), check.threshold, check.source, check.remedy)), check.id


def test_comparisons_of_an_empty_protocol_are_none():
    given_ = evidence()
    assert Case(given_, given_.protocols["image"]).comparisons == []
