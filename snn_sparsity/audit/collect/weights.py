"""Weights of anybody's network, from the usual files, without running code in them."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from snn_sparsity.validation import InputError


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a ``.pt`` (tensors only), ``.safetensors`` or ``.npz`` file, by name.

    Raises:
        InputError: If the file is missing, of another kind, damaged, or holds anything but tensors.
    """
    if not path.is_file():
        raise InputError(f"--weights {path} is no file")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        if path.suffix in (".pt", ".pth", ".ckpt"):
            return _tensors(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:  # whatever the damage makes the libraries raise
        raise InputError(f"--weights {path} is no readable file of tensors ({type(error).__name__})") from error
    raise InputError(f"--weights {path} is of no known kind: give .pt, .safetensors or .npz")


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], renames: Sequence[str] = ()) -> None:
    """Load weights into a model whose names may have a prefix more or less, or other parts.

    Args:
        model: It gets them.
        weights: By name.
        renames: ``OLD=NEW``: this part of each name is replaced.

    Raises:
        InputError: For a rename without ``=``, or names and shapes that do not fit, all in one line.

    Example:
        >>> model = nn.Linear(1, 1)
        >>> load_weights(model, {"module.w": torch.tensor([[3.0]]), "module.bias": torch.tensor([0.0])}, ["w=weight"])
        >>> model.weight.item()
        3.0
    """
    for rename in renames:
        old, sign, new = rename.partition("=")
        if not sign or not old:
            raise InputError(f"--weights.rename {rename} is not OLD=NEW")
        renamed = {_renamed(name, old, new): tensor for name, tensor in weights.items()}
        if renamed.keys() == weights.keys() and old != new:
            raise InputError(f"--weights.rename {rename}: no name of the weights has {old}, such as {', '.join(list(weights)[:5])}")
        weights = renamed
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.endswith("num_batches_tracked")}
    # Their names as they are, without the prefix of them all, or with that of all the model's, or both.
    changes = product(_prefixes(weights), _prefixes(own))
    candidates = [{more + name.removeprefix(less): tensor for name, tensor in weights.items()} for less, more in changes]
    given = max(candidates, key=lambda one: len(one.keys() & own.keys()))
    missing, surplus = sorted(own.keys() - given.keys()), sorted(given.keys() - model.state_dict().keys())
    shapes = [name for name in sorted(own.keys() & given.keys()) if own[name].shape != given[name].shape]
    if missing or surplus or shapes:
        parts = [("missing", missing), ("unknown", surplus), ("of another shape", shapes)]
        raise InputError("--weights do not fit: " + "; ".join(f"{what}: {', '.join(names[:5])}" for what, names in parts if names))
    model.load_state_dict(dict(given), strict=False)


def _tensors(loaded: Any) -> dict[str, Tensor]:
    state = loaded
    for name in ("state_dict", "model_state_dict", "model", "net"):
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise ValueError("no tensors by name")
    return dict(state)


def _renamed(name: str, old: str, new: str) -> str:
    parts = name.split(".")
    return ".".join(new if part == old else part for part in parts) if "." not in old else name.replace(old, new)


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return the prefixes that all names share, each up to a dot, the empty one first.

    Example:
        >>> _prefixes(["a.b.weight", "a.b.bias"])
        ['', 'a.', 'a.b.']
    """
    parents = [name.split(".")[:-1] for name in names]
    pairs = zip(min(parents, default=[]), max(parents, default=[]), strict=False)
    shared = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]
    return [".".join([*shared[:count], ""]) for count in range(len(shared) + 1)]
