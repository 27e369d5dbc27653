"""Runs beside the paper: what is read, what is said of it, and that every number can be found again."""

import csv
import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from snn_sparsity.commands.main import main
from snn_sparsity.protocols import PAPER, STRICT
from snn_sparsity.reproduction.attack_settings import AttackSettings, attacks_of
from snn_sparsity.reproduction.claim import claim_table, series_of, varying_zeros
from snn_sparsity.reproduction.conditions import conditions
from snn_sparsity.reproduction.paper import COLUMNS, max_pooled, paper_rows
from snn_sparsity.reproduction.paper_figures import silence_table
from snn_sparsity.reproduction.paper_rows import arrows, how, paper_table, split
from snn_sparsity.reproduction.report import Report
from snn_sparsity.reproduction.results import groups_of, pairs_of, protocols_of, results_of
from snn_sparsity.reproduction.run_tables import protocol_table, record_table, verdict_table
from snn_sparsity.runs.metrics import read_numbers
from snn_sparsity.runs.records import PHASE_CODE, find_records
from snn_sparsity.validation import InputError
from tests.browser import Browser, executable
from tests.tiny import TinyNetwork

EPS = 8 / 255
PGD = {"eps": EPS, "alpha": 0.01, "steps": 7, "random_start": True, "restarts": 1, "loss": "ce", "keep": "last"}
ATTACKS = {
    "fgsm": ("spikes", "batch", "FGSM", {"eps": EPS, "loss": "ce"}),
    "pgd": ("spikes", "batch", "PGD", PGD),
    "codebook": ("image", "eval", "CodeBookAscent", {"eps": EPS, "steps": 10, "loss": "ce"}),
}
IMAGES = {"train": 50000, "validation": 10000, "test": 10000}


def probe(space, batch_norm, attack, settings, samples=None):
    attacked = {"class_path": f"snn_sparsity.attacks.{attack}", "init_args": dict(settings)}
    arguments = {"max_samples": samples, "attack": attacked, "space": space, "batch_norm": batch_norm}
    return {"class_path": "snn_sparsity.probes.AdversarialAccuracy", "init_args": arguments}


def config(network="SEWResNet", depth=18, pool="max", seed=3407, epochs=100, samples=None, name="cifar10", **data):
    neuron = {"threshold": 1.0, "reset": 0.0, "surrogate": "atan", "alpha": 2.0, "detach_reset": network == "SEWResNet"}
    images = {"encoder": None, "batch_size": 16, "flip": True, "validation": "test", "root": None}
    where = {"name": name} if name.startswith("cifar") else {}
    kind = data.pop("kind", "CIFARDataModule" if where else "DigitsDataModule")
    return {
        "seed_everything": seed,
        "trainer": {"max_epochs": epochs},
        "model": {
            "network": {"class_path": f"m.{network}", "init_args": {"depth": depth, "pool": pool, "stem": "imagenet", "neuron": neuron}},
            "lr": 0.001, "betas": [0.9, 0.999], "weight_decay": 0.001,
        },
        "data": {"class_path": f"m.{kind}", "init_args": images | where | data},
        "probes": {probe_name: probe(*settings, samples=samples) for probe_name, settings in ATTACKS.items()},
    }  # fmt: skip


def curve(pool, depth, seed, epoch):
    """Plausible accuracies; the best epoch is the second last."""
    rise = (0.4 + 0.2 * epoch if epoch < 2 else 0.55) + 0.001 * seed + (0.02 if pool == "avg" else 0) + 0.001 * depth
    zeros = {kind: 0.1 * place + 0.02 * math.sin(epoch + depth + place) for place, kind in enumerate(("input", "conv"), 1)}
    robust = 0.5 * rise - (0.1 if pool == "avg" else 0)
    return {
        "train/loss_epoch": 2 - rise, "val/loss": 1.9 - rise, "val/accuracy": rise, "fgsm/accuracy": robust,
        "pgd/accuracy": 0.8 * robust, "codebook/accuracy": 0.1 * rise,
        **{f"grad_zero_mean/{kind}": share for kind, share in zeros.items()},
        "grad_zero/input/00_input": zeros["input"], "grad_zero/conv/01_conv1": zeros["conv"],
        # A shortcut of stride 2, and a layer that is never sparse: structure, left out.
        "grad_zero/conv/07_shortcut": 0.75, "grad_zero/conv/09_conv3": 0.0,
        "grad_norm/conv/07_shortcut": 0.1, "grad_norm/conv/09_conv3": 0.1,
        "grad_norm/input/00_input": 0.5, "grad_norm/conv/01_conv1": 0.01,
    }  # fmt: skip


def write(folder, settings, values=None, status="finished", images=IMAGES, **record):
    """Leave a run in ``runs/<folder>``."""
    run = Path("runs") / folder
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    splits = {split: {"images": count} for split, count in images.items()}
    content = {"status": status, "data": {"splits": splits}, "effective_batch_size": 16, "wall_seconds": 5.5, "device": "a GPU"} | record
    (run / "run.json").write_text(json.dumps(content))
    if values is None:
        network = settings["model"]["network"]["init_args"]
        values = {epoch: curve(network["pool"], network["depth"], settings["seed_everything"], epoch) for epoch in range(3)}
    rows = [f"{epoch},{10 * epoch + 9},{name},{float(value)!r}" for epoch, named in values.items() for name, value in named.items()]
    (run / "metrics.csv").write_text("\n".join(["epoch,step,name,value", *rows]) + "\n")
    return run


def groups():
    return groups_of(results_of(find_records([Path("runs")])))


pytestmark = pytest.mark.usefixtures("elsewhere")


# The paper -----------------------------------------------------------------------------------------------------------------


def test_the_paper_s_tables_as_printed():
    assert [len(paper_rows(table)) for table in (1, 2, 3)] == [11, 10, 6]
    sums = [[round(sum(row.accuracy[column] for row in paper_rows(table)), 2) for column in COLUMNS] for table in (1, 2, 3)]
    assert sums == [[177.84, 93.49, 530.94], [359.22, 220.17, 667.83], [204.33, 121.22, 358.51]]
    spiking = paper_rows(1)[9]
    assert (spiking.setting, spiking.accuracy) == (("cifar100", "SpikingResNet", 34, "max"), {"fgsm": 2.43, "pgd": 1.64, "clean": 21.2})
    assert [row.quoted.split(" (")[0] for row in paper_rows(1)[:5]] == [
        "Input discretization", "Hire-SNN", "Vanilla VGG-11", "SNN-RAT VGG-11", "SNN-RAT WRN-16",
    ]  # fmt: skip


def test_cifar_100_is_the_same_in_tables_1_and_2():
    ones = {(row.quoted, *row.setting): row.accuracy for row in paper_rows(1)}
    shared = [row for row in paper_rows(2) if row.dataset == "cifar100"]
    assert len(shared) == 5
    assert all(ones[(row.quoted, *row.setting)] == row.accuracy for row in shared)


def test_two_of_the_paper_s_arrows_contradict_its_own_numbers():
    wrong = []
    for row in paper_rows(3):
        for column in COLUMNS:
            own = row.accuracy[column] - max_pooled(row).accuracy[column]
            assert abs(own) == pytest.approx(abs(row.printed[column]), abs=0.011)
            if own * row.printed[column] < 0:
                wrong.append((row.setting, column))
    assert wrong == [(("cifar100", "SEWResNet", depth, "avg"), "fgsm") for depth in (34, 50)]
    table = paper_table(3, [])
    assert [row[4].text for row in table.rows][4:] == [
        "20.07 (the paper prints ↓0.16, its own numbers give ↑0.16)", "22.02 (the paper prints ↓0.74, its own numbers give ↑0.75)",
    ]  # fmt: skip


# Reading -------------------------------------------------------------------------------------------------------------------


def test_runs_are_found_wherever_they_lie():
    write("a/seed_1/0", config(seed=1))
    run = write("b/deep/seed_2/0", config(seed=2))
    (run / "test").mkdir()
    for name in ("config.yaml", "run.json", "metrics.csv"):
        (run / "test" / name).write_bytes((run / name).read_bytes())
    records = find_records([Path("runs"), run])
    assert [record.name for record in records] == ["a/seed_1/0", "deep/seed_2/0"], "what is given twice counts once, a test is no run"
    assert records[0].test is None
    assert records[1].test.path == run / "test"


@pytest.mark.parametrize(
    ("data", "dataset", "original"),
    [
        ({"name": "cifar100"}, "cifar100", True),
        ({"name": "digits"}, "digits", True),
        ({"name": "-", "kind": "ImageFolderDataModule", "root": "/data/cifar10-images"}, "cifar10", False),
        ({"name": "-", "kind": "ImageFolderDataModule", "root": "/data/CIFAR-100"}, "cifar100", False),
        ({"name": "-", "kind": "ImageFolderDataModule", "root": "/data/cifar1000"}, "folder cifar1000", False),
        ({"name": "-", "kind": "ImageFolderDataModule", "root": "/data/cats/"}, "folder cats", False),
    ],
)
def test_datasets_by_name(data, dataset, original):
    write("a", config(**data))
    (record,) = find_records([Path("runs")])
    assert (record.dataset, record.original_pixels) == (dataset, original)


def test_numbers_know_their_line():
    run = write("a", config(), {0: {"x": 1.0, "y": 2.0}, 1: {"x": 3.0}})
    with (run / "metrics.csv").open("a") as file:
        file.write("1,30,x,4.0\n,31,z,1.0\n")
    numbers = read_numbers(run / "metrics.csv")
    assert [(number.value, number.line) for number in numbers["x"].values()] == [(1.0, 2), (4.0, 5)]
    assert set(numbers) == {"x", "y"}


def error(capsys, *arguments):
    assert main(["report", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line


def test_mistakes_get_one_line(capsys):
    assert "required: RUNS" in error(capsys)
    assert "no runs found in nowhere" in error(capsys, "nowhere")
    first = write("a/seed_1/0", config(), {0: {"val/accuracy": 0.5}})
    assert "no runs found in empty" in error(capsys, first, "empty")
    (first / "config.yaml").rename(first / "kept.yaml")
    assert f"{first} is no run: there is no {first}/config.yaml" in error(capsys, first)
    assert "no runs found in runs" in error(capsys, "runs")
    for content, message in (
        ("a: [", "cannot be read"),
        ("a\n", "is no mapping"),
        ("seed_everything: 1\n", "has no 'model'"),
        ("model: &model {itself: *model}\n", "config.yaml cannot be read: Circular reference"),
    ):
        (first / "config.yaml").write_text(content)
        assert message in error(capsys, first)
    (first / "kept.yaml").rename(first / "config.yaml")
    second = write("b/seed_1/0", config(), {0: {"val/accuracy": 0.5}})
    assert f"{first} and {second} are the same run" in error(capsys, "runs")
    (second / "metrics.csv").write_text("epoch,step,name,value\n0,1,a\n")
    assert "b/seed_1/0/metrics.csv line 2 is no row" in error(capsys, second)
    for content in ("{", "[" * 100000):
        (second / "run.json").write_text(content)
        assert "run.json cannot be read" in error(capsys, second)
    Path("taken").write_text("")
    assert "png cannot be written: Not a directory" in error(capsys, first, "--out", "taken")


@pytest.mark.parametrize("change", [{"seed": 2}, {"epochs": 5}, {"depth": 34}, {"pool": "avg"}, {"name": "cifar100"}, {"train_samples": 9}])
def test_one_setting_makes_another_run(change):
    write("a", config())
    write("b", config(**change))
    assert len(find_records([Path("runs")])) == 2


def test_where_the_data_lie_and_the_kernel_do_not_make_another_run():
    write("a", config())
    settings = config(root="/elsewhere")
    settings["model"]["network"]["init_args"]["neuron"]["kernel"] = "auto"
    # Null was the paper's code before the paper's configuration named it.
    settings["data"]["init_args"]["encoder"] = PHASE_CODE
    write("b", settings)
    with pytest.raises(InputError, match="are the same run"):
        find_records([Path("runs")])
    settings["data"]["init_args"]["encoder"] = {**PHASE_CODE, "init_args": {**PHASE_CODE["init_args"], "weighted": True}}
    write("c", settings)
    assert len(find_records([Path("runs/a"), Path("runs/c")])) == 2


# What a run came to --------------------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_the_best_epoch():
    write(
        "a",
        config(),
        {e: {"val/accuracy": v, "fgsm/accuracy": e, "pgd/accuracy": e, "codebook/accuracy": e} for e, v in enumerate((0.1, 0.7, 0.7, 0.2))},
    )
    (result,) = results_of(find_records([Path("runs")]))
    assert (result.epoch, result.clean.value) == (1, 0.7), "the first of equals"
    assert all(result.attacked(attack).value == 1 for attack in result.attacks)


def test_epochs_without_an_attack_are_not_chosen():
    values = {0: {"val/accuracy": 0.3, **{f"{name}/accuracy": 0.1 for name in ATTACKS}}, 1: {"val/accuracy": 0.9}}
    write("a", config(), values)
    assert results_of(find_records([Path("runs")]))[0].epoch == 0


def test_a_test_on_all_images_counts_more():
    run = write("a", config(samples=100))
    tested = {"test/accuracy": 0.25, **{f"{name}/accuracy": 0.125 for name in ATTACKS}}
    write("a/test", config(samples=100), {0: tested})
    (result,) = results_of(find_records([Path("runs")]))
    assert (result.tested, result.clean.value, result.clean.file) == (True, 0.25, run / "test/metrics.csv")
    assert (result.clean_images, result.attacked_images) == (10000, 10000)
    (run / "test/run.json").write_text('{"status": "running"}')
    (result,) = results_of(find_records([Path("runs")]))
    assert (result.tested, result.attacked_images) == (False, 100)


def test_clean_accuracy_is_of_the_fit_where_a_test_judged_fewer_of_the_same_images():
    accuracies = {epoch: {"val/accuracy": value, "val/loss": 1 - value} for epoch, value in enumerate((0.3, 0.7, 0.5))}
    settings = config() | {"best": "loss"}
    run = write("a", settings, accuracies)
    tested = {"test/accuracy": 0.68, "test/loss": 0.3, **{f"{name}/accuracy": 0.125 for name in ATTACKS}}
    write("a/test", settings, {0: tested}, images=IMAGES | {"test": 1000})
    (result,) = results_of(find_records([Path("runs")]))
    assert (result.clean.value, result.clean.epoch, result.clean.file, result.clean_images) == (0.7, 1, run / "metrics.csv", 10000)
    assert result.attacked_images == 1000
    held_out = config(validation=0.1) | {"best": "loss"}
    (run / "config.yaml").write_text(yaml.safe_dump(held_out))
    (result,) = results_of(find_records([Path("runs")]))
    assert (result.clean.value, result.clean.file, result.clean_images) == (0.68, run / "test/metrics.csv", 1000)


def test_nan_is_a_failure_and_is_shown():
    values = {epoch: curve("max", 18, 1, epoch) for epoch in range(3)}
    values[1]["val/loss"] = values[2]["val/loss"] = math.nan
    run = write("a", config(seed=1), values)
    (group,) = groups()
    line = [number for number, text in enumerate((run / "metrics.csv").read_text().splitlines(), 1) if text == "1,19,val/loss,nan"]
    assert conditions(group) == f"seed 1 FAILED: val/loss is nan at epoch 1 (metrics.csv line {line[0]})"
    row = paper_table(2, [group]).rows[0]
    assert [cell.text for cell in row[4:7]] == ["46.99", "FAILED", "-"]
    assert "FAILED" in record_table(group.results).rows[0][2].text
    assert protocol_table(STRICT, protocols_of([group])[STRICT], [group]).rows[0][5].text == "FAILED"


def test_seeds_are_averaged_and_failed_ones_left_out_aloud():
    for seed in (1, 2, 3):
        write(f"a/seed_{seed}", config(seed=seed))
    (group,) = groups()
    clean = [100 * curve("max", 18, seed, 1)["val/accuracy"] for seed in (1, 2, 3)]
    assert group.cell(None) == f"{fmean(clean):.2f} ± {stdev(clean):.2f}"
    values = {epoch: curve("max", 18, 4, epoch) for epoch in range(3)} | {2: {"train/loss_epoch": math.inf}}
    write("a/seed_4", config(seed=4), values)
    (group,) = groups()
    assert group.cell(None) == f"{fmean(clean):.2f} ± {stdev(clean):.2f}"
    assert "seed 4 FAILED: train/loss_epoch is inf" in conditions(group)
    assert (len(group.sound), group.marks) == (3, "[R1] [R2] [R3] [R4]")


def test_runs_of_other_length_are_never_averaged():
    write("a", config(seed=1, epochs=100))
    write("b", config(seed=2, epochs=5))
    assert [group.first.max_epochs for group in groups()] == [100, 5]
    table = paper_table(2, groups())
    assert [row[2].text for row in table.rows if row[1].text == "SEW-ResNet18 max"] == ["[R1]", "[R2]", "-"]


# Words nobody can miss -----------------------------------------------------------------------------------------------------


def said(settings, **more):
    write("a", settings, **more)
    (group,) = groups()
    return conditions(group)


FULL = {epoch: curve("max", 18, 0, 0) for epoch in range(100)}


def test_a_run_like_the_paper_s_needs_no_words():
    assert said(config(), values=FULL) == ""


def test_spiking_resnets_have_the_paper_s_settings_too():
    assert said(config(network="SpikingResNet"), values=FULL) == ""


def test_a_short_run_says_so():
    assert said(config(epochs=3)) == "SHORT: 3 epochs, the paper 100"


def test_a_run_that_was_stopped_says_so():
    assert said(config(), status="running") == "UNFINISHED: seed 3407 after 3 of 100 epochs"


def test_fewer_images_say_so():
    few = said(config(samples=48), values=FULL, images={"train": 1600, "validation": 320})
    assert few == "FEWER IMAGES: 1,600 of 50,000 trained on, 320 of 10,000 judged, 48 of 10,000 attacked (up to ± 14 points)"


def test_what_is_said_of_original_pixels_is_of_all_seeds():
    """It was the first seed's, beside a mean of two: 34.18 to 36.22 % next to 38.50 ± 4.24."""
    accuracies = (0.41, 0.35)
    for seed, accuracy in enumerate(accuracies, 1):
        values = {epoch: each | {"val/accuracy": accuracy} for epoch, each in FULL.items()}
        splits = {split: {"images": count} for split, count in (IMAGES | {"train": 50000 - 1000 * seed}).items()}
        recognised = {"images": 60000, "jpeg": 100, "test": 100}
        write(f"a/seed_{seed}", config(seed=seed), values, data={"splits": splits, "recognised": recognised})
    (group,) = groups()
    # 4,100 of 10,000: between 4,000 and 4,100 of the 9,900 originals; 3,500: between 3,400 and 3,500.
    low, high = (100 * (first + second) / 2 / 9900 for first, second in ((4000, 3400), (4100, 3500)))
    words = conditions(group)
    assert f"clean on original pixels alone: {low:.2f} to {high:.2f} %, the mean of 2 seeds, as up to 100 test images are others" in words
    assert low < 38.0 < high
    assert "48,000 of 50,000 trained on" in words, "the fewest of all seeds"


def test_without_attacks_no_word_is_lost_on_them():
    """A run whose probes of attacks are off has attacked no image, not an unknown number of them."""
    settings = config() | {"probes": {}}
    assert said(settings, values=FULL, images={"train": 5000, "validation": 10000}) == "FEWER IMAGES: 5,000 of 50,000 trained on"
    (group,) = groups()
    assert how(group).text == "1 seed, 100 epochs, 10,000"


def test_other_pixels_say_so():
    folder = config(name="-", kind="ImageFolderDataModule", root="/x/cifar10-jpeg")
    assert said(folder, values=FULL) == "OTHER PIXELS: a folder of images (JPEG)"


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"jpeg": 93, "unknown": 0}, "SOME IMAGES: 93 of 60,000 are JPEG versions"),
        ({"jpeg": 0, "unknown": 12}, "SOME IMAGES: 12 of 60,000 are not known"),
        ({"jpeg": 0, "unknown": 0}, ""),
        (None, ""),  # no dataset of the paper: there is nothing to differ from
    ],
)
def test_an_archive_is_what_its_content_is(found, words):
    run = config(name="-", kind="ArrayDataModule", path="/x/holiday.npz")
    splits = {split: {"images": count} for split, count in IMAGES.items()}
    known = {"recognised": {"dataset": "cifar10", "images": 60000, **found}} if found else {}
    assert said(run, values=FULL, data={"splits": splits, **known}) == words
    (record,) = find_records([Path("runs")])
    assert record.dataset == ("cifar10" if found else "arrays holiday")


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("model.lr", 0.0005, "lr 0.0005, the paper 0.001"),
        ("model.network.init_args.stem", "cifar", 'stem "cifar", the paper "imagenet"'),
        ("model.network.init_args.neuron.alpha", 4.0, "alpha 4.0, the paper 2.0"),
        ("model.network.init_args.neuron.detach_reset", False, "detach_reset false, the paper true"),
        ("data.init_args.validation", 0.1, 'validation 0.1, the paper "test"'),
        ("data.init_args.encoder", {"class_path": "e.PhaseEncoder", "init_args": {"num_steps": 8}}, "num_steps 8, the paper 10"),
        ("data.init_args.encoder", {"class_path": "e.RateEncoder"}, 'class "RateEncoder", the paper "PhaseEncoder"'),
    ],
)
def test_other_settings_say_so(path, value, words):
    settings = config()
    *parents, last = path.split(".")
    place = settings
    for parent in parents:
        place = place[parent]
    place[last] = value
    assert said(settings, values=FULL) == f"OTHER SETTINGS: {words}"


# Tables --------------------------------------------------------------------------------------------------------------------


def full_set():
    for name in ("cifar10", "cifar100"):
        for pool in ("max", "avg"):
            for depth in (18, 34, 50):
                write(f"{name}/{pool}{depth}", config(depth=depth, pool=pool, name=name), FULL | {99: curve(pool, depth, 0, 1)})
    for depth in (18, 34, 50):
        write(f"spiking{depth}", config(network="SpikingResNet", depth=depth, name="cifar100"), FULL)


def test_tables_of_an_empty_set():
    for number in (1, 2, 3):
        table = paper_table(number, [])
        assert len(table.rows) == 6
        assert {cell.text for row in table.rows for cell in row[5::3][:3]} == {"-"}
        assert {row[3].text for row in table.rows} == {"no run"}
        here, missing = split(table)
        assert not here.rows
        assert len(missing.rows) == 6
        assert "FGSM here" not in missing.header
    assert arrows([]) == (0, 0)
    assert verdict_table([]).rows == []
    report = Report([], Path("out"))
    assert "Table 3" in report.html()
    assert report.figures() == {}


def test_tables_of_a_full_set():
    full_set()
    found = groups()
    for number in (1, 2, 3):
        table = paper_table(number, found)
        assert len(table.rows) == 6
        for line in table.rows:
            assert line[3].text == "-"
            assert all(cell.text != "-" for cell in line[5::3][:3])
        assert not split(table)[1].rows
    assert len(list(pairs_of(found))) == 6
    assert arrows(found) == (18, 16), "here avg pooling always costs robustness; twice the paper's own FGSM accuracies rise"


DEFENDED = {
    "objective": {"class_path": "m.AdversarialTraining", "init_args": {}},
    "network": {"class_path": "m.VGG", "init_args": {"pool": "avg", "depth": 11, "channels": [8] * 8}},
}


@pytest.mark.parametrize("part", DEFENDED)
def test_a_defence_is_no_row_of_an_undefended_network(part):
    """The paper's network trained against attacks, and another paper's network, stand among the defences alone."""
    write("plain", config(), FULL)
    defended = config(seed=1)
    defended["model"][part] = DEFENDED[part]
    write("defended", defended, FULL)
    report = Report(find_records([Path("runs")]), Path("out"))
    assert [group.marks for group in report.groups] == ["[R2]"]
    assert [result.mark for result in report.defences] == ["[R1]"]
    correlated = {point.result.mark for series in report.series.values() for each in series for point in each.points}
    assert correlated == {"[R2]"}


def test_a_line_worked_by_hand():
    write(
        "max", config(depth=50), FULL | {99: {"val/accuracy": 0.75, "fgsm/accuracy": 0.5, "pgd/accuracy": 0.25, "codebook/accuracy": 0.0}}
    )
    write(
        "avg",
        config(depth=50, pool="avg"),
        FULL | {99: {"val/accuracy": 0.8, "fgsm/accuracy": 0.5, "pgd/accuracy": 0.125, "codebook/accuracy": 0.0}},
    )
    line = [cell.text for cell in paper_table(2, groups()).rows[2]]
    assert line == ["CIFAR-10", "SEW-ResNet50 max", "[R2]", "-", "51.09", "50.00", "-1.09", "40.55", "25.00", "-15.55", "73.34", "75.00",
                    "+1.66", "1 seed, 100 epochs, 10,000 (10,000)"]  # fmt: skip
    line = [cell.text for cell in paper_table(3, groups()).rows[2]]
    assert line[4:13] == ["49.88 (↓1.21)", "50.00 (=0.00)", "+0.12", "33.29 (↓7.26)", "12.50 (↓12.50)", "-20.79", "75.28 (↑1.94)",
                          "80.00 (↑5.00)", "+4.72"]  # fmt: skip
    strict = protocol_table(STRICT, protocols_of(groups())[STRICT], groups())
    assert [row[4].text for row in strict.rows] == ["75.00", "80.00 (↑5.00)"]


@pytest.mark.parametrize(
    ("key", "value"), [("space", "image"), ("batch_norm", "eval"), ("steps", 20), ("random_start", False), ("eps", 6 / 255)]
)
def test_protocols_never_share_a_column(key, value):
    settings = config()
    arguments = settings["probes"]["pgd"]["init_args"]
    (arguments if key in arguments else arguments["attack"]["init_args"])[key] = value
    write("a", settings)
    write("b", config(seed=1, pool="avg"))
    found = groups()
    (line,) = [row for row in paper_table(2, found).rows if row[2].text == "[R1]"]
    assert [cell.text == "-" for cell in line[5::3][:3]] == [False, True, False]
    for protocol, attacks in protocols_of(found).items():
        assert all(attack.protocol == protocol for attack in attacks)
        assert len(set(attacks)) == len(attacks)
        table = protocol_table(protocol, attacks, found)
        assert len(set(table.header)) == len(table.header), "two attacks never share a title"


def test_attacks_are_told_by_all_their_settings():
    write("a", config())
    (record,) = find_records([Path("runs")])
    attacks = attacks_of(record)
    assert list(attacks) == ["fgsm", "pgd", "codebook"]
    assert [attack.column for attack in attacks.values()] == ["fgsm", "pgd", ""]
    assert attacks["pgd"].label == "PGD-7 (spikes, BN batch)"
    assert attacks["pgd"].details.startswith("PGD(eps=8/255, alpha=0.01, steps=7, random_start=True")
    assert [attack.protocol for attack in attacks.values()] == [PAPER, PAPER, STRICT]


def test_draws_of_a_random_code_come_from_the_record_as_numbers():
    """Not from what a probe says of itself: an attack that brings its own EOT would be given the probe's draws."""
    write("a", config(), probes={"pgd": "EOT(BPDA(EOT(draws=5)))"}, eot_draws={"fgsm": 7, "pgd": 0})
    (record,) = find_records([Path("runs")])
    attacks = attacks_of(record)
    assert dict(attacks["fgsm"].settings)["eot_draws"] == 7
    assert "eot_draws=7" in attacks["fgsm"].details
    assert "draws" not in attacks["pgd"].details


def test_audits_stand_beside_the_runs():
    run = write("a", config())
    share = {"value": 0.5, "low": 0.4, "high": 0.6, "samples": 64}
    answers = {"belief": "MASKED", "do": "Do not quote it.", "accuracy": {"clean": share, "worst": share}}
    protocols = {"paper": {"space": "spikes", "batch_norm": "batch"}, "image": {"space": "image", "batch_norm": "eval"}}
    audit = {"labels": [0] * 64, "protocols": protocols, "answers": {"paper": answers, "image": answers}, "complete": False}
    (run / "audit").mkdir()
    (run / "audit/audit.json").write_text(json.dumps(audit))
    lines = verdict_table(results_of(find_records([Path("runs")]))).texts
    assert lines[0] == ["[R1]", "image: image, BN eval", "64", "50.0 [40.0, 60.0]", "-", "-", "50.0 [40.0, 60.0]",
                        "MASKED (STOPPED EARLY)", "Do not quote it."]  # fmt: skip
    assert [line[1] for line in lines] == ["image: image, BN eval", "paper: spikes, BN batch"]


# The claim -----------------------------------------------------------------------------------------------------------------


def test_the_correlation_is_numpy_s():
    for depth in (18, 34):
        write(str(depth), config(depth=depth))
    results = results_of(find_records([Path("runs")]))
    attacks = protocols_of(groups())[PAPER]
    series = series_of(results, attacks)
    assert [(each.attack.name, each.kind) for each in series] == [("FGSM", "input"), ("FGSM", "conv"), ("PGD", "input"), ("PGD", "conv")]
    values = [curve("max", depth, 3407, epoch) for depth in (18, 34) for epoch in range(3)]
    expected = np.corrcoef([v["grad_zero_mean/conv"] for v in values], [v["pgd/accuracy"] for v in values])[0, 1]
    assert series[3].over_epochs.value == pytest.approx(expected)
    assert (len(series[3].points), series[3].runs) == (6, 2)
    assert math.isnan(series[3].over_runs.value), "two runs are no sample"


def test_over_runs_each_run_counts_once():
    for depth in (18, 34, 50, 101, 152):
        write(str(depth), config(depth=depth))
    series = series_of(results_of(find_records([Path("runs")])), protocols_of(groups())[STRICT])[0]
    best = [curve("max", depth, 3407, 1) for depth in (18, 34, 50, 101, 152)]
    expected = np.corrcoef([v["grad_zero_mean/input"] for v in best], [v["codebook/accuracy"] for v in best])[0, 1]
    assert series.over_runs.value == pytest.approx(expected)


def test_structural_constants_are_left_out_and_depth_is_marked():
    for depth, zeros in ((18, 0.9), (34, 0.5), (50, 0.1)):
        curves = {epoch: curve("max", depth, 3407, epoch) for epoch in range(3)}
        for epoch, values in curves.items():
            values |= {"grad_zero/conv/01_conv1": zeros + 0.01 * epoch, "grad_zero/bn/02_bn1": 0.0, "grad_zero/neuron/03_sn1": 0.1 * epoch}
        write(str(depth), config(depth=depth), curves)
    series = {each.kind: each for each in series_of(results_of(find_records([Path("runs")])), protocols_of(groups())[STRICT])}
    assert "bn" not in series, "nothing there varies"
    assert [point.zeros for point in series["conv"].points[:2]] == pytest.approx([0.9, 0.91])
    assert series["conv"].depth_share > 0.99
    assert series["neuron"].depth_share == pytest.approx(0)
    rows = {row[2].text: [cell.text for cell in row] for row in claim_table(STRICT, list(series.values())).rows}
    assert rows["conv"][-1] == "undefined", "three runs are no sample"
    for depth, zeros in ((101, 0.85), (152, 0.45)):
        curves = {epoch: curve("max", depth, 3407, epoch) for epoch in range(3)}
        for epoch, values in curves.items():
            values |= {"grad_zero/conv/01_conv1": zeros + 0.01 * epoch, "grad_zero/neuron/03_sn1": 0.1 * epoch}
        write(str(depth), config(depth=depth), curves)
    series = {each.kind: each for each in series_of(results_of(find_records([Path("runs")])), protocols_of(groups())[STRICT])}
    rows = {row[2].text: [cell.text for cell in row] for row in claim_table(STRICT, list(series.values())).rows}
    assert rows["conv"][-1].startswith("confounded with depth (100 %")
    assert "depth" not in rows["neuron"][-1]


def test_no_word_of_the_claim_hangs_on_one_image():
    """Epochs of a run stood for runs: over 2 runs of 3 epochs an interval from which one image took the zero."""
    for depth in (18, 34):
        write(str(depth), config(depth=depth))
    series = series_of(results_of(find_records([Path("runs")])), protocols_of(groups())[STRICT])
    table = claim_table(STRICT, series)
    assert not math.isnan(series[0].over_epochs.low)
    assert table.header.count("as claimed?") == 1
    assert {row[-1].text for row in table.rows} == {"undefined"}


def test_datasets_are_not_thrown_together():
    write("a", config())
    write("b", config(name="cifar100"))
    series = series_of(results_of(find_records([Path("runs")])), protocols_of(groups())[STRICT])
    assert [(each.dataset, len(each.points)) for each in series] == [(name, 3) for name in ("cifar10", "cifar100") for _ in range(2)]


# The report ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A partial set of runs, one of them failed, and the report on it, made twice."""
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("report"))
        for seed in (1, 2):
            write(f"max/seed_{seed}/0", config(seed=seed, epochs=3))
        write("avg/seed_1/0", config(pool="avg", seed=1, epochs=3))
        write("digits/seed_1/0", config(name="digits", epochs=3), {0: curve("max", 18, 0, 0) | {"val/loss": math.nan}})
        for out in ("first", "second"):
            assert main(["report", "runs", "--out", out]) == 0
        return Path.cwd()


def test_the_same_runs_give_the_same_bytes(made):
    first, second = (sorted(path for path in (made / out).rglob("*") if path.is_file()) for out in ("first", "second"))
    assert [path.relative_to(made / "first") for path in first] == [path.relative_to(made / "second") for path in second]
    assert {path.name for path in first} >= {"report.html", "report.md", "report.csv", "tradeoff_spikes_batch.png", "curves_image_eval.png"}
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name
    assert str(made) not in (made / "first/report.html").read_text()


def test_each_figure_is_drawn_and_rendered_once(made, tmp_path, monkeypatch):
    drawn, rendered = [], []
    draw, render = Figure.__init__, FigureCanvasAgg.draw
    monkeypatch.setattr(Figure, "__init__", lambda figure, *args, **kwargs: (drawn.append(figure), draw(figure, *args, **kwargs))[1])
    monkeypatch.setattr(FigureCanvasAgg, "draw", lambda canvas: (render(canvas), rendered.append(canvas.figure))[0])
    assert main(["report", str(made / "runs"), "--out", str(tmp_path)]) == 0
    files = list((tmp_path / "figures").iterdir())
    assert len(Page((tmp_path / "report.html").read_text()).pictures) == len(files) == len(drawn) == len(rendered) >= 6
    assert set(map(id, drawn)) == set(map(id, rendered))


def test_figures_of_an_earlier_report_go_and_other_files_stay(made, tmp_path):
    assert main(["report", str(made / "runs"), "--out", str(tmp_path)]) == 0
    (tmp_path / "figures/mine.png").touch()
    assert main(["report", str(made / "runs/avg"), "--out", str(tmp_path)]) == 0
    left = {f"figures/{path.name}" for path in (tmp_path / "figures").iterdir()}
    assert left == {*re.findall(r"\]\((figures/[\w.]+)\)", (tmp_path / "report.md").read_text()), "figures/mine.png"}


def sources(made):
    with (made / "first/report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def at(made, source):
    """Epoch, name and value of a line of a metrics.csv."""
    file, line = source.rsplit(":", 1)
    epoch, _, name, value = (made / "first" / file).read_text().splitlines()[int(line) - 1].split(",")
    return int(epoch), name, float(value)


def test_every_number_is_found_again_in_its_line(made):
    checked = 0
    for row in sources(made):
        if "metrics.csv:" not in row["sources"]:
            assert re.match(r"paper_tables\.yaml|grad_zero/\w+/ that vary, \w+/accuracy, val/accuracy: every epoch of", row["sources"])
            continue
        lines = [at(made, source) for source in row["sources"].split("; ")]
        value = float(re.match(r"[-+]?[\d.]+", row["value"])[0])
        own, before = lines[: len(lines) - 2] if "(" in row["value"] else lines, lines[-2:]
        mean = 100 * fmean(number for _, _, number in own)
        if row["column"].endswith("diff."):
            paper = next(r for r in sources(made) if (r["table"], r["row"]) == (row["table"], row["row"])
                         and r["column"] == row["column"].replace("diff.", "paper"))  # fmt: skip
            mean -= float(paper["value"].split()[0])
        elif "(" in row["value"]:
            change = mean - 100 * fmean(number for _, _, number in before)
            assert row["value"].endswith(f"({'↑' if change > 0 else '↓'}{abs(change):.2f})")
        assert value == pytest.approx(mean, abs=0.006), row
        checked += 1
    assert checked > 30


def test_every_correlation_is_found_again_in_the_runs_it_names(made):
    report = Report(find_records([made / "runs"]), made / "first")
    rows = [row for row in sources(made) if row["column"] == "r over runs and epochs" and row["value"] != "undefined"]
    assert len(rows) == 6
    for row in rows:
        names, marks = row["sources"].split(": every epoch of ")
        zeros, attacked, _ = names.split(", ")
        runs = [result.record.metrics for result in report.results if result.mark in marks.split()]
        kind = zeros.split("/")[1]
        pairs = [(share, run[attacked][epoch].value) for run in runs for epoch, share in varying_zeros(run, kind).items()]
        assert float(row["value"].split()[0]) == pytest.approx(np.corrcoef(np.array(pairs).T)[0, 1], abs=0.006)


def test_no_number_of_a_run_is_without_a_source(made):
    report = Report(find_records([made / "runs"]), made / "first")
    for table in (block for block in report.blocks if hasattr(block, "rows")):
        for row in table.rows:
            for cell in row:
                assert cell.sources or not re.match(r"[-+]?\d+\.\d", cell.text) or "seconds" in table.header, (table.name, cell)


def test_a_changed_line_changes_its_number(made, tmp_path):
    name, line = "runs/avg/seed_1/0/metrics.csv", "1,19,codebook/accuracy"
    before = {(row["table"], row["row"], row["column"]): row["value"] for row in sources(made)}
    text = (made / name).read_text()
    assert line in text
    try:
        (made / name).write_text(re.sub(rf"^{line},.*$", f"{line},0.0125", text, flags=re.M))
        rows = csv.DictReader(Report(find_records([made / "runs"]), made / "first").csv().splitlines())
        changed = [row for row in rows if before.get((row["table"], row["row"], row["column"])) != row["value"]]
        changed = [row for row in changed if not row["table"].startswith("claim")]
    finally:
        (made / name).write_text(text)
    assert {row["table"] for row in changed} == {STRICT.title, "sources [R1]"}
    assert all("1.25" in row["value"] for row in changed)


class Page(HTMLParser):
    """Links, anchors, pictures and text of a page; complains about tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors, self.pictures, self.words, self.open = [], [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.links += [given["href"]] if "href" in given else []
        self.anchors += [given["id"]] if "id" in given else []
        self.pictures += [given["src"]] if tag == "img" else []
        assert tag != "script"
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_the_page_is_whole_and_its_links_lead_somewhere(made):
    page = Page((made / "first/report.html").read_text())
    inside = [link.removeprefix("#") for link in page.links if link.startswith("#")]
    assert set(inside) == set(page.anchors) > {"R1", "R2", "R3", "R4"}
    assert len(inside) > len(set(inside)), "tables lead to runs"
    outside = [link for link in page.links if not link.startswith("#")]
    assert len(outside) == 4
    for link in outside:
        assert json.loads((made / "first" / link).read_text())["device"] == "a GPU"
    assert len(page.pictures) >= 6
    assert all(picture.startswith("data:image/png;base64,") for picture in page.pictures)
    text = " ".join(page.words)
    assert "FAILED: val/loss is nan at epoch 0" in text
    assert "SHORT: 3 epochs, the paper 100" in text
    assert "another threat model" in text
    assert "[R" not in text


def test_markdown_has_the_same_rows_and_pictures(made):
    text = (made / "first/report.md").read_text()
    assert "| CIFAR-10 | SEW-ResNet18 max | [R3](#R3) [R4](#R4) | SHORT: 3 epochs, the paper 100 | 46.99 |" in text
    pictures = re.findall(r"\]\((figures/[\w.]+)\)", text)
    assert pictures
    assert all((made / "first" / picture).is_file() for picture in pictures)
    assert set(re.findall(r"\(#(R\d)\)", text)) <= set(re.findall(r'<a id="(R\d)">', text))


def test_the_browser_has_nothing_to_complain_about(made):
    if executable() is None:
        return  # what can be seen without a browser is tested above
    with Browser() as browser:
        for width in (1280, 390):
            for dark in (False, True):
                browser.open(made / "first/report.html", width, dark)
                assert browser.complaints() == []
                assert browser.evaluate("Array.from(document.images, i => i.complete && i.naturalWidth > 0).every(Boolean)")
                assert browser.evaluate("document.images.length") >= 6
                assert browser.evaluate("document.documentElement.scrollWidth") <= width, "the page itself never scrolls sideways"
                bright = browser.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
                assert bright is not dark


def test_the_report_needs_no_torch(made):
    code = """
import sys
from pathlib import Path
import snn_sparsity.commands.report
from snn_sparsity.runs.records import find_records
from snn_sparsity.reproduction.report import Report
Report(find_records([Path(sys.argv[1])]), Path("out")).csv()
assert not {"torch", "lightning", "matplotlib.pyplot"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(made / "runs")], check=True, capture_output=True)


def test_an_attack_is_a_value():
    one, other = (AttackSettings(STRICT, "PGD", (("steps", 7),)) for _ in range(2))
    assert one == other
    assert len({one, other}) == 1


# Keeping -------------------------------------------------------------------------------------------------------------------


def test_what_is_kept_says_the_same_and_names_no_machine(capsys):
    settings = config(name="-", kind="ImageFolderDataModule", root="/home/me/cifar10-images", epochs=3)
    run = write(
        "sew18_maxpool/seed_3407/0", settings, best_checkpoint="/home/me/runs/best.ckpt", arguments=["fit", "--data.root", "/home/me/x"]
    )
    write("sew18_maxpool/seed_3407/0/test", settings, {0: {"test/accuracy": 0.5, **{f"{name}/accuracy": 0.25 for name in ATTACKS}}})
    before = {(row[0].text, *(cell.text for cell in row[1:])) for row in paper_table(2, groups()).rows}
    assert main(["keep", "runs"]) == 0
    kept = Path("results/cifar10/sew18_maxpool/seed_3407/0")
    assert capsys.readouterr().out.strip() == str(kept)
    names = {path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file()}
    assert names == {"card.md", *(f"{part}{name}" for part in ("", "test/") for name in ("config.yaml", "run.json", "metrics.csv"))}
    assert (kept / "metrics.csv").read_bytes() == (run / "metrics.csv").read_bytes()
    assert not [path for path in kept.rglob("*") if path.is_file() and "/home/me" in path.read_text()]
    after = paper_table(2, groups_of(results_of(find_records([Path("results")]))))
    assert before == {tuple(cell.text for cell in row) for row in after.rows}
    card = (kept / "card.md").read_text()
    assert "SHORT: 3 epochs, the paper 100; OTHER PIXELS: a folder of images (JPEG)" in card
    assert "| clean | 50.00 | test/accuracy | 0 | test/metrics.csv | 2 |" in card
    assert main(["keep", "runs"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_weights_are_exported_under_the_network_s_own_names(tmp_path):
    network = TinyNetwork()
    run = write("sew18_maxpool/seed_3407/0", config(name="-"))
    state = {f"network.{name}": value for name, value in network.state_dict().items()} | {"val_accuracy.tp": torch.zeros(1)}
    torch.save({"epoch": 3, "state_dict": state}, run / "best.ckpt")
    assert main(["keep", "runs"]) == 0
    (kept,) = Path("results").rglob("weights.safetensors")
    assert kept.parent == next(Path("results").rglob("card.md")).parent
    twin = TinyNetwork()
    safetensors.torch.load_model(twin, kept)
    assert all(torch.equal(value, twin.state_dict()[name]) for name, value in network.state_dict().items())
    with safetensors.safe_open(kept, "pt") as file:
        assert file.metadata()["epoch"] == "3"


def test_a_run_that_cannot_be_kept_whole_is_not_kept_in_part(capsys):
    run = write("sew18_maxpool/seed_3407/0", config(name="-"))
    (run / "best.ckpt").write_bytes(b"no weights")
    assert main(["keep", "runs"]) == 2
    assert "best.ckpt is no readable checkpoint" in capsys.readouterr().err
    assert not list(Path("results").rglob("*.*"))


# Figures 1 and 3 -----------------------------------------------------------------------------------------------------------


def test_the_papers_zeros_stand_with_their_place_and_never_as_a_mean_of_ours():
    from snn_sparsity.reproduction.paper_figures import figure_numbers, zero_table

    table = figure_numbers()
    assert [row[0].text for row in table.rows] == ["37.88", "29.01", "16.52"]
    assert all(cell.text for row in table.rows for cell in row)
    assert pytest.approx(75.76) == 2 * 37.88
    assert "75.76" in table.rows[0][3].text
    values = {0: curve("max", 18, 3407, 0) | {
        "grad_zero/pool/04_maxpool": 0.77, "grad_zero/pool/62_avgpool": 0.0, "grad_zero/bn/02_bn1": 0.67,
        "grad_zero_batchnorm_batch/pool/04_maxpool": 0.7706, "grad_zero_batchnorm_batch/pool/62_avgpool": 0.0,
        "grad_zero_batchnorm_batch/bn/02_bn1": 0.0, "grad_zero_mean_batchnorm_batch/surrogate": 0.0385,
    }}  # fmt: skip
    write("a", config(epochs=1), values)
    rows = [[cell.text for cell in row] for row in zero_table(results_of(find_records([Path("runs")]))).rows]
    assert rows == [
        ["[R1]", "BatchNorm eval", "77.00", "0.00", "67.00", "-"],
        ["[R1]", "BatchNorm batch", "77.06", "0.00", "0.00", "3.85"],
    ]


def test_zeros_at_the_neurons_are_told_as_training_goes_on():
    """Of eight epochs the second, fourth, sixth and last; a run of three has no such curve."""
    zeros = {epoch: FULL[0] | {"grad_zero_mean/neuron": 0.01 * epoch, "grad_zero_mean/surrogate": 0.02 * epoch} for epoch in range(8)}
    write("long", config(epochs=8), zeros)
    write("short", config(seed=1, epochs=3), {epoch: zeros[epoch] for epoch in range(3)})
    rows = [[cell.text for cell in row] for row in silence_table(results_of(find_records([Path("runs")]))).rows]
    about = ["[R1]", "CIFAR-10", "SEW-ResNet18 max", "0.001", "8"]
    assert rows == [
        [*about, "at the surrogate", "2.00", "6.00", "10.00", "14.00"],
        [*about, "at the neuron", "1.00", "3.00", "5.00", "7.00"],
    ]


def test_a_test_that_was_broken_off_is_not_kept():
    run = write("a/seed_1/0", config(), {0: {"val/accuracy": 0.5}})
    (run / "test").mkdir()
    (run / "test/run.json").write_text("{")
    assert main(["keep", "runs"]) == 0
    (kept,) = Path("results").rglob("config.yaml")
    assert not (kept.parent / "test").exists()
