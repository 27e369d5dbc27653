"""A spiking network that starts from a trained ANN: its weights, and a threshold for each layer that suits them."""

import math
import os
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from spikingjelly.activation_based import functional
from torch import Tensor, nn

from snn_sparsity.data.base import SpikeDataModule
from snn_sparsity.randomness import stream
from snn_sparsity.training.checkpoint_files import read_checkpoint
from snn_sparsity.validation import InputError, require_number

PREFIX = "network."


class ANNStart(Callback):
    """Begin training at the weights of the network's trained twin without spikes, with thresholds balanced layer by layer.

    Each layer's threshold becomes ``V_th = scale P(x)``, P a percentile of what its neurons receive over all time steps of some training
    images, while the layers before it fire at the thresholds that they were just given. Then training goes as ever; a run that is resumed
    keeps what it has. Threshold balancing is Sengupta et al.'s (arXiv 1802.02627), a percentile in the maximum's place Rueckauer et al.'s
    (Frontiers in Neuroscience, 2017). HIRE-SNN (Kundu et al., ICCV 2021) starts from a trained ANN, with 0.7 and 99.7.

    Args:
        ckpt_path: Checkpoint of the same network trained with ``--model.network.spiking false``.
        scale: Above 0: smaller thresholds make more spikes.
        percentile: Above 0 and at most 100.
        images: How many training images are looked at.

    Raises:
        InputError: For a number outside its range; when training starts, without a datamodule, for a checkpoint of another network, a
            network whose thresholds are not learnt (its checkpoints would not hold them), or a layer that receives nothing above 0.

    Example:
        Train the twin, then the network::

            snn-sparsity fit --config hire_ann
            snn-sparsity fit --config hire_vgg11 --trainer.callbacks+ ANNStart --trainer.callbacks.ckpt_path RUN/best.ckpt
    """

    def __init__(self, ckpt_path: str, scale: float = 0.7, percentile: float = 99.7, images: int = 128) -> None:
        require_number("scale", scale, above=0)
        require_number("percentile", percentile, above=0, at_most=100)
        require_number("images", images, at_least=1, whole=True)
        self.ckpt_path, self.scale, self.percentile, self.images = os.fspath(ckpt_path), scale, percentile, images
        self._begun = False

    def state_dict(self) -> dict[str, Any]:
        """Return the mark of a run that has begun."""
        return {"begun": True}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take note that the run goes on from a checkpoint."""
        self._begun = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Load weights and balance thresholds where a run begins."""
        if self._begun:
            return
        network: Any = pl_module.network
        data: Any = getattr(trainer, "datamodule", None)
        if not isinstance(data, SpikeDataModule):
            raise InputError("ANNStart balances thresholds on training images: it needs one of this package's datamodules")
        load_ann(network, self.ckpt_path)
        images = data.split("train").images[: self.images].to(pl_module.device)
        balance_thresholds(network, data.spike_encoder(images, stream(0)), self.scale, self.percentile)


def load_ann(network: nn.Module, ckpt_path: str) -> None:
    """Load the weights of a network's twin without spikes from a checkpoint; only what neurons learn may be missing there.

    Raises:
        InputError: If names or shapes differ.
    """
    state = read_checkpoint(ckpt_path, "ANNStart.ckpt_path")["state_dict"]
    weights = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    own = network.state_dict()
    learnt = {f"{path}.{name}" for path, node in _nodes(network) for name in node.state_dict()}
    wrong = sorted((own.keys() - learnt) ^ weights.keys()) or [name for name in weights if weights[name].shape != own[name].shape]
    if wrong:
        raise InputError(f"ANNStart: {ckpt_path} is not of this network without spikes: {', '.join(wrong[:3])} differ")
    network.load_state_dict(weights, strict=False)


@torch.no_grad()
def balance_thresholds(network: nn.Module, spikes: Tensor, scale: float, percentile: float) -> None:
    """Set each layer's learnt threshold to ``scale`` times a percentile of what its neurons receive, from the input on.

    Args:
        network: Maps [T,N,...] to [T,N,K]; in multi-step mode.
        spikes: [T,N,...], its input.
        scale: Above 0.
        percentile: 0 to 100: the smallest value that so many percent of the values do not exceed.

    Raises:
        InputError: If a layer's threshold is not learnt, or would not be above 0.

    Example:
        Of 1, 2, 3 and 4 three quarters do not exceed 3.

        >>> from snn_sparsity.networks.leaky import LeakyNeuron
        >>> node = LeakyNeuron(learnt=["threshold"], strict=True).build()
        >>> node.step_mode = "m"
        >>> balance_thresholds(nn.Sequential(node), torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), scale=0.5, percentile=75)
        >>> node.v_threshold.item()
        1.5
    """

    def balance(node: Any, inputs: tuple[Tensor]) -> None:
        received = inputs[0].flatten().cpu()  # on a GPU kthvalue is not deterministic
        node.v_threshold.fill_(scale * received.kthvalue(math.ceil(percentile / 100 * len(received))).values)
        if node.v_threshold <= 0:
            raise InputError("ANNStart: a layer of neurons receives too little to have a threshold above 0: give a higher percentile")

    nodes = _nodes(network)
    if fixed := [path for path, node in nodes if not isinstance(node.v_threshold, nn.Parameter)]:
        why = "is not learnt, so that no checkpoint would hold it"
        raise InputError(f"ANNStart: the threshold of {fixed[0]} {why}: give --model.network.neurons.learnt [threshold]")
    training = network.training
    hooks = [node.register_forward_pre_hook(balance) for _, node in nodes]
    try:
        functional.reset_net(network)
        network.eval()(spikes)
    finally:
        for hook in hooks:
            hook.remove()
        functional.reset_net(network)
        network.train(training)


def _nodes(network: nn.Module) -> list[tuple[str, Any]]:
    return [(path, module) for path, module in network.named_modules() if hasattr(module, "v_threshold")]
