"""Starting from an ANN: thresholds by hand, agreement with the ANN after many steps, what a run begins with, what is refused."""

import pytest
import torch
from lightning import Trainer
from torch import nn

from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import DirectEncoder
from snn_sparsity.networks import VGG
from snn_sparsity.networks.leaky import LeakyNeuron
from snn_sparsity.training import ANNStart
from snn_sparsity.training.ann_start import balance_thresholds, load_ann
from snn_sparsity.validation import InputError
from tests.tiny import TinyDataModule

SIZES = {"channels": [6, "A", 12, "A"], "hidden": 16, "num_classes": 4, "bias": False, "batch_norm": False}
NEURONS = LeakyNeuron(reset="subtract", strict=True, learnt=["threshold"])


def spiking(**more):
    return VGG(**{**SIZES, "neurons": NEURONS, **more})


@pytest.fixture
def ann(tmp_path):
    network = VGG(**SIZES, spiking=False)
    path = tmp_path / "ann.ckpt"
    torch.save({"state_dict": SpikingClassifier(network).state_dict()}, path)
    return network, path


def test_a_layer_sees_what_the_one_before_fires_at_its_new_threshold():
    first, joined, second = NEURONS.build(), nn.Linear(2, 1, bias=False), NEURONS.build()
    for node in (first, second):
        node.step_mode = "m"
    nn.init.constant_(joined.weight, 3.0)
    # At threshold 2 the inputs 2.5 and 4 fire at both steps, 6 spikes' worth in each; at 1, which it had, nothing would differ here but
    # the layer's own threshold; at 4 nothing fires.
    x = torch.tensor([[[2.5, 4.0]], [[2.5, 4.0]]])
    network = nn.Sequential(first, joined, second)
    balance_thresholds(network, x, scale=0.5, percentile=100)
    assert (first.v_threshold.item(), second.v_threshold.item()) == (2.0, 3.0)
    with pytest.raises(InputError, match="too little"):
        balance_thresholds(network, x, scale=2, percentile=100)  # at 8 only the second step of the second input could fire, at 8 > 8 not


def test_after_many_steps_the_converted_network_is_the_ann(tmp_path):
    small = {**SIZES, "image_size": 8}
    network = VGG(**small, spiking=False)
    torch.save({"state_dict": SpikingClassifier(network).state_dict()}, path := tmp_path / "ann.ckpt")
    images = torch.rand(32, 3, 8, 8)
    classifier = SpikingClassifier(VGG(**small, neurons=NEURONS))
    load_ann(classifier.network, str(path))
    spikes = images.expand(256, *images.shape)
    balance_thresholds(classifier.network, spikes[:16], scale=1, percentile=100)
    theirs = network.eval()(images.unsqueeze(0))[0].detach()
    ours = classifier.eval()(spikes).detach()
    # Rates are currents in thresholds, so that logits agree up to the last threshold and the steps of a rate.
    assert torch.corrcoef(torch.stack([theirs.flatten(), ours.flatten()]))[0, 1] > 0.99
    assert (theirs.argmax(1) == ours.argmax(1)).float().mean() > 0.8


def test_a_run_begins_there_and_one_that_is_resumed_does_not(ann, tmp_path):
    network, path = ann

    def fit(epochs, callback, ckpt_path=None):
        classifier = SpikingClassifier(spiking())
        data = TinyDataModule(encoder=DirectEncoder(num_steps=2))
        trainer = Trainer(
            max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[callback], limit_train_batches=1, limit_val_batches=0, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(classifier, datamodule=data, ckpt_path=ckpt_path)
        return trainer, classifier.network

    trainer, begun = fit(0, ANNStart(str(path)))
    for name, parameter in network.named_parameters():
        assert torch.equal(begun.get_parameter(name), parameter)
    assert begun.conv1_neuron.v_threshold != 1
    trainer, trained = fit(1, ANNStart(str(path)))
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    path.unlink()
    _, resumed = fit(1, ANNStart(str(path)), ckpt_path=tmp_path / "run.ckpt")
    assert torch.equal(resumed.conv1.weight, trained.conv1.weight)


def test_what_cannot_be_is_refused(ann):
    _, path = ann
    with pytest.raises(InputError, match="is not of this network without spikes: bn1"):
        load_ann(spiking(batch_norm=True), str(path))
    with pytest.raises(InputError, match="fc1.weight"):
        load_ann(spiking(hidden=8), str(path))
    with pytest.raises(InputError, match=r"ANNStart.ckpt_path none.ckpt is no file"):
        load_ann(spiking(), "none.ckpt")
    with pytest.raises(InputError, match="conv1_neuron is not learnt"):
        balance_thresholds(spiking(neurons=LeakyNeuron(strict=True)), torch.rand(2, 1, 3, 32, 32), 1, 99)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, callbacks=[ANNStart(str(path))])
    with pytest.raises(InputError, match="needs one of this package's datamodules"):
        trainer.fit(SpikingClassifier(spiking()), train_dataloaders=[])
    for wrong in ({"scale": 0}, {"percentile": 0}, {"percentile": 101}, {"images": 0}):
        with pytest.raises(InputError, match=next(iter(wrong))):
            ANNStart("ann.ckpt", **wrong)
