"""Which passes of a training step are replayed; that losses are equal on a GPU is for `make gpu-proof` to show."""

import pytest
import torch
from lightning import Trainer
from spikingjelly.activation_based import functional

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.training import CUDAGraphs
from snn_sparsity.training.cuda_graphs import Replayed
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule, TinyNetwork


@pytest.fixture
def captured(monkeypatch):
    """Capture as CUDA would: warm up, which moves BatchNorm's statistics and random numbers, and count the replays."""
    replays = []

    def capture(module, samples, allow_unused_input):
        for _ in range(3):
            module(*samples)
            torch.rand(())

        def replay(x):
            replays.append(x.shape)
            return module(x)

        return replay

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", capture)
    return replays


def spikes(images=4):
    return (torch.rand(3, images, 3, 32, 32, generator=torch.Generator().manual_seed(1)) < 0.5).float()


def test_training_passes_are_replayed_and_say_the_same(captured):
    torch.manual_seed(3)
    network, twin = TinyNetwork(), TinyNetwork()
    twin.load_state_dict(network.state_dict())
    replayed = Replayed(network)
    for _ in range(2):
        numbers = torch.get_rng_state()
        one = replayed(spikes())
        assert torch.equal(torch.get_rng_state(), numbers)
        functional.reset_net(twin)
        assert torch.equal(one, twin(spikes()))
    assert captured == [spikes().shape] * 2
    for (name, value), other in zip(network.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(value, other), name


def test_everything_else_runs_as_ever(captured):
    network = TinyNetwork()
    replayed = Replayed(network)
    classifier = SpikingClassifier(network)
    classifier.replayed = replayed
    classifier(spikes())
    assert len(captured) == 1
    classifier(spikes(3))  # the last batch of an epoch
    classifier(spikes().requires_grad_())  # an attack
    with torch.no_grad():
        classifier(spikes())
    handle = network.sn1.register_forward_hook(lambda *_: None)
    classifier(spikes())
    handle.remove()
    classifier.eval()(spikes())
    assert len(captured) == 1
    classifier.train()(spikes())
    assert len(captured) == 2


def test_a_cpu_is_refused_in_one_line(tmp_path):
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=[CUDAGraphs()],
        default_root_dir=tmp_path, inference_mode=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="^CUDAGraphs: it needs a GPU; leave the callback out$"):
        trainer.fit(SpikingClassifier(TinyNetwork()), datamodule=TinyDataModule(validation="test"))


def test_only_steps_are_replayed(tmp_path, captured, monkeypatch):
    """Validation of the same shape, in eval mode, is not; the run's numbers are those of a run without."""
    monkeypatch.setattr(CUDAGraphs, "on_train_start", lambda self, trainer, module: setattr(self, "_replayed", Replayed(module.network)))
    weights = []
    for callbacks in ([], [CUDAGraphs()]):
        torch.manual_seed(0)
        model = SpikingClassifier(TinyNetwork())
        trainer = Trainer(
            accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, callbacks=callbacks,
            default_root_dir=tmp_path, inference_mode=False,
        )  # fmt: skip
        trainer.fit(model, datamodule=TinyDataModule(validation="test", batch_size=16))
        weights.append(model.state_dict())
    assert len(captured) == 2 * (40 // 16)
    assert model.replayed is None
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
