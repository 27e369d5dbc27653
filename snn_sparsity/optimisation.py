"""Optimiser and learning-rate schedule of a training: how they are made, and what of a checkpoint's gives way to what was changed."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from snn_sparsity.validation import InputError

MakeOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]
MakeScheduler = Callable[[Optimizer], LRScheduler]
Interval = Literal["epoch", "step"]

log = logging.getLogger(__name__)


def paper_adam(lr: float, betas: tuple[float, float], weight_decay: float) -> MakeOptimizer:
    """Return what makes the paper's Adam, in one pass over memory."""
    return partial(torch.optim.Adam, lr=lr, betas=betas, weight_decay=weight_decay, fused=True)


@dataclass(frozen=True)
class Optimisation:
    """A new optimiser, its schedule if there is one, and what they were made with.

    Attributes:
        optimizer: Before any step.
        scheduler: The same.
        made_with: Class and options of both as plain values, kept in checkpoints under ``KEY``.
    """

    KEY: ClassVar[str] = "optimisation"

    optimizer: Optimizer
    scheduler: LRScheduler | None
    made_with: Mapping[str, Any]

    @classmethod
    def make(cls, parameters: Iterator[nn.Parameter], optimizer: MakeOptimizer, scheduler: MakeScheduler | None) -> "Optimisation":
        """Make both.

        Raises:
            InputError: For whatever they refuse.
        """
        try:
            made = optimizer(parameters)
            # A scheduler writes its own numbers into the groups.
            groups = [_plain(group) for group in made.param_groups]
            schedule = scheduler(made) if scheduler else None
        except (TypeError, ValueError, RuntimeError, KeyError, AssertionError, AttributeError) as error:
            raise InputError(f"the optimizer or lr_scheduler cannot be made for this network: {error}") from error
        if made.defaults.get("fused"):
            # Lightning does not clip gradients for an optimiser that would unscale them itself.
            made._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # Lightning asks for it by this name
        described = {"class": type(schedule).__name__} | _plain(schedule.state_dict()) if schedule else {}
        return cls(made, schedule, {"optimizer": type(made).__name__, "groups": groups, "schedule": described})

    def configured(self, interval: Interval) -> OptimizerLRScheduler:
        """Return them as Lightning takes them."""
        if self.scheduler is None:
            return self.optimizer
        config: dict[str, Any] = {"scheduler": self.scheduler, "interval": interval}
        if isinstance(self.scheduler, ReduceLROnPlateau):
            # Lightning's class of that name knows what to watch.
            config["monitor"] = getattr(self.scheduler, "monitor", "val/loss")
        return {"optimizer": self.optimizer, "lr_scheduler": config}  # type: ignore[return-value]  # a typed dict, in parts

    def __str__(self) -> str:
        """Return class and numbers, such as ``SGD(lr=0.1, momentum=0.9), StepLR(step_size=2, gamma=0.1)``."""
        group = self.made_with["groups"][0]
        said = f"{self.made_with['optimizer']}({_told(group)})"
        schedule = {name: value for name, value in self.made_with["schedule"].items() if name not in _STATE}
        return f"{said}, {schedule.pop('class')}({_told(schedule)})" if schedule else said

    def apply_changes(self, checkpoint: dict[str, Any]) -> None:
        """Write what was changed since a checkpoint was made into it, before optimiser and schedule are restored from it.

        Its numbers belong to whatever set them last, such as a schedule, a tuner or an averaging callback, and are left alone but for
        these: another optimiser begins without memory; another schedule begins at its start, with the numbers given now; of the same
        ones, an option that is given otherwise than before is set, unless the schedule owns it.

        Args:
            checkpoint: Lightning's, of a module with one optimiser; one that was not made by this class is left as it is.
        """
        before = checkpoint.get(self.KEY)
        if not before or not checkpoint.get("optimizer_states"):
            return
        if before["optimizer"] != self.made_with["optimizer"] or len(before["groups"]) != len(self.made_with["groups"]):
            log.warning("The checkpoint's optimiser was %s: %s begins without memory.", before["optimizer"], self.made_with["optimizer"])
            checkpoint["optimizer_states"], checkpoint["lr_schedulers"] = [self.optimizer.state_dict()], []
            return
        restored = checkpoint["optimizer_states"][0]["param_groups"]
        if _schedule(before) != _schedule(self.made_with):
            log.warning("The checkpoint's learning-rate schedule was another: the one given now begins at its start.")
            checkpoint["lr_schedulers"] = []
            for group, now in zip(restored, self.optimizer.state_dict()["param_groups"], strict=True):
                group |= {name: value for name, value in now.items() if name != "params"}
            return
        momentum = {"momentum", "betas"} if getattr(self.scheduler, "cycle_momentum", False) else set[str]()
        owned = {"lr"} | momentum if self.scheduler else set[str]()
        for group, was, now in zip(restored, before["groups"], self.made_with["groups"], strict=True):
            changed = {name: value for name, value in now.items() if was.get(name) != value}
            if kept := sorted(owned & changed.keys()):
                log.warning("%s of the checkpoint's schedule goes on; what is given now is not applied.", " and ".join(kept))
            group |= {name: value for name, value in changed.items() if name not in owned}


def _schedule(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes a schedule what it is; where it starts from is the optimiser's."""
    return {name: value for name, value in made_with["schedule"].items() if name not in ("base_lrs", "_last_lr")}


_STATE = ("base_lrs", "last_epoch", "best", "num_bad_epochs", "cooldown_counter")


def _told(options: Mapping[str, Any]) -> str:
    """Return options as arguments, without those that are off, and without what a schedule counts."""
    return ", ".join(f"{name}={value}" for name, value in options.items() if name[0] != "_" and value not in (None, False, 0))


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a checkpoint can hold without running code."""
    return {name: value for name, value in options.items() if name != "params" and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, [*value.keys(), *value.values()]))
    return value is None or type(value) in (bool, int, float, str)
