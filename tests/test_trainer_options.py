"""Every option of the Trainer works, or is refused with the reason (docs/trainer.md)."""

import inspect
import json
import re
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import Namespace
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from snn_sparsity.attacks import PGD
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.main import main
from snn_sparsity.commands.refusals import REFUSED, require_devices
from snn_sparsity.commands.train import TrainingCLI
from snn_sparsity.data.images import ImageSet
from snn_sparsity.data.loader import EpochLoader
from snn_sparsity.measure.proportions import interval
from snn_sparsity.objectives import AdversarialTraining
from snn_sparsity.probes import AdversarialAccuracy
from snn_sparsity.runs.metrics import append
from snn_sparsity.training.checkpoints import LastCheckpoint
from snn_sparsity.training.progress_bar import QuietProgressBar
from snn_sparsity.training.tensorboard import TensorBoardLayout, columns
from snn_sparsity.validation import InputError
from tests.killing import DroppingNetwork, Kill, run
from tests.tiny import TinyDataModule, TinyNetwork

TINY = str(Path(__file__).parent / "tiny.yaml")
FIT = ["fit", "--config", TINY, "--trainer.default_root_dir", ".", "--trainer.enable_model_summary", "false", "--trainer.max_epochs", "2"]
PLAIN = [*FIT, "--probes", "null"]
RUN = Path("tiny/seed_3407/0")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def state(run=RUN):
    return torch.load(run / "last.ckpt", weights_only=True)


def names(run=RUN):
    return {row.split(",")[2] for row in (run / "metrics.csv").read_text().splitlines()}


# Where a run stops --------------------------------------------------------------------------------------------------------------


def trained(options, folder, resume=None, **limits):
    torch.manual_seed(0 if resume is None else 99)
    classifier = SpikingClassifier(DroppingNetwork())
    trainer = Trainer(callbacks=[LastCheckpoint(folder)], **options | limits | {"enable_checkpointing": True})
    trainer.fit(classifier, datamodule=TinyDataModule(batch_size=8), ckpt_path=resume)
    return classifier.state_dict()


@pytest.mark.parametrize("steps", [5, 7, 9])
def test_the_rest_of_an_epoch_is_not_dropped(steps, trainer_options):
    unbroken = trained(trainer_options, "whole", max_epochs=3)
    trained(trainer_options, "parts", max_epochs=3, max_steps=steps)
    parts = trained(trainer_options, "parts", resume="parts/last.ckpt", max_epochs=3)
    for name, value in unbroken.items():
        assert torch.equal(value, parts[name]), name


@pytest.mark.parametrize("saved_after", [5, 7])
def test_it_goes_on_to_so_many_steps(saved_after, trainer_options):
    # Epochs of five steps: saved between two of them, or within one.
    unbroken = trained(trainer_options, "whole", max_steps=12)
    trained(trainer_options, "parts", max_steps=saved_after)
    parts = trained(trainer_options, "parts", resume="parts/last.ckpt", max_steps=12)
    assert torch.load("parts/last.ckpt", weights_only=True)["global_step"] == 12
    for name, value in unbroken.items():
        assert torch.equal(value, parts[name]), name


# Tuners --------------------------------------------------------------------------------------------------------------------------


def test_a_learning_rate_finder():
    tuner = [
        "--trainer.callbacks",
        "LearningRateFinder",
        "--trainer.callbacks.num_training_steps",
        "30",
        "--data.batch_size",
        "2",
        "--trainer.callbacks.max_lr",
        "0.1",
    ]
    assert main([*PLAIN, *tuner]) == 0
    found = state()["optimizer_states"][0]["param_groups"][0]["lr"]
    assert 1e-8 < found <= 0.1
    assert found != 1e-3
    assert [path.name for path in RUN.glob(".*")] == []


def test_a_learning_rate_finder_beside_a_schedule_is_refused_before_it_searches(capsys):
    tuner = ["--trainer.callbacks", "LearningRateFinder", "--lr_scheduler", "StepLR", "--lr_scheduler.step_size", "1"]
    assert main([*PLAIN, *tuner]) == 2
    assert "LearningRateFinder is not allowed with --lr_scheduler: the schedule would go on from" in capsys.readouterr().err
    assert not RUN.exists()


def test_a_batch_size_finder():
    tuner = ["--trainer.callbacks", "BatchSizeFinder", "--trainer.callbacks.max_trials", "3", "--trainer.callbacks.steps_per_trial", "1"]
    assert main([*PLAIN, *tuner, "--data.batch_size", "4"]) == 0
    assert state()["global_step"] == 2 * 40 / 8


def test_a_batch_size_that_was_found_stays_when_the_run_goes_on():
    tuner = ["--trainer.callbacks", "BatchSizeFinder", "--trainer.callbacks.max_trials", "3", "--trainer.callbacks.steps_per_trial", "1"]
    command = [*PLAIN, *tuner, "--data.batch_size", "4", "--trainer.log_every_n_steps", "1", "--trainer.max_epochs", "3"]
    # Two epochs of five steps, and then some.
    assert run(command, Kill(15, "metrics")) == -signal.SIGKILL
    assert state()["epoch"] > 0
    assert run([*command, "--resume"]) == 0
    assert state()["global_step"] == 3 * 40 / 8


# Numbers that are watched ---------------------------------------------------------------------------------------------------------


class Seen(Callback):
    """Note what a callback that watches a number sees."""

    def __init__(self):
        self.values = []

    def on_train_epoch_end(self, trainer, classifier):
        self.values.append("pgd/accuracy" in trainer.callback_metrics)


def test_a_number_that_was_not_measured_is_not_there(trainer_options):
    probe = AdversarialAccuracy(attack=PGD(steps=1), space="spikes", name="pgd", every_n_epochs=2)
    stop = EarlyStopping("pgd/accuracy", mode="max", patience=2, strict=False, min_delta=1.0)
    seen = Seen()
    trainer = Trainer(max_epochs=9, callbacks=[probe, stop, seen], **trainer_options)
    trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(train_images=8, test_images=8))
    # Measured after epochs 2, 4 and 6: two of them without improvement.
    assert seen.values == [False, True, False, True, False, True]


def test_averaged_weights_are_probed_as_any_others():
    swa = ["--trainer.callbacks", "StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.01"]
    assert main([*FIT, *swa]) == 0
    rows = [row.split(",") for row in (RUN / "metrics.csv").read_text().splitlines()]
    # The third epoch averages the statistics of BatchNorm.
    assert [row[0] for row in rows if row[2] == "pgd/accuracy"] == ["0", "1", "2"]


def test_every_accuracy_has_its_images_and_interval(capsys):
    assert main(FIT) == 0
    assert names() >= {f"{group}/{name}" for group in ("val", "fgsm") for name in ("images", "accuracy_low", "accuracy_high")}
    rows = {row.split(",")[2]: row.split(",")[3] for row in (RUN / "metrics.csv").read_text().splitlines()}
    assert (float(rows["val/images"]), float(rows["fgsm/images"])) == (20, 16)
    ends = interval(round(16 * float(rows["fgsm/accuracy"])), 16)
    assert [float(rows[f"fgsm/accuracy_{end}"]) for end in ("low", "high")] == pytest.approx(ends)
    printed = capsys.readouterr().out
    assert re.search(r"^accuracy +% +95 % interval +clean % +images  protocol$", printed, re.M)
    assert re.search(r"^clean +[\d.]+ +[\d.]+ - [\d.]+ +20$", printed, re.M)
    assert re.search(r"^fgsm +[\d.]+ +[\d.]+ - [\d.]+ +[\d.]+ +16  spikes, BatchNorm batch, FGSM", printed, re.M)


# Options --------------------------------------------------------------------------------------------------------------------------

TABLE = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", (Path(__file__).parents[1] / "docs" / "trainer.md").read_text(), re.M))


def test_every_option_is_in_the_table():
    assert TABLE.keys() == inspect.signature(Trainer).parameters.keys()


def test_the_table_names_what_is_refused():
    assert {name for name, what in TABLE.items() if "refused" in what} == REFUSED.keys()


@pytest.mark.parametrize(
    ("option", "value"),
    [("barebones", "true"), ("model_registry", "a/b"), ("precision", "64-true"), ("use_distributed_sampler", "false")],
)
def test_what_is_refused_says_why_and_leaves_nothing(option, value, capsys):
    assert main([*PLAIN, f"--trainer.{option}", value]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"snn-sparsity: error: trainer.{option}={value} is not allowed: {REFUSED[option][1]}"
    assert not RUN.exists()


@pytest.mark.parametrize("devices", ["9", "1000000", " 1000000 "])
@pytest.mark.parametrize("accelerator", ["cpu", "auto"])
def test_more_processes_than_four_a_core_are_refused_before_there_is_a_trainer(devices, accelerator, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {4, 7})
    monkeypatch.setattr("subprocess.Popen", lambda *args, **kwargs: pytest.fail("a process was started"))
    monkeypatch.setattr(TrainingCLI, "instantiate_trainer", lambda *args, **kwargs: pytest.fail("too late"))
    assert main([*PLAIN, "--trainer.devices", devices, "--trainer.accelerator", accelerator]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.endswith(f"trainer.devices={devices.strip()} is not allowed: give at most 8, 4 for each of the cores here")
    assert not RUN.parents[1].exists()


def test_four_processes_a_core_are_not_refused(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {4, 7})
    for devices in ("auto", 1, 8, "8", [0, 1], None):
        require_devices(Namespace(devices=devices, accelerator="cpu"))
    # Whether there are so many GPUs is for Lightning to say.
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    require_devices(Namespace(devices=8, accelerator="auto"))
    for devices in (9, "9"):
        with pytest.raises(InputError, match=r"trainer\.devices=9 is not allowed: give at most 8"):
            require_devices(Namespace(devices=devices, accelerator="cpu"))


def test_overfitting_sees_the_same_batches_in_every_epoch(trainer_options):
    class Watch(Callback):
        seen = []

        def on_train_batch_start(self, trainer, classifier, batch, batch_idx):
            self.seen.append(batch.images)

    trainer = Trainer(max_epochs=2, overfit_batches=2, callbacks=[Watch()], **trainer_options)
    trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(batch_size=8))
    first, second, third, fourth = Watch.seen
    assert torch.equal(first, third)
    assert torch.equal(second, fourth)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("logger", "files"),
    [
        (["false"], set()),
        (["CSVLogger", "--trainer.logger.save_dir", "mine"], {"mine/lightning_logs/version_0/metrics.csv"}),
        (["[{class_path: TensorBoardLogger, init_args: {save_dir: a}}, {class_path: CSVLogger, init_args: {save_dir: b}}]"], {
            "b/lightning_logs/version_0/metrics.csv"}),
    ],
    ids=["none", "csv", "list"],
)  # fmt: skip
def test_whoever_logs_the_run_keeps_its_numbers(logger, files, capsys):
    assert main([*PLAIN, "--trainer.logger", *logger]) == 0
    assert names() >= {"val/accuracy", "train/loss_epoch"}
    assert all(Path(file).is_file() for file in files)
    assert not list(RUN.glob("events.*"))
    told = capsys.readouterr().out.splitlines()
    shown = [line for line in told if line.startswith("Curves: ")]
    assert [line.rsplit(" ", 1)[1] for line in shown] == (["a/lightning_logs/version_0"] if "TensorBoard" in logger[0] else [])
    assert bool(shown) != (f"Numbers: {RUN}/metrics.csv" in told)
    assert main(["keep", str(RUN), "--out", "kept"]) == 0
    append(RUN / "metrics.csv", [(1, 10, name, 0.5) for name in ("grad_zero/conv/01_conv1", "grad_norm/conv/01_conv1")])
    assert main(["plot", str(RUN), "--out", "figures"]) == 0
    assert (Path("figures") / "gradients.png").is_file()


@pytest.mark.parametrize(
    ("given", "names_logged"),
    [
        (["--trainer.accumulate_grad_batches", "2"], set()),
        (["--trainer.gradient_clip_val", "0.1", "--trainer.gradient_clip_algorithm", "value"], set()),
        (["--trainer.precision", "bf16-mixed"], set()),
        (["--trainer.detect_anomaly", "true", "--trainer.deterministic", "true", "--trainer.benchmark", "false"], set()),
        (["--trainer.reload_dataloaders_every_n_epochs", "1"], set()),
        (["--trainer.val_check_interval", "1", "--trainer.check_val_every_n_epoch", "1"], set()),
        (["--trainer.limit_train_batches", "1", "--trainer.limit_val_batches", "1", "--trainer.num_sanity_val_steps", "0"], set()),
        (["--trainer.max_time", "00:00:10:00", "--trainer.min_epochs", "1", "--trainer.min_steps", "1", "--trainer.max_steps", "4"], set()),
        (["--trainer.log_every_n_steps", "1"], {"train/loss_step"}),
        (["--trainer.enable_checkpointing", "false", "--trainer.enable_autolog_hparams", "false"], set()),
        (["--trainer.inference_mode", "true", "--trainer.enable_model_summary", "true"], set()),
        (["--trainer.profiler", "simple"], set()),
    ],
    ids=lambda given: given[0].rsplit(".", 1)[-1] if isinstance(given, list) else "",
)
def test_options_that_work(given, names_logged):
    assert main([*PLAIN, *given]) == 0
    assert names() >= {"val/accuracy", "train/loss_epoch", *names_logged}


def test_reloading_data_changes_nothing(trainer_options):
    once, each = (trained(trainer_options, f"{every}", max_epochs=3, reload_dataloaders_every_n_epochs=every) for every in (0, 1))
    for name, value in once.items():
        assert torch.equal(value, each[name]), name


def test_a_finished_run_keeps_two_checkpoints_or_one(capsys):
    assert main(PLAIN) == 0
    assert {path.name for path in RUN.glob("*.ckpt")} == {"best.ckpt", "last.ckpt"}
    assert re.search(r"^Kept: +best.ckpt, last.ckpt, [\d.]+ MB \(--checkpoints best", capsys.readouterr().out, re.M)
    assert main([*PLAIN, "--checkpoints", "best"]) == 0
    assert {path.name for path in RUN.with_name("1").glob("*.ckpt")} == {"best.ckpt"}
    record = json.loads((RUN.with_name("1") / "run.json").read_text())
    assert "last_checkpoint" not in record
    assert record["numerics"] == {"flush_denormal": True, "tf32_convolutions": False, "tf32_products": False}


def test_no_thread_is_hushed_for_good():
    before = threading.excepthook
    assert main(PLAIN) == 0
    assert threading.excepthook is before


# Speed ----------------------------------------------------------------------------------------------------------------------------


def test_batches_are_gathered_where_the_images_are():
    images = ImageSet(torch.zeros(5, 3, 32, 32, dtype=torch.uint8, device="meta"), torch.zeros(5, dtype=torch.int64, device="meta"))
    for batch in EpochLoader(images, 2, seed=0, train=True, crop=1):
        assert {part.device.type for part in batch if isinstance(part, torch.Tensor)} == {"meta"}


def test_images_go_to_the_device_once(data, monkeypatch):
    data.trainer = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("meta")), global_rank=0, world_size=1)
    loaders = [data.train_dataloader() for _ in range(2)]
    assert loaders[0].data.images.device.type == "meta"
    assert loaders[0].data is loaders[1].data
    assert data.split("train").images.device.type == "cpu"


def test_the_bar_looks_twice_a_second_and_at_the_end(monkeypatch):
    bar, now = QuietProgressBar(), iter([10.0, 10.1, 10.4, 10.6, 10.7])
    monkeypatch.setattr("snn_sparsity.training.progress_bar.time.monotonic", lambda: next(now))
    bar.enable()
    assert [bar._should_update(step, 5) for step in range(1, 6)] == [True, False, False, True, True]


@pytest.mark.parametrize(
    ("bars", "handed"), [([QuietProgressBar()], False), ([TQDMProgressBar()], True), ([], False)], ids=["ours", "Lightning's", "none"]
)
def test_no_step_waits_for_the_loss_but_for_a_bar_that_is_handed_it(tmp_path, bars, handed):
    """On a GPU a number handed to a bar is waited for at each step."""
    shown = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            shown.append((set(trainer.progress_bar_metrics), bars[0].get_metrics(trainer, pl_module) if bars else {}))

    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=False, enable_checkpointing=False, enable_model_summary=False,
        enable_progress_bar=bool(bars), callbacks=[*bars, Look()], default_root_dir=tmp_path, inference_mode=False,
    )  # fmt: skip
    model = SpikingClassifier(TinyNetwork(), objective=AdversarialTraining())
    trainer.fit(model, datamodule=TinyDataModule(validation="test"))
    first, metrics = shown[0]
    assert ("train/loss_step" in first) == handed
    if bars:
        assert isinstance(metrics["train/loss_step"], float)
    assert metrics.get("passes") == (4 if bars and not handed else None)


def test_a_network_whose_attributes_are_layers_still_has_its_settings_told(tmp_path):
    class Named(TinyNetwork):
        def __init__(self):
            super().__init__()
            self.pool, self.depth = self.maxpool, torch.nn.Identity()

    logger = TensorBoardLogger(tmp_path)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, limit_train_batches=1, logger=logger, enable_checkpointing=False,
        enable_model_summary=False, enable_progress_bar=False, callbacks=[TensorBoardLayout()], inference_mode=False,
    )  # fmt: skip
    trainer.fit(SpikingClassifier(Named()), datamodule=TinyDataModule(validation="test"))
    told = columns(trainer, trainer.lightning_module)
    assert (told["network"], told["depth"], told["pool"]) == ("Named", 0, "")
