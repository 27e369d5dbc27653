"""Lightning, torchmetrics and SpikingJelly without what they import and nothing here uses: half of the time that a command takes to start.

Where the insides of a library are not as expected, the import is the ordinary one, which is slower and no different.
"""

import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

NOT_FOR_METRICS = ("torchvision", "scipy", "matplotlib", "scienceplots")
"""What torchmetrics imports for metrics of images, sounds and plots."""


def import_lightning() -> None:
    """Import the three libraries, if they are not there yet."""
    import torch

    with suppress(Exception), _hidden(*NOT_FOR_METRICS):
        import torchmetrics  # noqa: F401  # imported while what it would drag along is hidden
    with suppress(Exception), _in_place_of("torch._dynamo", OptimizedModule=_OptimizedModule, disable=_as_it_is):
        import lightning.pytorch.cli  # noqa: F401  # imported while what it would drag along is hidden
    download = {"load_state_dict_from_url": torch.hub.load_state_dict_from_url}
    with (
        suppress(Exception),
        _in_place_of("torchvision"),
        _in_place_of("torchvision.models"),
        _in_place_of("torchvision.models.utils", **download),
    ):
        import spikingjelly.activation_based.model.sew_resnet
        import spikingjelly.activation_based.model.spiking_resnet  # noqa: F401  # imported while what it would drag along is hidden


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Let packages that nobody has imported yet seem not to be installed."""
    from lightning_utilities.core import imports

    absent = [name for name in names if name not in sys.modules]
    version = imports._version  # type: ignore[attr-defined]  # private to lightning_utilities, hence the test against the real import

    def version_of(name: str) -> str:
        if name in absent:
            raise importlib.metadata.PackageNotFoundError(name)
        found: str = version(name)
        return found

    sys.modules.update(dict.fromkeys(absent))  # type: ignore[arg-type]  # None is how Python is told that there is none
    imports._version = version_of  # type: ignore[assignment, attr-defined]  # private to lightning_utilities, hence the test against the real import
    try:
        yield
    finally:
        imports._version = version  # type: ignore[attr-defined]  # private to lightning_utilities, hence the test against the real import
        for name in absent:
            sys.modules.pop(name, None)


@contextmanager
def _in_place_of(name: str, **content: Any) -> Iterator[None]:
    """Let a module that nobody has imported yet be one with this content."""
    if name in sys.modules:
        yield
        return
    parent, _, last = name.rpartition(".")
    module = ModuleType(name)
    module.__path__ = []
    vars(module).update(content)
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], last, module)
    try:
        yield
    finally:
        sys.modules.pop(name, None)
        if parent and getattr(sys.modules.get(parent), last, None) is module:
            delattr(sys.modules[parent], last)


def _as_it_is(function: Any = None, *_: object, **__: object) -> Any:
    """Decorate a function with nothing: what is not compiled need not be kept from it."""
    return _as_it_is if function is None else function


class _Compiled(type):
    """Knows compiled modules once there can be any."""

    def __instancecheck__(cls, instance: object) -> bool:
        compiler = sys.modules.get("torch._dynamo")
        return compiler is not None and isinstance(instance, compiler.OptimizedModule)


class _OptimizedModule(metaclass=_Compiled):
    """What Lightning asks whether a module is compiled."""
