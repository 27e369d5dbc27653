"""The documentation builds without a warning, needs no network when it is read, and what it shows works."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import snn_sparsity
from snn_sparsity.attacks import Attack
from snn_sparsity.attacks.targets import SpikeTarget
from snn_sparsity.commands.tree import Tree
from snn_sparsity.probes import Probe

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built strictly: any warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
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
    for name in ("SpikingClassifier", "SEWResNet", "PGD", "CIFARDataModule", "Probe", "ImageSet"):
        assert re.search(rf'id="snn_sparsity\.[\w.]+\.{name}"', text), name


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(), re.S)


@pytest.mark.parametrize("page", [path.name for path in PAGES])
def test_names_and_commands_shown_exist(page):
    for block in blocks(page, "python"):
        for names in re.findall(r"^from snn_sparsity import (.+)$", block, re.M):
            for name in names.split(", "):
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
