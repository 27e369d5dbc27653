"""Where processes meet, so that none waits for one that has stopped."""

import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, NoReturn

import torch.distributed
from lightning import Trainer
from lightning.pytorch.utilities import rank_zero_only

from snn_sparsity.validation import InputError


class Message(NamedTuple):
    """What a process says: a value to share, that it has left the meeting, or the error that stopped it."""

    kind: Literal["value", "left", "error"]
    content: Any = None


class StoppedElsewhereError(Exception):
    """Another process failed.

    Attributes:
        error: How, to be raised here as well.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Meeting:
    """One batch on every process. Each calls ``share`` as often as it likes, then ``leave`` or ``fail``, even if its batch is empty.

    Whatever one process says, all processes hear at the same place: an error stops them all. A process by itself meets nobody.
    """

    def share(self, value: Any) -> list[Any]:
        """Return what every process shares, by rank; None for one that has left.

        Raises:
            StoppedElsewhereError: If another process failed.
        """
        return [message.content for message in self._hear(Message("value", value))]

    def leave(self) -> None:
        """Share no more, and wait until all others have left.

        Raises:
            StoppedElsewhereError: If another process failed.
        """
        while any(message.kind == "value" for message in self._hear(Message("left"))):
            pass

    def fail(self, error: Exception, cause: Exception) -> NoReturn:
        """Tell the others of an error, and raise it."""
        everyone(Message("error", (isinstance(error, InputError), str(error))))
        raise error from cause

    def _hear(self, mine: Message) -> list[Message]:
        messages = everyone(mine)
        for rank, message in enumerate(messages):
            if message.kind == "error":
                of_the_user, text = message.content
                raise StoppedElsewhereError((InputError if of_the_user else RuntimeError)(f"{text} (on process {rank})"))
        return messages


def is_first() -> bool:
    """Tell whether this process is the first of its run, by what started it; there may be no trainer yet."""
    # Where no launcher says which process it is, each node has one that starts the others.
    node = int(os.environ.get("NODE_RANK") or os.environ.get("GROUP_RANK") or 0)
    return node == 0 and rank_zero_only.rank == 0  # type: ignore[attr-defined]  # Lightning sets it as it is imported


def first_alone(trainer: Trainer, act: Callable[[], None]) -> None:
    """Let the first process do something; where it may not, all processes hear why and stop.

    Raises:
        InputError: That of the first process.
    """
    refusal = None
    if trainer.is_global_zero:
        try:
            act()
        except InputError as error:
            refusal = error
    refusal = trainer.strategy.broadcast(refusal)
    if refusal is not None:
        raise refusal


def everyone(mine: Any) -> list[Any]:
    """Return what every process gives, by rank; all of them must call this."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [mine]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, mine)
    return gathered
