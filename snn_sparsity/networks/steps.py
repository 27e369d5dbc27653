"""Neurons in single-step mode that are handed a whole sequence would take its time steps for images."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from spikingjelly.activation_based import base
from torch import nn

from snn_sparsity.validation import InputError


@contextmanager
def each_step_seen(network: nn.Module, steps: int) -> Iterator[None]:
    """Raise InputError, naming it, if a single-step module of SpikingJelly takes time for a batch in the forward pass of the block.

    A module with a memory must be called once a time step (by a ``MultiStepContainer``, or by a loop of the network's own). One without may
    see all steps at once where that works (a linear layer, whatever lies in a ``SeqToANNContainer``).

    Args:
        network: Takes [T,N,...] in the block, once.
        steps: T.
    """
    steppers = [(path, module) for path, module in network.named_modules() if isinstance(module, base.StepModule)]
    # Containers that know multiple steps alone have no mode.
    single = {path: module for path, module in steppers if getattr(module, "step_mode", "m") == "s"}
    if steps == 1 or not single:
        yield
        return
    calls: Counter[str] = Counter()
    inside: list[str] = []

    def enter(path: str, *_: object) -> None:
        calls[path] += 1
        inside.append(path)

    with ExitStack() as hooks:
        for path, module in single.items():
            hooks.callback(module.register_forward_pre_hook(partial(enter, path)).remove)
            hooks.callback(module.register_forward_hook(lambda *_: inside.pop() and None).remove)
        try:
            yield
        except InputError:
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            if inside and calls[inside[0]] % steps:
                raise _refusal(inside[0], single[inside[0]], steps) from error
            raise
    for path, module in single.items():
        if isinstance(module, base.MemoryModule) and calls[path] % steps:
            raise _refusal(path, module, steps)


def _refusal(path: str, module: nn.Module, steps: int) -> InputError:
    return InputError(
        f"network: {path or 'it'} ({type(module).__name__}) is in single-step mode and got {steps} time steps at once: it would take "
        "them for images. Call spikingjelly.activation_based.functional.set_step_mode(network, 'm')"
    )
