"""The LightningModule around a spiking network: forward, loss, accuracy. What it is trained for is an objective."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from spikingjelly.activation_based import functional
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from snn_sparsity.batch import SpikeBatch
from snn_sparsity.gradient_rules.base import GradientRule
from snn_sparsity.hyperparameters import objects_to_ignore
from snn_sparsity.measure.names import ACCURACY, ACCURACY_INTERVAL, IMAGES, LOSS, TRAIN_LOSS
from snn_sparsity.measure.proportions import interval
from snn_sparsity.networks.gpu import settle_kernels
from snn_sparsity.networks.steps import each_step_seen
from snn_sparsity.networks.sync_batch_norm import one_value_refused
from snn_sparsity.numerics import settle_numerics
from snn_sparsity.objectives import CrossEntropy, Objective, TrainingStep
from snn_sparsity.optimisation import Interval, MakeOptimizer, MakeScheduler, Optimisation, paper_adam
from snn_sparsity.validation import InputError, require_choice, require_number

MOST_BETA = 1 - 2**-53
"""The largest float below 1: with 1 Adam would never forget."""
COUNTED = (IMAGES, *ACCURACY_INTERVAL)
"""What is logged of every accuracy."""


class SpikingClassifier(LightningModule):
    """Classify by the time-mean of a spiking network's outputs, trained on their cross-entropy, with Adam unless told otherwise.

    Defaults are the paper's (its section 4.1); weight decay 1e-3 is in the authors' code, not in the paper.

    A checkpoint goes on with the numbers of its optimiser and the state of its schedule. What is given otherwise than the checkpoint
    was made with is applied to it: see ``Optimisation.apply_changes``.

    Logged: ``train/loss_step`` and ``train/loss_epoch`` (nats), what the objective says, and for ``val`` and ``test`` each: ``val/loss``,
    ``val/accuracy`` (share in [0,1]), ``val/accuracy_low`` and ``val/accuracy_high`` (its 95 % interval), ``val/images`` (how many).

    Making one settles how numbers below 1.2e-38 and products on a GPU are computed, as the command line does: ``settle_numerics``.

    Args:
        network: Maps spikes [T,N,C,H,W] to outputs [T,N,K].
        lr: Adam's learning rate, above 0.
        betas: Adam's two decay rates.
        weight_decay: L2 decay added to Adam's gradient, at least 0.
        objective: What a training step minimises; null is plain cross-entropy.
        backward: Backward rule of training steps, such as ``PoolGradient("uniform")``; null is the network's own derivative. Logits
            do not change by it, nor does what validation, probes and attacks see.
        optimizer: Makes another optimiser from the parameters, in place of Adam and its three numbers.
        lr_scheduler: Makes a schedule of the learning rate from the optimiser; null is none, as in the paper.
        lr_scheduler_interval: What the schedule counts: ``epoch`` or ``step`` (of the optimiser).

    Raises:
        InputError: For a value not allowed, or a network that the rule cannot handle.

    Example:
        >>> from snn_sparsity.networks import SEWResNet
        >>> SpikingClassifier(SEWResNet())(torch.zeros(10, 2, 3, 32, 32)).shape
        torch.Size([2, 10])
        >>> from functools import partial
        >>> sgd = SpikingClassifier(SEWResNet(), optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    """

    def __init__(
        self,
        network: nn.Module,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 1e-3,
        objective: Objective | None = None,
        backward: GradientRule | None = None,
        optimizer: MakeOptimizer | None = None,
        lr_scheduler: MakeScheduler | None = None,
        lr_scheduler_interval: Interval = "epoch",
    ) -> None:
        super().__init__()
        settle_numerics()
        require_number("lr", lr, above=0)
        if not isinstance(betas, list | tuple) or len(betas) != 2:
            raise InputError(f"betas={betas!r} is not allowed: give two numbers")
        for beta in betas:
            require_number("betas", beta, at_least=0, at_most=MOST_BETA)
        require_number("weight_decay", weight_decay, at_least=0)
        require_choice("lr_scheduler_interval", lr_scheduler_interval, ("epoch", "step"))
        self.save_hyperparameters(ignore=objects_to_ignore("network", "objective", "backward", "optimizer", "lr_scheduler"))
        self.network, self.objective = network, objective or CrossEntropy()
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        self.make_optimizer, self.make_scheduler, self.lr_scheduler_interval = optimizer, lr_scheduler, lr_scheduler_interval
        self.optimisation: Optimisation | None = None
        self._loaded: dict[str, Any] = {}
        self.replayed: Callable[[Tensor], Tensor] | None = None  # stands for the network's passes: CUDAGraphs
        # Lightning has a method of the other name.
        self.backward_rule = backward
        with self._training_derivative():
            pass  # refused here, not in the first step
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()
        self.val_accuracy, self.test_accuracy = (MulticlassAccuracy(average="micro") for _ in range(2))
        for stage in ("val", "test"):
            for name in COUNTED:
                setattr(self, f"{stage}_{name}", Counted(name))

    def forward(self, spikes: Tensor) -> Tensor:
        """Return the logits [N,K] of spikes [T,N,C,H,W]: a pure function, since neurons are reset before and after.

        Raises:
            InputError: Naming it, if a neuron in single-step mode would take time steps for images; for outputs that are not [T,N,K].
        """
        settle_kernels(spikes.device)
        functional.reset_net(self.network)
        with each_step_seen(self.network, len(spikes)):
            outputs: Tensor = (self.replayed or self.network)(spikes)
        # The neurons would otherwise keep the whole graph alive until the next forward.
        functional.reset_net(self.network)
        if not isinstance(outputs, Tensor) or outputs.ndim != 3 or outputs.shape[1] != spikes.shape[1]:
            told = list(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
            raise InputError(
                f"network: {type(self.network).__name__} returned {told} for spikes [T,N,C,H,W] = {list(spikes.shape)}: outputs must be "
                "[T,N,K], one for each time step, whose mean over T is taken here"
            )
        return outputs.mean(0)

    def training_step(self, batch: SpikeBatch, batch_idx: int) -> Tensor:
        """Return the objective of a batch, and log what it says.

        Raises:
            InputError: If a single image leaves a BatchNorm with one value per channel.
        """
        with one_value_refused(self.network) if len(batch.labels) == 1 else nullcontext():
            loss, logged = self.objective(self.training_state(batch, batch_idx))
        size = len(batch.labels)
        # What Lightning's bar is handed is waited for at each step; ours reads it when it draws.
        bar = getattr(self._trainer, "progress_bar_callback", None)
        handed = bar is not None and not getattr(bar, "reads_loss", False)
        self.log(TRAIN_LOSS, loss, on_step=True, on_epoch=True, prog_bar=handed, batch_size=size, sync_dist=True)
        for name, value in logged.items():
            self.log(f"train/{name}", value, on_step=False, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def training_state(self, batch: SpikeBatch, batch_idx: int) -> TrainingStep:
        """Return what the objective sees of a batch."""
        trainer: Any = self._trainer  # none, where a step is asked for by hand
        data: Any = getattr(trainer, "datamodule", None)
        return TrainingStep(
            self,
            batch,
            getattr(data, "spike_encoder", None),
            key=(getattr(data, "seed", 0), self.current_epoch),
            number=batch_idx,
            rank=self.global_rank,
            world_size=getattr(trainer, "world_size", 1),
            derivative=self._training_derivative,
        )

    def _training_derivative(self) -> AbstractContextManager[None]:
        return nullcontext() if self.backward_rule is None else self.backward_rule.applied(self.network)

    def validation_step(self, batch: SpikeBatch, batch_idx: int) -> None:
        """Log loss and accuracy on the validation set."""
        self._evaluate(batch, "val", self.val_loss, self.val_accuracy)

    def test_step(self, batch: SpikeBatch, batch_idx: int) -> None:
        """Log loss and accuracy on the test set."""
        self._evaluate(batch, "test", self.test_loss, self.test_accuracy)

    def predict_step(self, batch: SpikeBatch, batch_idx: int) -> Tensor:
        """Return the class probabilities [N,K]."""
        return self(batch.spikes).softmax(1)

    def _evaluate(self, batch: SpikeBatch, stage: str, loss: "MeanLoss", accuracy: MulticlassAccuracy) -> None:
        size = len(batch.labels)
        # Of many processes some have an empty last batch; they log as the others do.
        if size:
            logits = self(batch.spikes)
            loss.update(F.cross_entropy(logits, batch.labels), size)
            accuracy.update(logits, batch.labels)
        self.log(f"{stage}/{LOSS}", loss, batch_size=size)
        self.log(f"{stage}/{ACCURACY}", accuracy, prog_bar=True, batch_size=size)
        for name in COUNTED:
            # Here and not at the end of the epoch: a run that goes on has its rows in the same order.
            counted: Counted = getattr(self, f"{stage}_{name}")
            if size:
                counted.update(logits, batch.labels)
            self.log(f"{stage}/{name}", counted, batch_size=size)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser over all parameters, and the schedule if there is one.

        Raises:
            InputError: If they cannot be made for this network.
        """
        make = self.make_optimizer or paper_adam(self.lr, self.betas, self.weight_decay)
        self.optimisation = Optimisation.make(self.parameters(), make, self.make_scheduler)
        return self.optimisation.configured(self.lr_scheduler_interval)

    def on_fit_start(self) -> None:
        """Refuse a BatchNorm that knows no time steps; let a checkpoint that is about to be restored have what was changed since."""
        if any(isinstance(module, nn.SyncBatchNorm) for module in self.modules()):
            raise InputError(SYNC_BATCHNORM)
        if self.optimisation is not None and self._loaded:
            self.optimisation.apply_changes(self._loaded)
        self._loaded = {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what the optimiser was made with, to know later what was changed."""
        if self.optimisation is not None:
            checkpoint[Optimisation.KEY] = self.optimisation.made_with

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the first tensor that does not fit, or is missing, instead of listing all."""
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            self._loaded = checkpoint
        own = self.state_dict()
        for name in own:
            if name not in checkpoint["state_dict"]:
                raise InputError(f"checkpoint has no {name!r}, which this network has: it was made with another network")
        for name, tensor in checkpoint["state_dict"].items():
            if name not in own:
                raise InputError(f"checkpoint has {name!r}, which this network has not: it was made with another network")
            if tensor.shape != own[name].shape:
                raise InputError(
                    f"checkpoint has {name!r} of shape {list(tensor.shape)}, this network of shape {list(own[name].shape)}: "
                    "it was made for another class count or network"
                )


class Counted(Metric):
    """How many images an accuracy is of, or an end of its 95 % interval, over all processes.

    Args:
        name: One of COUNTED.
    """

    right: Tensor
    images: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        for state in ("right", "images"):
            self.add_state(state, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Take in the logits [N,K] of a batch and its labels [N]."""
        # Not in place: what was reset in inference mode may be updated outside of it.
        self.right = self.right + (logits.argmax(1) == labels).sum()
        self.images = self.images + len(labels)

    def compute(self) -> Tensor:
        """Return it."""
        if self.name == IMAGES:
            return self.images
        low, high = interval(int(self.right), int(self.images))
        return torch.tensor(low if self.name == ACCURACY_INTERVAL[0] else high, device=self.images.device)


class MeanLoss(Metric):
    """The mean loss of an image, over all processes.

    Lightning's own mean rounds half an image away: 37 images on two processes would count as 36.
    """

    total: Tensor
    images: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("total", "images"):
            self.add_state(name, torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, loss: Tensor, images: int) -> None:
        """Take in the mean loss of a batch."""
        # Not in place: what was reset in inference mode may be updated outside of it.
        self.total = self.total + loss.detach() * images
        self.images = self.images + images

    def compute(self) -> Tensor:
        """Return the mean."""
        return self.total / self.images


SYNC_BATCHNORM = (
    "torch.nn.SyncBatchNorm is not allowed: it drops the time dimension of SpikingJelly's multi-step BatchNorm and would normalise over "
    "the wrong axis; instead of Trainer(sync_batchnorm=True) give Trainer(plugins=[MultiStepSyncBatchNorm()]), as the command line does"
)
