"""What is done to weights after each real step of the optimiser."""

import logging
from abc import ABC, abstractmethod
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from snn_sparsity.networks.constraints import retract, simplex_projection
from snn_sparsity.networks.wide_resnet import WideBlock
from snn_sparsity.randomness import stream
from snn_sparsity.validation import InputError, require_number

log = logging.getLogger(__name__)

BETA_LIMIT = 0.5
ROWS = 3
"""Purpose of random numbers, beside the objectives'."""


class AfterStep(Callback, ABC):
    """Change weights after each step that an optimiser really takes: not while gradients accumulate, nor where a scaler skips it."""

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    @abstractmethod
    def change(self, network: nn.Module, key: tuple[int, int], scale: float | Tensor) -> None:
        """Change the network's weights.

        Args:
            network: What was trained.
            key: (seed, steps taken so far), the same on all processes.
            scale: 1, or where an optimiser on a GPU skipped the step, a tensor of 0 that nobody waits for.
        """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the optimisers."""
        network: Any = pl_module.network
        seed = getattr(getattr(trainer, "datamodule", None), "seed", 0)

        def changed(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            skipped = getattr(optimizer, "found_inf", None)
            self.change(network, (seed, trainer.global_step), 1.0 if skipped is None else 1.0 - (skipped != 0).float())

        self._hooks = [optimizer.register_step_post_hook(changed) for optimizer in trainer.optimizers]

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hooks away."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


class OrthogonalRetraction(AfterStep):
    """Draw the rows of every convolution and linear layer towards orthonormal ones: ``W <- (1 + beta) W - beta W W^T W`` (SNN-RAT).

    It is not multiplied by the learning rate: with beta 0.004, singular values approach 1 with a half-life of 86 steps throughout. A
    convolution is seen as [out, in kh kw]. Of a linear layer of many rows only a random part is changed at each step. Biases, BatchNorm
    and what neurons learn are left alone. From Ding et al., NeurIPS 2022, where weight decay, which would draw singular values to 0, is 0.

    Args:
        beta: Above 0 and below 1/2.
        row_fraction: Share of rows of a large linear layer that a step changes, above 0 and at most 1.
        large: Rows from which a linear layer is large.

    Raises:
        InputError: For a number outside its range.
    """

    def __init__(self, beta: float = 0.004, row_fraction: float = 0.3, large: int = 200) -> None:
        super().__init__()
        require_number("beta", beta, above=0)
        if beta >= BETA_LIMIT:
            raise InputError(f"beta={beta} is not allowed: give a number above 0 and below {BETA_LIMIT}")
        require_number("row_fraction", row_fraction, above=0, at_most=1)
        require_number("large", large, at_least=1, whole=True)
        self.beta, self.row_fraction, self.large = beta, row_fraction, large

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the optimisers, and say where a weight decay works against the retraction."""
        super().on_train_start(trainer, pl_module)
        if any(group.get("weight_decay") for optimizer in trainer.optimizers for group in optimizer.param_groups):
            log.warning("OrthogonalRetraction draws singular values to 1, and weight decay draws them to 0: SNN-RAT trains without it")

    def change(self, network: nn.Module, key: tuple[int, int], scale: float | Tensor) -> None:
        """Retract every convolution and linear layer."""
        layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
        for place, module in enumerate(layers):
            weight = module.weight
            retract(weight, self.beta * scale, self.rows(module, (*key, place)))

    def rows(self, module: nn.Module, key: tuple[int, ...]) -> Tensor | None:
        """Return the rows [k] that a step changes; None is all."""
        if not isinstance(module, nn.Linear) or module.out_features < self.large:
            return None
        drawn = torch.randperm(module.out_features, generator=stream(*key, ROWS))
        return drawn[: int(self.row_fraction * module.out_features)].to(module.weight.device)


class SimplexProjection(AfterStep):
    """Keep the two coefficients of each residual sum on the simplex: at least 0, adding up to 1 (SNN-RAT, Ding et al., NeurIPS 2022)."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook the optimisers.

        Raises:
            InputError: If the network has no residual sum with coefficients.
        """
        network: Any = pl_module.network
        if not mixes(network):
            raise InputError(f"SimplexProjection: {type(network).__name__} has no convex residual sums; WideResNet(residual='convex') has")
        super().on_train_start(trainer, pl_module)

    def change(self, network: nn.Module, key: tuple[int, int], scale: float | Tensor) -> None:
        """Project every vector of coefficients; a step that was skipped left them on the simplex."""
        with torch.no_grad():
            for mix in mixes(network):
                mix.copy_(simplex_projection(mix))


def mixes(network: nn.Module) -> list[Tensor]:
    """Return the coefficients of all residual sums."""
    return [block.mix for block in network.modules() if isinstance(block, WideBlock) and block.mix is not None]
