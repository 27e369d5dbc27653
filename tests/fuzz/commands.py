"""Whole command lines, configurations, checkpoints and runs, with one or two things wrong."""

import atexit
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from hypothesis import strategies as st
from PIL import Image

from snn_sparsity.audit.run import AuditResult
from tests.fuzz.promise import LONGEST_SECONDS, empty_folder, exit_code, run
from tests.fuzz.rubbish import JSON, NUMBERS, PATHS, VALUES, WORDS, as_yaml, damaged, mutated
from tests.test_audit_pages import MASKED

CONFIG: dict[str, Any] = {
    "seed_everything": 3,
    "trainer": {"max_epochs": 1, "accelerator": "cpu", "limit_train_batches": 1, "limit_val_batches": 1, "num_sanity_val_steps": 0},
    "model": {"network": {"class_path": "tests.tiny.TinyNetwork", "init_args": {"pool": "max"}}, "lr": 0.001, "betas": [0.9, 0.99]},
    "data": {
        "class_path": "snn_sparsity.data.DigitsDataModule",
        "init_args": {
            "batch_size": 4, "train_samples": 4, "test_samples": 4, "validation": "test",
            "encoder": {"class_path": "PhaseEncoder", "init_args": {"num_steps": 2}},
        },
    },
    "probes": {
        "fgsm": None, "codebook": None, "sparsity": None,
        "pgd": {"class_path": "AdversarialAccuracy", "init_args": {
            "attack": {"class_path": "PGD", "init_args": {"steps": 1}}, "space": "spikes", "batch_norm": "eval", "max_samples": 2}},
    },
}  # fmt: skip
"""A run of one training step; what stands here may be broken."""
GUARD: dict[str, Any] = {
    "trainer": {"max_time": "00:00:00:10", "devices": 1, "num_nodes": 1, "strategy": "auto", "enable_progress_bar": False,
                "enable_model_summary": False, "max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1},
    "data": {"init_args": {"train_samples": 4, "test_samples": 4}},
}  # fmt: skip
"""Given after a configuration: no case may take the machine, whatever it says. More devices or nodes would be real processes."""
GUARDS = ["--config", "guard.yaml"]

NUMERIC = [
    "--seed_everything", "--model.lr", "--model.weight_decay", "--model.betas", "--trainer.max_epochs", "--trainer.min_epochs",
    "--trainer.max_steps", "--trainer.min_steps", "--trainer.limit_train_batches", "--trainer.limit_val_batches",
    "--trainer.limit_predict_batches", "--trainer.overfit_batches", "--trainer.val_check_interval", "--trainer.check_val_every_n_epoch",
    "--trainer.num_sanity_val_steps", "--trainer.log_every_n_steps", "--trainer.accumulate_grad_batches", "--trainer.gradient_clip_val",
    "--trainer.reload_dataloaders_every_n_epochs", "--trainer.precision", "--trainer.max_time", "--data.batch_size",
    "--data.eval_batch_size", "--data.validation", "--data.seed", "--data.encoder.num_steps", "--data.encoder.num_bits",
    "--probes.pgd.attack.eps", "--probes.pgd.attack.alpha", "--probes.pgd.attack.steps", "--probes.pgd.attack.restarts",
    "--probes.pgd.max_samples", "--probes.pgd.every_n_epochs",
    "--optimizer.lr", "--optimizer.momentum", "--lr_scheduler.step_size", "--lr_scheduler.gamma",
]  # fmt: skip
WORDED = [
    "--model", "--model.network", "--model.network.pool", "--data", "--data.encoder", "--data.flip", "--data.name", "--data.url",
    "--probes", "--probes.pgd", "--probes.x", "--probes.pgd.attack", "--probes.pgd.attack.loss", "--probes.pgd.space",
    "--probes.pgd.batch_norm", "--trainer.accelerator", "--trainer.fast_dev_run", "--trainer.logger", "--trainer.callbacks",
    "--trainer.callbacks+", "--trainer.enable_checkpointing", "--trainer.gradient_clip_algorithm", "--trainer.deterministic",
    "--trainer.benchmark", "--trainer.inference_mode", "--trainer.use_distributed_sampler", "--trainer.profiler",
    "--trainer.detect_anomaly", "--trainer.barebones", "--trainer.plugins", "--trainer.sync_batchnorm", "--trainer.model_registry",
    "--trainer.enable_autolog_hparams", "--trainer.max_epoch", "--modle.lr", "--x", "-x", "--print_config", "--help", "--data.root",
    "--trainer", "--optimizer", "--lr_scheduler", "--lr_scheduler_interval", "--data.path", "--data.background",
]  # fmt: skip
PLACED = ["--config", "-c", "--ckpt_path", "--data.root", "--data.path", "--trainer.default_root_dir"]
LIKELY = st.sampled_from([
    "EarlyStopping", "ModelCheckpoint", "TensorBoardLogger", "SEWResNet", "CIFARDataModule", "ImageFolderDataModule", "RateEncoder",
    "ArrayDataModule",
    "GradientTrail", "AdversarialAccuracy", "APGD", "Square", "Noise", "PGD", "gpu", "tpu", "16-mixed", "warn", "simple", "dlr",
    "image", "spikes", "batch", "Transfer", "SpikeDataModule", "DirectEncoder", "CodeBookAscent", "VulnerabilityRatio",
    "SGD", "AdamW", "LBFGS", "StepLR", "OneCycleLR", "CosineAnnealingLR",
])  # fmt: skip
OPTIONS = (
    st.tuples(st.sampled_from(NUMERIC), NUMBERS)
    | st.tuples(st.sampled_from(NUMERIC), NUMBERS | VALUES)
    | st.tuples(st.sampled_from(WORDED), WORDS | VALUES | LIKELY)
    | st.tuples(st.sampled_from(PLACED), PATHS)
)


@st.composite
def training_commands(draw: st.DrawFn) -> list[str]:
    """``fit``, and sometimes what needs a checkpoint, with one or two options that are wrong."""
    command = draw(st.sampled_from(["fit"] * 6 + ["validate", "test", "predict", "audit"]))
    given = [command, "--config", "base.yaml", *([] if command in ("predict", "audit") else GUARDS)]
    if command != "fit":
        given += ["--ckpt_path", draw(st.sampled_from(["run/last.ckpt"] * 4 + ["run/metrics.csv", "missing", "run"]))]
    if command == "predict":
        given += [*draw(st.sampled_from([[], ["--images", "folder"]])), "--out", draw(PATHS)]
    if command == "audit":
        # A whole audit takes minutes: only what is refused before is looked at.
        options = st.tuples(
            st.sampled_from(["--budget", "--samples", "--space", "--eps", "--batch_size"]), st.sampled_from(["x", "0", "-1", "nan", "[]"])
        )
        return [*given, *draw(options), *[word for pair in draw(st.lists(OPTIONS, max_size=1)) for word in pair]]
    for option, value in draw(st.lists(OPTIONS, min_size=1, max_size=2)):
        given += draw(st.sampled_from([[f"{option}={value}"]] * 4 + [[option, value], [option], [value]]))
    return given


def config_files() -> st.SearchStrategy[bytes]:
    """A configuration: of another shape, of damaged text, or anything at all."""
    whole = yaml.safe_dump(CONFIG).encode()
    return (
        mutated(CONFIG).map(lambda config: as_yaml(config).encode("utf-8", "replace"))
        | damaged(whole)
        | JSON.map(lambda value: as_yaml(value).encode("utf-8", "replace"))
    )


def checkpoints() -> st.SearchStrategy[bytes]:
    """A checkpoint: damaged bytes, or whole bytes of something else."""
    whole = {
        "state_dict": {"network.fc.weight": torch.zeros(10, 16)},
        "hyper_parameters": {
            "_instantiator": "x",
            "network": {"class_path": "tests.tiny.TinyNetwork", "init_args": {"num_classes": 10}},
            "lr": 0.1,
        },
        "datamodule_hyper_parameters": {"_class_path": "snn_sparsity.data.DigitsDataModule", "batch_size": 2},
    }
    return (mutated(whole) | JSON).map(_saved) | damaged(_saved(whole))


def other_commands() -> st.SearchStrategy[list[str]]:
    """The commands that train nothing, with words of every kind."""
    known = ["run", "runs", "grid.yaml", "paper", "--out", "out", "--help", "--figure", "accuracy", "demo"]
    words = st.lists(PATHS | VALUES | st.sampled_from(known), max_size=4)
    command = st.sampled_from([["configs"], ["report"], ["plot"], ["keep"], ["audit", "--compare"], [""], ["unknown"]])
    option = st.sampled_from(
        ["--grid", "--only", "--seeds", "--max_epochs", "--samples", "--jobs", "--devices", "--part", "--root", "--data_root"]
    )
    sweep = st.lists(st.tuples(option, NUMBERS | PATHS | WORDS), max_size=3)
    return st.tuples(command, words).map(lambda case: [*case[0], *case[1]]) | sweep.map(
        lambda pairs: ["sweep", "--print", "--grid", "grid.yaml", *[word for pair in pairs for word in pair]]
    )


GRID = {"group": {"configs": ["demo", "sew18_maxpool+theory"], "arguments": "--data.name cifar10"}}
READERS = {
    "run.json": ["keep"],
    "metrics.csv": ["report", "keep", "plot"],
    "audit/audit.json": ["keep", "audit --compare run/audit/audit.json"],
    "../grid.yaml": ["sweep --print --grid grid.yaml"],
}
"""Files of a run, and the commands that read them."""


@st.composite
def broken_runs(draw: st.DrawFn) -> tuple[list[str], str, bytes]:
    """A command, and a file that it reads, damaged; JSON is cut off, which is what happens to it."""
    name = draw(st.sampled_from(sorted(READERS)))
    command = draw(st.sampled_from(READERS[name])).split()
    content = (_furniture_folder() / "run" / name).read_bytes()
    if name.endswith(".json"):
        return command, name, content[: draw(st.integers(0, len(content) - 2))]
    if name.endswith(".yaml") and draw(st.booleans()):
        return command, name, as_yaml(draw(mutated(GRID))).encode("utf-8", "replace")
    return command, name, draw(damaged(content))


def hold_reader(case: tuple[list[str], str, bytes]) -> None:
    """A command that reads a run one of whose files is broken."""
    command, name, content = case
    with furnished() as here:
        (here / "run" / name).write_bytes(content)
        run([*command, *([] if command[0] == "sweep" else ["run/audit/audit.json" if command[0] == "audit" else "run", "--out", "out"])])


def hold_command(arguments: list[str]) -> None:
    """A command line in a folder with a little of everything."""
    with furnished():
        run(arguments, LONGEST_SECONDS)


def hold_config(content: bytes) -> None:
    """``fit`` with a configuration."""
    with furnished() as here:
        (here / "rubbish.yaml").write_bytes(content)
        run(["fit", "--config", "rubbish.yaml", *GUARDS], LONGEST_SECONDS)


def hold_checkpoint(content: bytes) -> None:
    """``test`` and ``predict`` of a checkpoint."""
    with furnished() as here:
        (here / "rubbish.ckpt").write_bytes(content)
        run(["predict", "--config", "base.yaml", "--ckpt_path", "rubbish.ckpt"], LONGEST_SECONDS)


@contextmanager
def furnished() -> Iterator[Path]:
    """Work in a new folder that holds a finished run, images, a grid, a link to itself and a configuration."""
    with empty_folder() as here:
        shutil.copytree(_furniture_folder(), here, symlinks=True, dirs_exist_ok=True)
        os.environ["SNN_SPARSITY_CACHE"] = str(here / "cache")
        yield here


@cache
def _furniture_folder() -> Path:
    here = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, here)
    with chdir(here):
        for folder in ("folder", "empty", "cache"):
            Path(folder).mkdir()
        Path("file").write_text("a file\n")
        Path("loop").symlink_to("loop")
        Image.new("L", (8, 8)).save("folder/image.png")
        Path("base.yaml").write_text(yaml.safe_dump(CONFIG))
        Path("guard.yaml").write_text(yaml.safe_dump(GUARD))
        Path("grid.yaml").write_text(yaml.safe_dump(GRID))
        assert exit_code(["fit", "--config", "base.yaml", *GUARDS]) == 0
        shutil.move("runs/base+guard/seed_3/0", "run")
        shutil.rmtree("runs")
        AuditResult(MASKED).save("run/audit")
    return here


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()
