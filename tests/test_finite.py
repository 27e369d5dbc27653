"""Numbers gone wrong: training that stops at the first NaN, and layers that say nothing."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from spikingjelly.activation_based import functional
from torch import nn

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.commands.main import main
from snn_sparsity.encoders import PhaseEncoder
from snn_sparsity.measure.nonfinite import first_nonfinite
from snn_sparsity.probes import GradientSparsity
from snn_sparsity.training import finite_check
from snn_sparsity.training.dead_layers import DeadLayers
from snn_sparsity.training.finite_check import FiniteCheck
from snn_sparsity.validation import InputError, RunError
from tests.tiny import TinyDataModule, TinyNetwork

MARKED = 18
"""Place in the official training set of the one image that is all white."""
TRAPPED = [
    "--config", str(Path(__file__).parent / "tiny.yaml"), "--model.network", "tests.test_finite.TrappedNetwork",
    "--data", "tests.test_finite.MarkedDataModule", "--data.validation", "0.25", "--data.batch_size", "4", "--data.flip", "false",
    "--data.encoder", "PhaseEncoder", "--data.encoder.num_steps", "2",
    "--probes", "null", "--trainer.callbacks+=tests.test_finite.Arm",
]  # fmt: skip


class Poison(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float("nan")


class Trap(nn.Module):
    """Passes its input on, but for what ``springs`` says, while ``sprung``."""

    def __init__(self, springs):
        super().__init__()
        self.springs, self.sprung = springs, False

    def forward(self, x):
        if not self.sprung or self.springs == "never":
            return x
        return Poison.apply(x) if self.springs == "backward" else x * float("inf")


class TrappedNetwork(TinyNetwork):
    """One of its traps springs when it is armed and the marked image comes."""

    def __init__(self, num_classes: int = 4, early: str = "never", late: str = "never") -> None:
        super().__init__(num_classes)
        self.early, self.late, self.armed = Trap(early), Trap(late), False
        # Its NaN goes into a neuron, which turns it into no spike.
        self.bn1 = nn.Sequential(self.bn1, self.early)
        self.avgpool = nn.Sequential(self.avgpool, self.late)

    def forward(self, spikes):
        self.early.sprung = self.late.sprung = self.armed and bool((spikes.amin((0, 2, 3, 4)) == 1).any())
        return super().forward(spikes)


class Arm(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        pl_module.network.armed = trainer.current_epoch == 1


@dataclass(kw_only=True, eq=False)
class MarkedDataModule(TinyDataModule):
    def load(self):
        splits = super().load()
        splits.train.images[MARKED] = 255
        return splits


pytestmark = pytest.mark.usefixtures("elsewhere")


def step_of_the_marked_image(epoch):
    """Return its step and the images of its batch, by the loader alone."""
    data = MarkedDataModule(validation=0.25, batch_size=4)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    batches = [data.training_images(loader, number).tolist() for number in range(len(loader))]
    number = next(number for number, batch in enumerate(batches) if MARKED in batch)
    return epoch * len(batches) + number, number, batches[number]


def test_places_are_those_of_the_official_training_set():
    data = MarkedDataModule(validation=0.25, batch_size=4)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(3)
    for number, batch in enumerate(loader):
        assert torch.equal(batch.images, data.load().train.images[data.training_images(loader, number)])


@pytest.mark.parametrize(
    ("trap", "what", "where"),
    [
        ({"early": "forward"}, "the gradient is NaN or infinite", "bn1.1 (forward)"),
        ({"late": "forward"}, "the loss is nan", "avgpool.1 (forward)"),
        ({"early": "backward"}, "the gradient is NaN or infinite", "bn1.1 (backward)"),
        ({"late": "backward"}, "the gradient is NaN or infinite", "avgpool.1 (backward)"),
    ],
)
def test_training_stops_with_step_images_and_module_and_keeps_what_was_before(trap, what, where, capsys):
    options = [option for name, kind in trap.items() for option in (f"--model.network.{name}", kind)]
    assert main(["fit", *TRAPPED, *options, "--trainer.max_epochs", "3"]) == 1
    step, number, images = step_of_the_marked_image(epoch=1)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    run = Path("runs/tiny/seed_3407/0").absolute()
    assert line == (
        f"snn-sparsity: error: training stopped at step {step} (epoch 1, batch {number}): {what}; it began in {where}; "
        f"the batch holds images {images} of the training set; the last checkpoint is {run / 'last.ckpt'}"
    )
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"] == f"RunError: {line.removeprefix('snn-sparsity: error: ')}"
    kept = torch.load(run / "last.ckpt", weights_only=True)
    # Saved when the epoch began in which it went wrong.
    assert kept["epoch"] == 1
    assert all(value.isfinite().all() for value in kept["state_dict"].values())
    # It was the network's fault, not that of where it stopped: without the trap the run goes on to its end.
    options = [*TRAPPED, "--trainer.max_epochs", "3", "--ckpt_path", str(run / "last.ckpt")]
    assert main(["fit", *options]) == 0


def test_a_failed_run_is_reported_as_failed(capsys):
    assert main(["fit", *TRAPPED, "--model.network.late", "forward", "--trainer.max_epochs", "3"]) == 1
    assert main(["report", "runs", "--out", "report"]) == 0
    assert "FAILED: RunError: training stopped at step 9 (epoch 1, batch 1): the loss is nan" in Path("report/report.html").read_text()


def fit(trainer_options, *callbacks, trap="never", epochs=3, checkpointing=False, lr=1e-3):
    torch.manual_seed(0)
    classifier = SpikingClassifier(TrappedNetwork(early=trap), lr=lr)
    trainer = Trainer(max_epochs=epochs, callbacks=[Arm(), *callbacks], **trainer_options | {"enable_checkpointing": checkpointing})
    data = MarkedDataModule(validation=0.25, batch_size=4, flip=False, encoder=PhaseEncoder(2))
    return classifier, lambda: trainer.fit(classifier, datamodule=data)


class Weights(Callback):
    """Those in front of each step."""

    def __init__(self):
        self.before = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before[trainer.global_step] = [parameter.clone() for parameter in pl_module.parameters()]


def test_a_gpu_s_late_look_finds_the_same_step_and_untouched_weights(trainer_options, monkeypatch):
    """As on a GPU: flags are read two steps late, and the fused optimiser is told by a flag on the device."""
    monkeypatch.setattr(finite_check, "_on_gpu", lambda tensor: True)
    monkeypatch.setattr(finite_check, "_to_host", lambda flag: (flag.clone(), None))
    weights = Weights()
    classifier, train = fit(trainer_options, weights, FiniteCheck(), trap="backward")
    step, number, images = step_of_the_marked_image(epoch=1)
    with pytest.raises(RunError, match=rf"step {step} \(epoch 1, batch {number}\): .* bn1.1 \(backward\); .* images \[{images[0]}, "):
        train()
    assert max(weights.before) > step
    for now, before in zip(classifier.parameters(), weights.before[step], strict=True):
        assert torch.equal(now, before)


def test_looking_changes_no_weight(trainer_options, monkeypatch):
    finals = []
    for callbacks, gpu in (([], False), ([FiniteCheck()], False), ([FiniteCheck()], True)):
        with monkeypatch.context() as patch:
            if gpu:
                patch.setattr(finite_check, "_on_gpu", lambda tensor: True)
                patch.setattr(finite_check, "_to_host", lambda flag: (flag.clone(), None))
            classifier, train = fit(trainer_options, *callbacks)
            train()
        finals.append(classifier.state_dict())
    for other in finals[1:]:
        assert all(torch.equal(value, other[name]) for name, value in finals[0].items())


class Overflow(Callback):
    """A finite step whose weights overflow."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1 and trainer.is_last_batch:
            pl_module.network.fc.weight.data[0, 0] = float("inf")


def test_a_checkpoint_never_holds_infinite_weights(trainer_options, tmp_path):
    checkpoints = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    _, train = fit(trainer_options, FiniteCheck(), Overflow(), checkpoints, checkpointing=True)
    with pytest.raises(RunError, match="network.fc.weight is NaN or infinite; the last checkpoint is .*last.ckpt"):
        train()
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["epoch"] == 0


def test_a_batch_among_several_of_one_step_is_told(trainer_options):
    options = trainer_options | {"accumulate_grad_batches": 3}
    _, train = fit(options, FiniteCheck(), trap="backward")
    _, number, _ = step_of_the_marked_image(epoch=1)
    with pytest.raises(RunError, match=rf"\(epoch 1, batch {number}\)"):
        train()


# The first module -----------------------------------------------------------------------------------------------------------


def chain(*modules):
    network = nn.Sequential(*modules)
    return network, lambda x: network(x).sum()


def test_a_sound_step_has_none():
    network, loss = chain(nn.Linear(3, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    before = [parameter.clone() for parameter in network.parameters()]
    assert first_nonfinite(network, loss, torch.ones(2, 3)) is None
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(one, other) for one, other in zip(before, network.parameters(), strict=True))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_the_input_the_loss_and_a_weight_alone():
    network, loss = chain(nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False))
    x = torch.ones(1, 1)
    assert first_nonfinite(network, loss, x * float("nan")) == "the input"
    assert first_nonfinite(network, lambda x: network(x).sum() / 0, x) == "the loss"
    # 1e30 * 1e30 overflows the first weight's gradient; the input's, 1e30 * 1e-30, does not.
    network[0].weight.data.fill_(1e-30)
    network[1].weight.data.fill_(1e30)
    assert first_nonfinite(network, loss, x * 1e30) == "0 (backward)"


def test_what_a_module_does_between_its_parts_is_its_own():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x):
            return self.second(self.first(x) * float("inf"))

    network, loss = chain(nn.Linear(1, 1), Block(), nn.Linear(1, 1))
    assert first_nonfinite(network, loss, torch.ones(1, 1)) == "1 (forward)"


def test_of_parallel_branches_the_one_is_named():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.sound, self.bad = nn.Linear(2, 2), Trap("backward")
            self.bad.sprung = True

        def forward(self, x):
            return self.sound(x) + self.bad(x)

    network, loss = chain(nn.Linear(2, 2), Branches())
    assert first_nonfinite(network, loss, torch.ones(1, 2)) == "1.bad (backward)"


# Dead layers ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bias", "words"), [(-100.0, "no element"), (100.0, "every element")])
def test_a_dead_layer_is_named_once(bias, words, trainer_options, caplog):
    classifier = SpikingClassifier(TinyNetwork())
    nn.init.constant_(classifier.network.bn2.bias, bias)
    # A probe whose attack would wake the layer up changes nothing: the network's own pass counts.
    trainer = Trainer(max_epochs=3, callbacks=[DeadLayers(), GradientSparsity()], **trainer_options)
    trainer.fit(classifier, datamodule=TinyDataModule(encoder=PhaseEncoder(2)))
    warnings = [record.getMessage() for record in caplog.records if "Dead layer" in record.getMessage()]
    assert len(warnings) == 1
    assert f"in sn2 {words} fires" in warnings[0]
    assert "epoch 0" in warnings[0]
    assert not any(module._forward_hooks for module in classifier.modules())


TWO_STEPS, EIGHT_STEPS = ({"datamodule": TinyDataModule(encoder=PhaseEncoder(steps)), "verbose": False} for steps in (2, 8))


class StepByStep(TinyNetwork):
    """Its neurons are called once a time step."""

    def __init__(self):
        super().__init__()
        functional.set_step_mode(self, "s")

    def forward(self, spikes):
        return torch.stack([self._at(step) for step in spikes])

    def _at(self, spikes):
        x = self.maxpool(self.sn1(self.bn1(self.conv1(spikes))))
        return self.fc(self.avgpool(self.sn2(self.bn2(self.conv2(x)))).flatten(1))


@pytest.mark.parametrize("network", [TinyNetwork, StepByStep])
def test_a_layer_that_fires_now_and_then_is_alive(network, trainer_options, caplog):
    classifier = SpikingClassifier(network())
    for norm in (classifier.network.bn1, classifier.network.bn2):
        # Every neuron fires at each fourth step, and at no other.
        nn.init.zeros_(norm.weight)
        nn.init.constant_(norm.bias, 0.3)
    Trainer(callbacks=[DeadLayers()], **trainer_options).validate(
        classifier, datamodule=TinyDataModule(encoder=PhaseEncoder(8)), verbose=False
    )
    assert "Dead layer" not in caplog.text
    nn.init.constant_(classifier.network.bn2.bias, 1.0)
    Trainer(callbacks=[DeadLayers()], **trainer_options).validate(
        classifier, datamodule=TinyDataModule(encoder=PhaseEncoder(8)), verbose=False
    )
    assert "in sn2 every element fires" in caplog.text


@pytest.mark.parametrize("command", ["validate", "test"])
def test_dead_layers_are_told_without_a_fit_too(command, trainer_options, caplog):
    classifier = SpikingClassifier(TinyNetwork())
    nn.init.constant_(classifier.network.bn1.bias, -100.0)
    getattr(Trainer(callbacks=[DeadLayers()], **trainer_options), command)(
        classifier, datamodule=TinyDataModule(encoder=PhaseEncoder(2)), verbose=False
    )
    assert "in sn1 no element fires" in caplog.text


# Half precision -------------------------------------------------------------------------------------------------------------


def zeros_and_norms(metrics):
    return {name: value for name, value in metrics.items() if name.startswith("grad_")}


@pytest.mark.parametrize("everywhere", [False, True])
def test_training_in_half_precision_is_probed_in_float32(everywhere, trainer_options):
    classifier = SpikingClassifier(TinyNetwork())
    trainer = Trainer(max_epochs=2, precision="bf16-mixed", callbacks=[GradientSparsity()], **trainer_options)
    trainer.fit(classifier, datamodule=TinyDataModule(encoder=PhaseEncoder(2)))
    probed = zeros_and_norms(trainer.callback_metrics)
    plain = Trainer(precision="32-true", callbacks=[GradientSparsity()], **trainer_options)
    # Also where the whole evaluation runs in half precision.
    if everywhere:
        with torch.autocast("cpu", torch.bfloat16):
            trainer.validate(classifier, **TWO_STEPS)
        probed = zeros_and_norms(trainer.callback_metrics)
    plain.validate(classifier, **TWO_STEPS)
    expected = zeros_and_norms(plain.callback_metrics)
    assert len(expected) > 10
    assert probed.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(probed[name], value), name


@pytest.mark.parametrize("precision", ["16-true", "bf16-true"])
def test_weights_in_half_precision_are_not_probed(precision, trainer_options):
    trainer = Trainer(max_epochs=1, precision=precision, callbacks=[GradientSparsity()], **trainer_options)
    with pytest.raises(InputError, match=f"precision={precision!r} is not allowed with probes"):
        trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(encoder=PhaseEncoder(2)))
