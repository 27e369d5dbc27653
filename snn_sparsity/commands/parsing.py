"""What the training commands make of their arguments, configurations and checkpoints, with one line for each mistake."""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from jsonargparse import ActionConfigFile, Namespace, _typehints
from jsonargparse.typing import register_type
from lightning.pytorch.cli import LightningArgumentParser

from snn_sparsity.commands.settings import as_given, options
from snn_sparsity.configs import shipped
from snn_sparsity.training.checkpoint_files import read_checkpoint
from snn_sparsity.units import Levels
from snn_sparsity.validation import InputError

# In YAML a number stays one; a whole number of grey levels is written as people write it.
register_type(Levels, serializer=lambda value: str(value) if "/" in str(value) else float(value), fail_already_registered=False)


if hasattr(_typehints, "get_all_subclass_paths") and hasattr(_typehints, "resolve_class_path_by_name"):
    theirs_first = _typehints.resolve_class_path_by_name

    def ours_first(kind: Any, name: str) -> str:
        """Return the class that a last name means: ours, where another library has one of that name too."""
        found = () if "." in name or not isinstance(kind, type) else _typehints.get_all_subclass_paths(kind)
        ours = [path for path in found if path.startswith("snn_sparsity.") and path.endswith(f".{name}")]
        return ours[0] if len(ours) == 1 else theirs_first(kind, name)

    _typehints.resolve_class_path_by_name = ours_first  # type: ignore[assignment]  # same signature, told to nobody


class NamedConfig(ActionConfigFile):
    """``--config`` by path, shipped name or stem."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Resolve the name, then load."""
        path = shipped.resolve(str(values))
        try:
            super().__call__(parser, cfg, path, option_string)
        except (InputError, OSError, UnicodeError) as error:
            raise InputError(f"--config {path}: {error}") from error


class TrainingParser(LightningArgumentParser):
    """A parser whose errors are one line that names the option, the value and what is allowed."""

    def add_argument(self, *given: Any, **options: Any) -> Any:
        """Add an argument; a configuration file may be a shipped one, by name."""
        if options.get("action") is ActionConfigFile:
            options["action"] = NamedConfig
        return super().add_argument(*given, **options)

    def dump(self, *given: Any, **options: Any) -> str:
        """Return settings as YAML; where comments say what each is, without the names of all classes that it could be."""
        return re.sub(r", known subclasses: [^)]*(?=\))", "", super().dump(*given, **options))

    def add_function_arguments(self, *given: Any, **options: Any) -> list[str]:
        """Add the arguments of a function that makes a network, such as torchvision's."""
        # jsonargparse says which are linked, but its own method does not take that.
        options.pop("linked_targets", None)
        return super().add_function_arguments(*given, **options)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the message as an InputError."""
        raise InputError(condense(message)) from ex


def condense(message: str) -> str:
    """Return jsonargparse's nested report as one line: the path of keys down to the first reason.

    Example:
        >>> condense('''Parser key "model.network":
        ...   Problem with given class_path 'm.SEW':
        ...     Parser key "pool":
        ...       Expected a typing.Literal['max', 'avg']. Got value: median''')
        "--model.network.pool: Expected one of 'max', 'avg'. Got value: median"
    """
    keys: list[str] = []
    reason = ""
    skipped = ("Does not validate", "Subtypes:", "Errors:", "Problem with given class_path", "Given value", "tip:", "Expected a path but")
    for raw in message.splitlines():
        line = raw.strip().removeprefix("- ").strip()
        # Nested parsers report through this function too: their keys come as options.
        while key := re.match(r'(?:Parser key "([^"]+)":?|--([\w.]+):)\s*(.*)', line):
            keys.append(key[1] or key[2])
            line = key[3]
        if line and not line.startswith(skipped):
            reason = line
            break
    reason = reason or " ".join(message.split())
    # A link's own complaint, without how it came to be made.
    reason = re.sub(r"^Call to compute_fn of link .* failed: ", "", reason)
    reason = re.sub(r"^Not of type \w+: ", "", reason)
    reason = re.sub(r"Expected a typing\.Literal\[(.*?)\]", r"Expected one of \1", reason)
    base = r"Expected an instantiatable class, but (?:[\w.]+\.)?(\w+) is abstract"
    reason = re.sub(base, r"give a class, for \1 is the base of all that can stand here", reason)
    reason = re.sub(r"<class '([\w.]+)'>", r"\1", reason)
    return f"--{'.'.join(keys)}: {reason}" if keys else reason


def parsed(parser: LightningArgumentParser, args: list[str]) -> Namespace:
    """Return what arguments say.

    Raises:
        InputError: For whatever is not allowed, under the name by which it was given.
    """
    try:
        return parser.parse_args(args)
    except OverflowError as error:
        raise InputError(f"a number that was given is too large for any computer: {error}") from error
    except InputError as error:
        configs = [str(value) for name, value in options(args) if name == "config"]
        raise InputError(as_given(str(error), configs, [word for word in args if word != "--config"])) from error


def with_full_name(message: str, settings: dict[str, Any]) -> str:
    """Return a constructor's complaint about ``eps=-1`` with the full name of that setting.

    Example:
        >>> with_full_name("eps=-1 is not allowed", {"probes": {"pgd": {"init_args": {"attack": {"init_args": {"eps": -1}}}}}})
        '--probes.pgd.attack.eps=-1 is not allowed'
    """
    said = re.match(r"([\w.]+)=(.+?)(?=:? )", message)
    if said is None:
        return message
    for name, value in flat(settings):
        full = name.replace(".init_args", "")
        if f".{full}".endswith(f".{said[1]}") and said[2] in (repr(value), str(value)):
            return f"--{full}={message.removeprefix(f'{said[1]}=')}"
    return message


def checkpoint_settings(path: str) -> dict[str, Any]:
    """Return the model and data settings a checkpoint was made with, as a configuration."""
    checkpoint = read_checkpoint(path)
    settings: dict[str, Any] = {}
    try:
        model = dict(checkpoint.get("hyper_parameters", {}))
        images = dict(checkpoint.get("datamodule_hyper_parameters", {}))
        for given in (model, images):
            given.pop("_instantiator", None)
        if model:
            # The class count follows from the data.
            model.get("network", {}).get("init_args", {}).pop("num_classes", None)
            # The command line knows these by themselves.
            settings |= {name: model.pop(name) for name in ("optimizer", "lr_scheduler", "lr_scheduler_interval") if name in model}
            settings["model"] = model
        if "_class_path" in images:
            # The seed follows from seed_everything.
            images.pop("seed", None)
            # Null is the phase code of the paper's configuration, whose settings can be changed.
            if images.get("encoder") is None:
                images.pop("encoder", None)
            settings["data"] = {"class_path": str(images.pop("_class_path")), "init_args": images}
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"--ckpt_path {path} holds settings that are none of this program") from error
    return settings


def flat(content: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a nested mapping with their full names."""
    if not isinstance(content, dict) or not content:
        yield name, content
        return
    for key, value in content.items():
        yield from flat(value, f"{name}.{key}" if name else str(key))
