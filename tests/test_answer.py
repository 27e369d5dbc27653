"""The answer on the first page: effects by hand, verdicts from intervals, sentences from numbers, and documents that say the same."""

import json
import os
import re
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import yaml

from snn_sparsity.audit.judge.statistics import wilson
from snn_sparsity.commands.main import main
from snn_sparsity.reproduction.answer import sentences, trained_longest, verdict
from snn_sparsity.reproduction.attackers import ATTACKERS, MODES, attacks_in, same_as
from snn_sparsity.reproduction.causal.contrasts import forward_contrasts
from snn_sparsity.reproduction.causal.effects import about_effects, effects
from snn_sparsity.reproduction.causal.trained import MEASURED, WORST, Trained, networks_of
from snn_sparsity.reproduction.defences import Defence, accuracy_table, cost_table, defence_runs, quoted_table, survival
from snn_sparsity.reproduction.inserts import filled
from snn_sparsity.reproduction.paired import Pooled, difference, pooled
from snn_sparsity.reproduction.report import Report
from snn_sparsity.reproduction.results import results_of
from snn_sparsity.runs.records import find_records
from snn_sparsity.validation import InputError
from tests.browser import Browser, executable
from tests.test_report import ATTACKS, FULL, config, curve, probe, write

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "docs/findings.md", "docs/defences.md")]
IMAGES = 400


def bits(right):
    return "1" * right + "0" * (IMAGES - right)


def network(pooling, backward, seed, right):
    """A network of which ``right(sparse attacker?)`` of 400 images withstand any attack."""
    attacked = {mode: {attacker: dict.fromkeys(attacks_in(mode), bits(right(same_as(attacker, pooling) in ("first", "random"))))
                       for attacker in ATTACKERS} for mode in MODES}  # fmt: skip
    zeros = {
        mode: {attacker: 0.8 if same_as(attacker, pooling) in ("first", "random") else 0.0 for attacker in ATTACKERS} for mode in MODES
    }
    return {
        "name": f"{pooling}_{backward}/seed_{seed}/0", "pooling": pooling, "backward": backward, "weight_decay": 0.001, "seed": seed,
        "clean": bits(320), "audit": {}, "network": "SEW-ResNet18", "dataset": "cifar10", "epochs": 8, "train_images": 5000,
        "original_images": IMAGES, "attacked": attacked, "zeros": zeros,
    }  # fmt: skip


def grid(training=0, attacker=0, forward=0, wobble=0):
    """Two sets of four networks: what sparse training, sparse attackers and max pooling add to 100 images; seed 2 adds a wobble."""
    made = []
    for seed in (1, 2):
        for pooling in ("max", "avg"):
            for backward in ("first", "uniform"):
                base = 100 + training * (backward == "first") + forward * (pooling == "max") + wobble * (seed == 2) * (backward == "first")
                made.append(network(pooling, backward, seed, lambda sparse, base=base: base + attacker * sparse))
    return made


def trained(content):
    return [Trained.read(each) for each in content]


def test_max_poolings_advantage_is_taken_apart_by_hand():
    found = {(each.mode, each.attack): each for each in effects(trained(grid(training=8, attacker=4, forward=20)))}
    each = found["spikes_batch", "pgd_7"]
    parts = [getattr(each, name).value for name in ("both", "training", "attacker", "zeros", "forward")]
    assert parts == pytest.approx([32 / 400, 8 / 400, 4 / 400, 12 / 400, 20 / 400])
    assert found[None, "clean"].both.value == 0
    # Whoever may take any gradient takes the dense one.
    worst = found["pixels", WORST]
    assert [worst.training.value, worst.attacker.value, worst.forward.value] == pytest.approx([8 / 400, 0, 20 / 400])
    assert all(one.both.value == pytest.approx(one.training.value + one.attacker.value + one.forward.value) for one in found.values())


def test_a_set_that_lacks_a_network_says_nothing():
    networks = trained(grid(training=8))
    assert [each.zeros.sets for each in effects(networks[:7])[:1]] == [1]
    assert "one set of networks, are too small to tell" in sentences(networks[:4])[1]
    assert effects(networks[:3]) == []
    _, found, sure = sentences(networks[:3])
    assert "cannot tell" in found
    assert "what 3 networks tell of attackers alone: each 10 points of zeros in the attacker's gradient change accuracy by +0.0 [" in found
    assert sure.startswith("Little is sure: 3 networks")
    assert "of attackers alone" not in sentences([])[1]
    assert len(sentences([])) == 3


def test_a_set_is_of_networks_that_were_trained_alike():
    """Decay and seed alone told networks apart: two of 100 epochs took the places of two of 8, and the zeros were the cause."""
    longer = [each | {"epochs": 100, "name": each["name"] + "_long"} for each in grid(training=34) if each["pooling"] == "max"]
    assert [one.zeros.value for one in effects(trained([*grid(), *longer]))] == [one.zeros.value for one in effects(trained(grid()))]
    mixed = [*longer, *(each for each in grid() if each["pooling"] == "avg")]
    assert effects(trained(mixed)) == []
    assert not forward_contrasts(trained(mixed))
    with pytest.raises(InputError, match="max_first/seed_1/0 and again are both max, trained sparse"):
        effects(trained([*grid(), grid()[0] | {"name": "again"}]))


@pytest.mark.parametrize(
    ("effects", "says"),
    [
        ({}, "refute that the zeros"),
        ({"forward": 34}, "refute that the zeros"),
        ({"training": 6, "attacker": 2}, "though they do something"),
        ({"training": 34}, "support that the zeros"),
        ({"training": 20, "wobble": 60}, "too small to tell"),
    ],
)
def test_the_sentences_follow_from_the_numbers(effects, says):
    claim, found, sure = sentences(trained(grid(**effects)))
    assert says in found
    assert "34.33 %" in claim
    assert "25.72 %" in claim
    assert "8 networks (SEW-ResNet18, 2 seeds, 2 complete sets of four) trained for 8 epochs on 5,000 images" in sure
    assert "same 400 test images (all in their original pixels)" in sure
    assert sure.endswith("a GPU would add the paper's 100 epochs on all images (snn-sparsity sweep --grid causal).")


def test_networks_that_were_trained_longer_are_told_with_what_attackers_zeros_do_to_them():
    def told(sparse, **changed):
        others = [network(pooling, "own", 1, lambda zeros: 100 + sparse * zeros) | changed for pooling in ("avg", "max")]
        return sentences(trained(grid()), others=trained(others))[1].removeprefix(sentences(trained(grid()))[1])

    weaker, nothing = told(12, train_images=50000), told(0, train_images=50000)
    where = " the 2 networks trained longest (8 epochs on 50,000 images) zeros in the attacker's gradient alone "
    assert weaker.startswith(f" But in{where}weaken that attack, which is no robustness: by +3.0 [+1.")
    assert "] points with max pooling and +3.0 [" in weaker
    assert weaker.endswith("] points with average pooling (400 images).")
    assert nothing.startswith(f" In{where}change accuracy under that attack by +0.0 [-")
    assert told(12) == "", "not trained longer"
    alone = sentences(trained(grid()), others=trained([network("max", "own", 1, lambda zeros: 100) | {"train_images": 50000}]))[1]
    assert " In the 1 network trained longest (" in alone


def test_a_set_that_was_trained_longer_is_taken_apart():
    """Sums of one set: 8 images by training, 4 by the attacker, 20 by the forward pass, of 400."""
    one = [each | {"train_images": 50000} for each in grid(training=8, attacker=4, forward=20) if each["seed"] == 1]
    told = sentences(trained(grid()), others=trained(one))[1].removeprefix(sentences(trained(grid()))[1])
    assert told.startswith(" In the set of four trained longest (8 epochs on 50,000 images) max pooling is ahead by +8.0 [")
    assert "zeros in training do +2.0 [" in told
    assert "zeros in the attacker's gradient +1.0 [" in told
    assert "the forward pass +5.0 [" in told
    assert told.endswith("] (400 images; other networks may differ by more).")
    assert "which is a weaker attack and no robustness" in told
    nothing = [each | {"train_images": 50000} for each in grid(training=8)]
    assert "no robustness" not in sentences(trained(grid()), others=trained(nothing))[1]
    assert trained_longest(trained(grid()), trained(grid())) == []


def test_the_table_says_what_its_intervals_are_over():
    both = [about_effects(effects(trained(grid()[:count]))) for count in (8, 4)]
    assert "over networks and images" in both[0]
    assert "over images alone" in both[1]


def test_the_verdict_is_the_intervals():
    assert verdict(Pooled(0.01, 0.005, 0.03, 0.02, 2, 500), 8.0) == "refuted"
    assert verdict(Pooled(0.05, 0.01, 0.09, 0.05, 2, 500), 8.0) == "supported"
    assert verdict(Pooled(0.03, -0.01, 0.07, 0.05, 2, 500), 8.0) == "undecided"
    one_set = Pooled(-0.03, -0.05, -0.01, 0.02, 1, 500)
    assert verdict(one_set, 8.0) == "undecided", "its interval knows nothing of other networks"


@pytest.mark.parametrize("between", [0.0, 0.02, 0.08])
@pytest.mark.parametrize("sets", [2, 4])
def test_the_pooled_interval_holds_the_truth_at_least_as_often_as_it_says(sets, between):
    """Four kinds of networks that differ from each other by chance; the truth is 0.05. Welch's interval held it in 87 % with two sets."""
    random, held, images, truth = np.random.default_rng(0), 0, 100, 0.05
    for _ in range(400):
        own = truth / 4 + between * random.standard_normal((4, sets))[..., None] + 0.05 * random.standard_normal(images)
        found = pooled(own + 0.1 * random.standard_normal((4, sets, images)))
        held += found.low <= truth <= found.high
    assert held / 400 >= 0.94


def test_pooled_by_hand():
    one = pooled([[[0.0, 1.0, 0.0, 1.0]]])
    assert one.value == 0.5
    # With +1 and -1 added: mean 2/6, variance 4/6 - (2/6)^2 = 5/9; t with 3 degrees of freedom.
    assert (one.low + one.high) / 2 == pytest.approx(1 / 3)
    assert (one.high - one.low) / 2 == pytest.approx(3.1824463 * (5 / 9 / 6) ** 0.5)
    # Two kinds of two networks with means 1 and 0, -1 and 0: s^2 = 1/2, v = 2 (1/2) / 2, t with 2; all images alike: 2/4 / 4, t with 1.
    two = pooled([[[1.0, 1.0], [0.0, 0.0]], [[-1.0, -1.0], [0.0, 0.0]], [[0.0, 0.0]] * 2])
    assert two.value == 0
    assert two.high == pytest.approx((4.3026527**2 / 2 + 12.7062047**2 / 8) ** 0.5)


def test_equal_outcomes_prove_no_equality():
    """All differences 0, on few images: the interval is Bonett and Price's, not a point that would refute anything."""
    same = pooled([[[0.0] * 50] * 2])
    assert same.low < -0.02
    assert same.high > 0.02
    assert same.seen > same.high


def test_one_set_of_two_outcomes_has_the_interval_of_a_pair():
    first, second = [True] * 90 + [False] * 910, [False] * 60 + [True] * 40 + [False] * 900
    one, pair = pooled([[np.subtract(first, second, dtype=float)]]), difference(first, second)
    assert one[:3] == pytest.approx(pair[:3], abs=2e-4), "up to t for the normal distribution"


def test_nothing_to_pool_is_an_error():
    with pytest.raises(ValueError, match="no networks"):
        pooled([[[1.0]]])


# Defences ------------------------------------------------------------------------------------------------------------------


def defended(kind=None, arguments=None, callbacks=(), steps=8, seed=3407, network=None):
    settings = config(seed=seed)
    settings["model"]["network"] = network or {"class_path": "n.VGG", "init_args": {"channels": [8, "A", *[16] * 7]}}
    settings["model"]["objective"] = {"class_path": f"o.{kind}", "init_args": arguments or {}} if kind else None
    settings["trainer"]["callbacks"] = [{"class_path": f"t.{each}", "init_args": {}} for each in callbacks]
    settings["data"]["init_args"]["encoder"] = {"class_path": "e.DirectEncoder", "init_args": {"num_steps": steps}}
    fgsm, pgd = ({"eps": 8 / 255, "loss": "ce"}, {**ATTACKS["pgd"][3]})
    settings["probes"] |= {"fgsm": probe("image", "eval", "FGSM", fgsm), "pgd": probe("image", "eval", "PGD", pgd)}
    return settings


ANSWERS = {"belief": "MASKED", "do": "Do not quote it.", "under_attack": "at most 10 %", "accuracy": {
    level: {"value": value, "low": value - 0.02, "high": value + 0.02, "samples": 256}
    for level, value in (("clean", 0.6), ("quoted", 0.3), ("worst", 0.1))}}  # fmt: skip


@pytest.fixture
def results(elsewhere):
    values = FULL | {99: FULL[99] | {"operations/synops": 2e6, "operations/firing_rate": 0.05, "grad_zero/pool/04_pool1": 0.25}}
    parts = {"training_seconds": 312.5, "passes": {"forwards": 1, "backwards": 1}}
    write("vgg11/seed_1/0", defended(), values, **parts)
    write("rat/seed_1/0", defended("AdversarialTraining", callbacks=["OrthogonalRetraction"]), values,
          training_seconds=625.0, passes={"forwards": 2, "backwards": 2})  # fmt: skip
    write("plain/seed_1/0", config(), FULL)
    audit = {"labels": [0] * 256, "answers": {"image": ANSWERS}, "protocols": {"image": {"space": "image", "batch_norm": "eval"}}}
    Path("runs/rat/seed_1/0/audit").mkdir()
    Path("runs/rat/seed_1/0/audit/audit.json").write_text(json.dumps(audit))
    return results_of(find_records([Path("runs")]))


@pytest.mark.parametrize(
    ("settings", "name", "where"),
    [
        (defended(), "none", "VGG-11"),
        (defended("AdversarialTraining"), "adversarial training", "VGG-11"),
        (defended("AdversarialTraining", callbacks=["OrthogonalRetraction"]), "SNN-RAT", "VGG-11"),
        (defended("SparseGradient", {"attack": None}), "SR", "VGG-11"),
        (defended("SparseGradient", {"attack": {"class_path": "a.FGSM"}}), "SR + adversarial training", "VGG-11"),
        (defended("SharedNoise"), "HIRE-SNN", "VGG-11"),
        (defended(network={"class_path": "n.WideResNet", "init_args": {"depth": 16, "width": 4}}), "none", "WRN-16-4"),
        (defended(network={"class_path": "n.VGG", "init_args": {"channels": [8] * 8, "spiking": False}}), "none", "ANN VGG-11"),
        (config(), "none", "SEW-ResNet18 max"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_a_defence_is_what_the_settings_say(settings, name, where):
    write("a", settings, FULL)
    assert Defence.of(find_records([Path("runs")])[0]) == (name, where)


def test_defences_stand_with_their_audit_and_their_cost(results):
    found = defence_runs(results)
    assert [each.record.name.split("/")[0] for each in found] == ["rat", "vgg11"], "the plain SEW-ResNet was not audited"
    rows = {row[0].text: [cell.text for cell in row] for row in accuracy_table(found).rows}
    assert rows["SNN-RAT"][-4:] == ["256 images", "30.0 [28.0, 32.0]", "10.0 [8.0, 12.0]", "MASKED"]
    assert rows["none"][-4:] == ["no", "-", "-", "-"]
    costs = {row[0].text: [cell.text for cell in row] for row in cost_table(found).rows}
    # 100 epochs of 3,125 batches of 16.
    assert costs["none"][3:] == ["a GPU", "1 + 1", "0.001", "-", f"{100 * FULL[99]['grad_zero/input/00_input']:.2f}", "25.00", "5.0", "2.0"]
    assert costs["SNN-RAT"][3:7] == ["a GPU", "2 + 2", "0.002", "2.0 x"]


@pytest.mark.usefixtures("elsewhere")
def test_the_papers_own_networks_are_told_with_what_an_audit_leaves():
    audit = {"labels": [0] * 256, "answers": {"image": ANSWERS}, "protocols": {"image": {"space": "image", "batch_norm": "eval"}}}
    for pool in ("max", "avg"):
        write(pool, config(pool=pool), {epoch: curve(pool, 18, 0, epoch) for epoch in range(3)})
    of_another_kind = config()
    of_another_kind["model"]["backward"] = {"class_path": "g.PoolGradient", "init_args": {"share": "uniform"}}
    write("uniform", of_another_kind, FULL)
    groups = Report(find_records([Path("runs")]), Path("out")).groups
    told = sentences(trained(grid()), groups)[1]
    own = "; the paper's two SEW-ResNet18 (Tables 2 and 3: max and average pooling), trained here for 3 epochs on 50,000 images, keep "
    assert own in told
    assert told.endswith(" % under PGD-7 (10,000 images)."), "no audit, no word of one; trained with another gradient is another network"
    shutil.rmtree("runs/avg")
    write("avg", config(pool="avg"), {epoch: curve("avg", 18, 0, epoch) for epoch in range(2)})
    assert (
        "trained here for 2 to 3 epochs on 50,000 images"
        in sentences(trained(grid()), Report(find_records([Path("runs")]), Path("out")).groups)[1]
    )
    for pool in ("max", "avg"):
        Path(f"runs/{pool}/audit").mkdir()
        Path(f"runs/{pool}/audit/audit.json").write_text(json.dumps(audit))
    groups = Report(find_records([Path("runs")]), Path("out")).groups
    left = "10.0 [8.0, 12.0] and 10.0 [8.0, 12.0] % once pixels are attacked by an audit (256 images)."
    assert sentences(trained(grid()), groups)[1].endswith(left)


def test_quoted_rows_stand_beside_attacks_on_pixels_alone(results):
    rows = [[cell.text for cell in row] for row in quoted_table(defence_runs(results)).rows]
    assert len(rows) == 9
    rat = next(row for row in rows if row[1:3] == ["CIFAR-10", "SNN-RAT VGG-11 (Ding et al., 2022)"])
    assert rat[5:] == ["45.23", "20.90", "21.16", "16.72", "90.74", "41.80", "10.0 [8.0, 12.0]"]
    assert [row[3] for row in rows].count("-") == 8, "nothing of CIFAR-100 was run, and nothing on spikes counts"
    with_spikes = results_of(find_records([Path("runs/plain")]))
    assert defence_runs(with_spikes) == []


def test_what_would_survive_follows_from_the_audits(results):
    said = survival(defence_runs(results))
    assert sum("without a GPU it cannot be known" in each for each in said) == 4
    (rat,) = [each for each in said if each.startswith("SNN-RAT VGG-11")]
    assert "30.0 % (77 of 256, 95 % interval 28.0 to 32.0 %) under the attack that is quoted" in rat
    assert "at most 10.0 % (26 of 256, 95 % interval 8.0 to 12.0 %) under all attacks: MASKED" in rat
    assert "would not survive" in rat


@pytest.mark.parametrize(("worst", "survives"), [((7, 256), False), ((56, 256), True), ((0, 256), False)])
def test_what_is_not_masked_survives_only_if_as_much_is_left_as_is_quoted(results, worst, survives):
    """SNN-RAT's VGG-11 is quoted with 21.16 %; 7 of 256 leave up to 5.5 %, 56 leave up to 27.3."""
    (rat,) = [each for each in results if each.record.audit]
    share = wilson(*worst)._asdict()
    rat.record.audit["answers"]["image"] = ANSWERS | {"belief": "NO SIGN OF MASKING", "accuracy": {"worst": share}}
    (said,) = [each for each in survival(defence_runs(results)) if each.startswith("SNN-RAT VGG-11")]
    assert ("would not survive" in said) is not survives
    assert f"({worst[0]} of 256, 95 % interval" in said


# The page, and the documents that take parts of it -------------------------------------------------------------------------


@pytest.fixture
def answered(results):
    Path("runs/causal").mkdir()
    Path("runs/causal", MEASURED).write_text(json.dumps({"schema": 1, "settings": {}, "networks": grid(training=8)}))
    Path("notes.md").write_text("a\n\n<!-- report: answer -->\nold\n<!-- end of report -->\n\nb\n")
    assert main(["report", "runs", "--out", "out", "--into", "notes.md"]) == 0
    return Path("out")


def test_the_report_opens_with_the_answer_and_other_documents_say_the_same(answered):
    first = sentences(networks_of(Path("runs/causal", MEASURED)))
    page, markdown, notes = (answered / "report.html").read_text(), (answered / "report.md").read_text(), Path("notes.md").read_text()
    assert page.index("<h1>") < page.index("The paper claims") < page.index("<img") < page.index("<nav>") < page.index("<h2")
    assert page.index("The rows that the paper quotes") > page.index("The causal experiment")
    assert "<details><summary>6 rows of Table 1 without a run</summary>" in page
    lines = [line for line in notes.splitlines() if line.startswith("- ")]
    assert lines == markdown.splitlines()[2:5]
    assert [line.replace("\\", "") for line in lines] == [f"- {sentence}" for sentence in first]
    assert notes.startswith("a\n\n<!-- report: answer -->\n- ")
    assert notes.endswith("<!-- end of report -->\n\nb\n")
    csv = (answered / "report.csv").read_text()
    assert "Table 1" in csv, "what is folded away is in it too"


@pytest.mark.usefixtures("results")
def test_what_other_documents_take_over_links_to_the_report():
    report, place = Report(find_records([Path("runs")]), Path("my out")), Path("my out/report.md")
    text = report.markdown()
    for notes in (Path("notes.md"), Path("my notes/deep.md")):
        made = filled("<!-- report: defences -->\n<!-- end of report -->\n", report.parts, notes, place)
        links = re.findall(r"\[R\d+\]\((.*?)#(R\d+)\)", made)
        assert links
        for path, anchor in links:
            assert Path(os.path.normpath(notes.parent / unquote(path))) == place
            assert f'<a id="{anchor}"></a>' in text


def test_nothing_scrolls_sideways_on_a_screen_of_1280_pixels(answered):
    if executable() is None:
        return  # the columns are counted elsewhere
    with Browser() as browser:
        browser.open(answered / "report.html", 1280)
        assert browser.complaints() == []
        boxes = "Array.from(document.querySelectorAll('.table, figure div'))"
        assert browser.evaluate(f"{boxes}.filter(each => each.scrollWidth > each.clientWidth).length") == 0
        assert browser.evaluate(f"{boxes}.length") > 8


@pytest.mark.usefixtures("results")
def test_bad_documents_and_experiments_get_one_line(capsys):
    Path("none.md").write_text("nothing\n")
    Path("other.md").write_text("<!-- report: weather -->\n<!-- end of report -->\n")
    for arguments, said in ((["none.md"], "has no part to fill"), (["other.md"], "asks for 'weather'"), (["gone.md"], "cannot be read")):
        assert main(["report", "runs", "--out", "out", "--into", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1
        assert not Path("out").exists()
    Path("runs/causal").mkdir()
    for content in ("{", '{"schema": 1, "networks": [{"name": "a"}]}', "[]"):
        Path("runs/causal", MEASURED).write_text(content)
        assert main(["report", "runs", "--out", "out"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_the_documents_say_what_the_results_say():
    """Whoever adds results runs ``make report``, and commits what it wrote."""
    experiments = {file: networks_of(file) for file in sorted((ROOT / "results").rglob(MEASURED))}
    report = Report(find_records([ROOT / "results"]), ROOT / "results" / "report", experiments)
    for path in DOCUMENTS:
        text = path.read_text()
        assert filled(text, report.parts, path, ROOT / "results/report/report.md") == text, f"{path.name}: run make report"
    answers = [text[text.index("<!-- report: answer -->") :].split("<!-- end")[0] for text in (path.read_text() for path in DOCUMENTS[:2])]
    assert answers[0] == answers[1]
    assert len([line for line in answers[0].splitlines() if line.startswith("- ")]) == 3


def test_every_quoted_row_knows_what_it_is_like():
    rows = yaml.safe_load((ROOT / "snn_sparsity/reproduction/paper_tables.yaml").read_text())["tables"]
    assert all(len(row["like"]) == 2 for table in rows.values() for row in table["rows"] if "quoted" in row)


def test_the_page_of_defences_has_the_passes_that_runs_state():
    """``docs/defences.md`` says by hand what an objective costs; ``run.json`` has it from the objective."""
    page = (ROOT / "docs/defences.md").read_text()
    runs = {path.parts[-4]: json.loads(path.read_text())["passes"] for path in (ROOT / "results/defences").glob("*/*/*/*/run.json")}
    told = {name: rest.rsplit("|", 2)[1].strip() for name, rest in re.findall(r"^\| `(\w+)` (\|.*)$", page, re.MULTILINE) if name in runs}
    assert len(told) >= 9
    assert {name: said.split(",")[0] for name, said in told.items()} == {
        name: f"{runs[name]['forwards']:g} + {runs[name]['backwards']:g}" for name in told
    }
