"""What is installed without a checkout is whole: source archive, wheel, an empty place, another directory."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILD = "from setuptools import build_meta; import sys; print(build_meta.build_{kind}(sys.argv[1]))"
FUSED = """
import snn_sparsity, sys, torch
from snn_sparsity.networks import IFNeuron
assert snn_sparsity.__file__.startswith(sys.argv[1]), snn_sparsity.__file__
neuron = IFNeuron(kernel="fused").build()
neuron.step_mode = "m"
spikes = neuron(torch.rand(4, 2, 3).requires_grad_())
assert "_Steps" in spikes.grad_fn.name(), spikes.grad_fn
"""


def files_of_the_package():
    listed = subprocess.run(["git", "ls-files", "snn_sparsity"], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return {name for name in listed.splitlines() if (ROOT / name).is_file()}


def run(*command, cwd, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, command)], check=False, capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive of the checkout's files, and the wheel made of that archive alone."""
    place = tmp_path_factory.mktemp("built")
    listed = subprocess.run(["git", "ls-files"], check=True, capture_output=True, text=True, cwd=ROOT).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            (place / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / "checkout" / name)
    run("-c", BUILD.format(kind="sdist"), place, cwd=place / "checkout")
    (archive,) = place.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(place / "unpacked", filter="data")
    (source,) = (place / "unpacked").iterdir()
    run("-c", BUILD.format(kind="wheel"), place, cwd=source)
    (wheel,) = place.glob("*.whl")
    return archive, wheel


def test_every_file_of_the_package_is_in_the_source_archive_and_in_the_wheel(built):
    archive, wheel = built
    with tarfile.open(archive) as file:
        shipped = {name.split("/", 1)[1] for name in file.getnames() if "/" in name}
    assert not files_of_the_package() - shipped
    assert {"LICENSE", "README.md", "pyproject.toml"} <= shipped
    with zipfile.ZipFile(wheel) as file:
        assert files_of_the_package() == {name for name in file.namelist() if name.startswith("snn_sparsity/")}


@pytest.mark.long
def test_what_is_installed_works_elsewhere(built, tmp_path):
    _, wheel = built
    empty, elsewhere = tmp_path / "empty", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run("-m", "pip", "install", "--no-deps", "--no-index", "--target", empty, wheel, cwd=elsewhere)
    place = {"cwd": elsewhere, "PYTHONPATH": str(empty), "OMP_NUM_THREADS": "1"}
    run("-c", FUSED, empty, **place)
    names = run("-m", "snn_sparsity", "configs", **place)
    for path in (ROOT / "snn_sparsity" / "configs").glob("*.yaml"):
        assert path.stem in names
    for path in (ROOT / "snn_sparsity" / "sweep" / "grids").glob("*.yaml"):
        assert "snn-sparsity fit" in run("-m", "snn_sparsity", "sweep", "--grid", path.stem, "--print", **place)
    tiny = [
        "--trainer.max_epochs", "1", "--data.train_samples", "8", "--data.test_samples", "4", "--data.encoder", "PhaseEncoder",
        "--data.encoder.num_steps", "2", "--model.network.depth", "18", "--probes", "null", "--trainer.accelerator", "cpu",
    ]  # fmt: skip
    run("-m", "snn_sparsity", "fit", "--config", "demo", *tiny, **place)
    assert list(elsewhere.glob("runs/demo/seed_3407/0/last.ckpt"))
