"""The documentation builds without a warning, needs no network when it is read, and what it shows works."""

import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import pytest
import torch
from lightning import Trainer

import snn_sparsity
from snn_sparsity import EXPORTS, attacks, gradient_rules
from snn_sparsity.attacks import FGSM, Attack
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.audit.judge.answers import Belief
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.tree import Tree
from snn_sparsity.measure import names
from snn_sparsity.probes import (
    AdversarialAccuracy,
    GradientSparsity,
    GradientTrail,
    Probe,
    SparsityOrigin,
    SurrogateSaturation,
    VulnerabilityRatio,
)
from snn_sparsity.reproduction.answer import Verdict
from snn_sparsity.training.metrics_logger import MetricsCSV
from tests.tiny import TinyDataModule, TinyNetwork

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
OFFERED = [name for home in EXPORTS.values() for name in home]
PAGES_WITH_THE_DEMO = ("README.md", "docs/tutorial.md")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    assert "no such anchor" not in built.stderr
    return folder


class Loaded(HTMLParser):
    """What a browser would load by itself when it shows the page."""

    def __init__(self, text):
        super().__init__()
        self.addresses = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source"):
            self.addresses.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.addresses.append(given.get("href") or "")


def test_every_page_is_there_and_loads_nothing_from_elsewhere(site):
    assert {path.stem for path in PAGES} - {"index"} <= {path.name for path in site.iterdir()}
    pages = list(site.rglob("index.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        assert not [address for address in Loaded(page.read_text()).addresses if address.startswith(("http:", "https:", "//"))], page
    for sheet in site.rglob("*.css"):
        assert not re.findall(r"(?:url\(|@import\s)[\"']?(?:https?:)?//", sheet.read_text()), sheet


def test_the_reference_has_every_public_class_that_it_names(site):
    text = (site / "api/index.html").read_text()
    for name in (*OFFERED, "ProbeContext"):
        assert re.search(rf'id="snn_sparsity\.[\w.]+\.{name}"', text), name


def test_the_reference_names_what_the_package_offers_and_no_more():
    offered, _, _ = (ROOT / "docs/api.md").read_text().partition("## Imported from their own files")
    named = [name for members in re.findall(r"members: \[(.+?)\]", offered) for name in members.split(", ")]
    assert sorted(named) == sorted(OFFERED) == sorted(set(snn_sparsity.__all__) - {"__version__"})


def test_files_beside_the_pages_are_named_on_the_site_and_linked_elsewhere(site):
    said = re.sub(r"<[^>]*>", "", (site / "audit/index.html").read_text())
    assert "examples/audit_a_network.py (examples/audit_a_network.py) runs." in said
    for page in (*PAGES, ROOT / "docs/audits/README.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#<>]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_the_tutorial_shows_the_table_of_the_readme():
    tables = [re.search(r"^accuracy  .*?\n\n?(?=```|input)", (ROOT / page).read_text(), re.M | re.S)[0] for page in PAGES_WITH_THE_DEMO]
    assert tables[0].strip() == tables[1].strip()


def test_every_grid_and_every_code_is_in_its_table():
    reproduce, design = (ROOT / "docs/reproduce.md").read_text(), (ROOT / "docs/design.md").read_text()
    for grid in (ROOT / "snn_sparsity/sweep/grids").glob("*.yaml"):
        assert f"\n| `{grid.stem}` |" in reproduce, grid.stem
    (codes,) = re.findall(r"spike codes: (.+) \|", design)
    there = {path.stem for path in (ROOT / "snn_sparsity/encoders").glob("*.py")} - {"__init__", "base"}
    assert set(re.findall(r"`(\w+)`", codes)) == there


def test_every_file_that_the_design_page_names_is_there():
    page = (ROOT / "docs/design.md").read_text()
    for name in re.findall(r"`(snn_sparsity/[\w./]+|docs/[\w.]+)`", page):
        assert (ROOT / name).exists(), name
    for section in page.split("\n## "):
        # A name alone is that of a file in the room that the section is about.
        home = ROOT / "snn_sparsity" / ("audit" if section.startswith("The audit\n") else "")
        for name in re.findall(r"`([\w/]+\.py)`", section):
            places = (home, ROOT / "snn_sparsity", ROOT) if "/" in name else (home,)
            assert any((place / name).is_file() for place in places), name


def test_the_glossary_has_every_word_of_both_verdicts():
    (row,) = re.findall(r"^\| verdict \| (.+) \|$", (ROOT / "docs/glossary.md").read_text(), re.M)
    for word in (*get_args(Belief), *get_args(Verdict)):
        assert word in row, word


def test_what_the_release_runs_is_declared():
    tools = re.findall(r"`python -m (\w+)`", (ROOT / "docs/release.md").read_text())
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    assert tools
    assert set(tools) <= set(declared)


def test_the_page_on_curves_has_every_name_that_a_default_run_logs():
    text = (ROOT / "docs/curves.md").read_text()
    for name in (names.LOSS, names.CLEAN_LOSS, names.CLEAN_ACCURACY, names.LARGEST_PERTURBATION, names.ZERO_GRADIENT_SAMPLES, names.IMAGES):
        assert f"`<probe>/{name}`" in text, name
    for name in (names.POOL_TIE_SHARED_ZERO, names.mean_of(names.ZERO_ORIGIN), names.mean_of(names.GRAD_ZERO), names.POOL_WINDOWS):
        assert f"`{name}/" in text, name
    assert [cause for cause in re.findall(r"\(`(\w+)`\)", text) if cause in names.CAUSES] == list(names.CAUSES)


def test_a_run_logs_every_name_of_the_page_on_curves(trainer_options, tmp_path):
    probes = [
        AdversarialAccuracy(attack=FGSM(), space="spikes", name="fgsm"), GradientSparsity(), SparsityOrigin(), SurrogateSaturation(),
        GradientTrail(), VulnerabilityRatio(draws=1),
    ]  # fmt: skip
    options = trainer_options | {"logger": MetricsCSV(str(tmp_path)), "max_epochs": 1, "log_every_n_steps": 1}
    data = TinyDataModule(train_images=8, test_images=8, validation="test")
    trainer, classifier = Trainer(callbacks=probes, **options), SpikingClassifier(TinyNetwork())
    trainer.fit(classifier, datamodule=data)
    trainer.test(classifier, datamodule=data, verbose=False)
    logged = {line.split(",")[2] for line in (tmp_path / "metrics.csv").read_text().splitlines()[1:]}
    shown = re.findall(r"`([\w<>,]*/[\w<>,./]+|trail_\.\.\.)`", (ROOT / "docs/curves.md").read_text().partition("## Zeros and norms")[0])
    assert len(shown) > 25
    for name in shown:
        pattern = re.sub("<.+?>", r"[\\w.]+", name).replace("...", ".+")
        assert any(re.fullmatch(pattern, each) for each in logged), name


def test_attacks_and_rules_listed_are_those_that_there_are():
    listed = (ROOT / "docs/attack.md").read_text().partition("## What there is")[2].split("| rule |")
    shown = [{name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)} for table in listed]
    assert shown == [set(attacks.__all__) - {"Attack", "Target"}, set(gradient_rules.__all__) - {"GradientRule"}]


def test_audits_that_are_shown_are_of_the_best_epoch():
    for page in (ROOT / "README.md", *PAGES):
        assert not re.findall(r"snn-sparsity audit --ckpt_path \S+last\.ckpt", page.read_text()), page.name


def test_the_two_protocols_in_python_work(classifier, data):
    batch = next(iter(data.val_dataloader()))
    seen = {"classifier": classifier, "data": data, "images": batch.images, "labels": batch.labels}
    exec(blocks("protocols.md", "python")[0], seen)
    assert seen["left_of_spikes"].shape == seen["left_of_pixels"].shape == batch.labels.shape


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)


@pytest.mark.parametrize("page", [path.name for path in PAGES])
def test_names_and_commands_shown_exist(page):
    for block in blocks(page, "python"):
        for imported in re.findall(r"^from snn_sparsity import (.+)$", block, re.M):
            for name in imported.split(", "):
                # A room is imported by its name, also if nothing has imported it before.
                assert hasattr(snn_sparsity, name) or find_spec(f"snn_sparsity.{name}"), name
    shown = {command for block in blocks(page, "console") for command in re.findall(r"snn-sparsity ([a-z]+)", block)}
    assert shown <= set(Tree().commands)
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    assert {target for block in blocks(page, "console") for target in re.findall(r"make ([a-z-]+)", block)} <= targets


def shown_class(page, base):
    """The class that a page shows, as whoever copies it would have it."""
    namespace = {"__name__": "copied"}
    exec(blocks(page, "python")[0], namespace)
    return next(each for each in namespace.values() if isinstance(each, type) and issubclass(each, base) and each.__module__ == "copied")


def test_the_attack_shown_works(classifier, data):
    batch = next(iter(data.val_dataloader()))
    spikes = data.spike_encoder(batch.images).transpose(0, 1)
    attacked = shown_class("attack.md", Attack)(eps=0.1)(SpikeTarget(classifier), spikes, batch.labels)
    assert attacked.shape == spikes.shape
    assert 0 < (attacked - spikes).abs().max().item() <= 0.05 + 1e-6


def test_the_probe_shown_works(classifier, data):
    from types import SimpleNamespace

    from snn_sparsity.batch import SpikeBatch

    batch = next(iter(data.val_dataloader()))
    spikes = data.spike_encoder(batch.images)
    rates = shown_class("probe.md", Probe)().measure(SimpleNamespace(classifier=classifier), SpikeBatch(spikes, batch.labels, batch.images))
    assert rates.keys() == {"sn1", "sn2"}
    assert all(rate.shape == batch.labels.shape and torch.all((rate >= 0) & (rate <= 1)) for rate in rates.values())


def test_another_library_gets_a_model_that_it_can_attack(classifier, data, monkeypatch):
    class OneStep:
        """In place of AutoAttack, which takes minutes: the same calls, and one step along the gradient."""

        def __init__(self, model, norm, eps):
            self.model, self.eps = model, eps

        def run_standard_evaluation(self, images, labels):
            x = images.clone().requires_grad_()
            gradient = torch.autograd.grad(torch.nn.functional.cross_entropy(self.model(x), labels), x)[0]
            return (images + self.eps * gradient.sign()).clamp(0, 1), labels

    monkeypatch.setattr("pyautoattack.AutoAttack", OneStep)
    batch = next(iter(data.val_dataloader()))
    seen = {"classifier": classifier, "encoder": data.spike_encoder, "images": batch.images / 255, "labels": batch.labels}
    exec(blocks("any_module.md", "python")[1], seen)
    assert (seen["attacked"] - seen["images"]).abs().max().item() == pytest.approx(8 / 255, abs=1e-6)


def test_every_test_behind_a_promise_exists():
    page = (ROOT / "docs" / "guarantees.md").read_text()
    behind = re.findall(r"`(test_\w+\.py)?(?:::)?(test_\w+)?`", page)
    file, named = "", 0
    for name, test in behind:
        file = name or file
        if test:
            assert re.search(rf"^ *def {test}\(", (ROOT / "tests" / file).read_text(), re.M), f"{file}::{test}"
            named += 1
    assert named > 100


def test_what_is_kept_names_no_machine_and_no_registry():
    """Logs of other programs do: they are left out, or what they name is."""
    named = re.compile(r"py" r"pi\.org|pythonhosted|registry\.npm|(?<![\w.])/(?:tmp|root|home|work)/")
    texts = [path for path in (ROOT / "results").rglob("*") if path.suffix in {".md", ".html", ".json", ".csv", ".yaml", ".txt"}]
    assert len(texts) > 50
    assert [f"{path}: {found[0]}" for path in texts if (found := named.search(path.read_text()))] == []
