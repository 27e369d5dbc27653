"""The checkpoints of a run: the best, the last and the one before it."""

from pathlib import Path
from typing import Any, Literal, get_args

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.utilities import rank_zero_only

from snn_sparsity.runs.directory import BEST, LAST, PREVIOUS
from snn_sparsity.runs.files import unwritten
from snn_sparsity.training.tensorboard import flush
from snn_sparsity.validation import require_choice

BestBy = Literal["accuracy", "loss"]


class BestCheckpoint(ModelCheckpoint):
    """Keep ``best.ckpt``, the epoch of the highest clean accuracy in validation, or of the lowest loss, as the paper's code does.

    Of equals it is the first.

    Args:
        run_directory: Where it goes.
        by: ``accuracy`` or ``loss``.

    Raises:
        InputError: For anything else.
    """

    def __init__(self, run_directory: str, by: BestBy = "accuracy") -> None:
        require_choice("best", by, get_args(BestBy))
        mode = "min" if by == "loss" else "max"
        super().__init__(run_directory, "best", monitor=f"val/{by}", mode=mode, enable_version_counter=False)
        self.path = Path(run_directory).resolve() / BEST

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up what was best so far, wherever the run's directory was then; another run's best is not this one's."""
        if self.path.is_file():
            here = str(self.path)
            scores = dict.fromkeys([here], state_dict["best_model_score"])
            state_dict |= {"dirpath": self.dirpath, "best_model_path": here, "kth_best_model_path": here, "best_k_models": scores}
        super().load_state_dict(state_dict)


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt``, the state after the last whole epoch, and ``previous.ckpt``, the one before it.

    Saved between two epochs, when the one behind is logged to its last value and nothing of the next has begun: a run that goes on
    from there logs and trains as one that never stopped. Lightning's ModelCheckpoint saves inside the epoch, before its training
    loss is logged. The state of PyTorch's random numbers is kept too, for networks that draw in training.

    When the run is finished ``previous.ckpt`` goes, which has served its purpose.

    Args:
        run_directory: Where the files go.
        kept: Whether ``last.ckpt`` stays when the run is finished.
    """

    def __init__(self, run_directory: str, kept: bool = True) -> None:
        self.path, self.kept = Path(run_directory) / LAST, kept
        self.saved_at = (0, 0)
        self._random: dict[str, torch.Tensor] = {}
        self._restored = False

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the step and the random numbers' state."""
        return {"saved_at": self.saved_at, "random": self._random}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the place and, when training starts, the random numbers' state; a tuner's own checkpoint has none yet."""
        self.saved_at, self._random = state_dict["saved_at"], state_dict["random"]
        self._restored = bool(self._random)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch at its beginning, and go on with one that was left inside, after ``max_steps`` or ``max_time``, there."""
        epochs: Any = trainer.fit_loop.epoch_progress.total
        if epochs.started == epochs.completed:
            # Lightning would take the batches counted for the epoch behind as those of the epoch to come. Its own setter will not have
            # False where there are max_steps.
            _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]  # a property, which mypy takes for its value
        elif self._restored:
            self._set_random(pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, if there is an epoch behind."""
        if self._restored:
            self._set_random(pl_module.device)
        self._save(trainer, pl_module.device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end."""
        loop = trainer.fit_loop
        progress: Any = loop.epoch_progress
        rest = 0 < loop.epoch_loop.batch_progress.current.ready < trainer.num_training_batches
        counts = [(count, count.processed, count.completed) for count in (progress.current, progress.total)]
        try:
            # An epoch that was left before its last batch is not yet done: Lightning would drop the rest of it when the run goes on.
            for count, processed, completed in counts if rest else ():
                count.processed, count.completed = processed - 1, completed - 1
            self._save(trainer, pl_module.device)
        finally:
            for count, processed, completed in counts:
                count.processed, count.completed = processed, completed

    @rank_zero_only
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove what a finished run needs no more."""
        for path in (self.path.with_name(PREVIOUS), *([] if self.kept else [self.path])):
            path.unlink(missing_ok=True)

    def _save(self, trainer: Trainer, device: torch.device) -> None:
        # The epoch too: one that averages weights or statistics takes no step.
        now = (trainer.current_epoch, trainer.global_step)
        if now == (0, 0) or (now == self.saved_at and self.path.is_file()):
            return
        # What the checkpoint takes for logged must be on disk before it is.
        flush(trainer)
        self.saved_at, self._random = now, _random(device)
        unnamed = self.path.with_suffix(".new")
        trainer.save_checkpoint(unnamed, weights_only=False)
        if not trainer.is_global_zero:
            return
        try:
            if self.path.is_file():
                self.path.replace(self.path.with_name(PREVIOUS))
            unnamed.replace(self.path)
        except OSError as error:
            raise unwritten(self.path, error) from error

    def _set_random(self, device: torch.device) -> None:
        self._restored = False
        torch.set_rng_state(self._random["cpu"])
        if device.type == "cuda" and "cuda" in self._random:
            torch.cuda.set_rng_state(self._random["cuda"], device)


def _random(device: torch.device) -> dict[str, torch.Tensor]:
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state
