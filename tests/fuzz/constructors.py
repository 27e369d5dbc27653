"""Everything a configuration can build, with settings of the right type and any value."""

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from hypothesis import strategies as st
from torch import nn

from snn_sparsity import attacks, data, encoders, gradient_rules, networks, objectives, probes, training
from snn_sparsity.attacks import Attack, Swap, Transfer
from snn_sparsity.attacks.targets import ImageTarget
from snn_sparsity.classifier import SpikingClassifier
from snn_sparsity.encoders import Encoder, PhaseEncoder
from snn_sparsity.gradient_rules import GradientRule
from snn_sparsity.objectives import Objective
from snn_sparsity.units import Levels
from tests.fuzz.promise import refused
from tests.tiny import TinyNetwork

NOT_FROM_SETTINGS = (
    Swap,
    Transfer,
    objectives.Outcome,
    objectives.TrainingStep,
    data.SpikeDataModule,
    data.SpikeBatch,
    data.ImageSet,
    data.Splits,
    probes.ProbeContext,
    attacks.Target,
)


def kinds(*modules: types.ModuleType) -> list[type]:
    """The concrete public classes of these modules."""
    found = [kind for module in modules for name in module.__all__ if inspect.isclass(kind := getattr(module, name))]
    return [kind for kind in found if not inspect.isabstract(kind) and kind not in NOT_FROM_SETTINGS]


CHEAP = 40
"""Passes that an attack may take to be tried."""
INTEGERS = st.integers(-2, 5) | st.sampled_from([10**6 + 1, 2**31, 2**63 - 1, 2**64, 10**30, -(10**30)])
FLOATS = st.floats(0, 1) | st.floats() | st.sampled_from([8 / 255, 1e-320, 1e308, -0.0, 255.0])
TEXTS = st.text(max_size=5) | st.sampled_from(["images", "", "a" * 5000, "a\0b", "\udcff", "http://"])


def values(hint: Any, depth: int = 0) -> st.SearchStrategy:  # noqa: PLR0911  # a kind of type each
    """Values of a type, of any size."""
    if hint in (int, float, bool, str, type(None)):
        return {int: INTEGERS, float: FLOATS | INTEGERS, bool: st.booleans(), str: TEXTS, type(None): st.none()}[hint]
    if hint is Levels:
        return st.sampled_from(["8/255", "-1/255", "1/0", "x", ""])
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(one, depth) for one in arguments])
    if origin is Callable:
        return st.none()  # optimisers: the command line makes them, and has a surface of its own
    if origin is tuple:
        return st.tuples(*[values(one) for one in arguments if one is not Ellipsis])
    if origin is not None:
        return st.lists(values(arguments[0]), max_size=3)
    if hint is nn.Module:
        return st.builds(TinyNetwork)
    modules = {Attack: attacks, Encoder: encoders, GradientRule: gradient_rules, Objective: objectives}
    choices = kinds(modules[hint]) if hint in modules else [hint]
    # An attack within an attack within an attack: twice is enough.
    return st.sampled_from(choices[:3] if depth > 1 else choices).flatmap(lambda kind: recipes(kind, depth + 1))


class Recipe(NamedTuple):
    """A class and its settings; objects among them are recipes too."""

    kind: type
    given: dict[str, Any]

    def make(self) -> Any:
        """Build it, from the inside out."""
        return self.kind(**{name: value.make() if isinstance(value, Recipe) else value for name, value in self.given.items()})


def recipes(kind: type, depth: int = 0) -> st.SearchStrategy[Recipe]:
    """A class with any settings."""
    return st.builds(Recipe, st.just(kind), settings_of(kind, depth))


def settings_of(kind: type, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Settings of a class: what it needs, and some of what it may have."""
    hints = typing.get_type_hints(kind.__init__)
    parameters = {name: one for name, one in inspect.signature(kind).parameters.items() if one.kind is not one.VAR_KEYWORD}
    needed = {name: values(hints[name], depth) for name, one in parameters.items() if one.default is one.empty}
    return st.fixed_dictionaries(needed, optional={name: values(hints[name], depth) for name in parameters if name not in needed})


KINDS = [*kinds(attacks, encoders, gradient_rules, objectives, probes, training, data, networks), SpikingClassifier]
CASES = st.sampled_from(KINDS).flatmap(recipes)


def hold_constructor(recipe: Recipe) -> None:
    """Settings are refused, or the object works on a tiny input."""
    try:
        refused(lambda: _use(recipe.make()))
    finally:
        # A classifier flushes denormals in its process, in which hypothesis draws numbers.
        torch.set_flush_denormal(False)


def _use(made: object) -> None:
    assert repr(made)
    if isinstance(made, Encoder):
        images = torch.arange(48, dtype=torch.uint8).view(1, 3, 4, 4)
        assert made(images, torch.Generator().manual_seed(0)).shape == (made.num_steps, 1, 3, 4, 4)
    if isinstance(made, probes.Probe):
        assert isinstance(made.describe(), str)
    if isinstance(made, Attack) and sum(made.passes) <= CHEAP:
        _attack(made)


def _attack(attack: Attack) -> None:
    """Attack two images: the result must be images too."""
    torch.manual_seed(0)
    target = ImageTarget(SpikingClassifier(TinyNetwork()).eval(), PhaseEncoder(2))
    images = torch.randint(256, (2, 3, 8, 8)) / 255
    attacked = attack(target, images, torch.tensor([0, 1]), torch.Generator().manual_seed(0))
    assert attacked.shape == images.shape
    assert (attacked >= 0).all()
    assert (attacked <= 1).all()
