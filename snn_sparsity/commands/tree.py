"""The parser tree, without an import that takes time: a command's module is imported when it runs."""

import argparse
import os
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from snn_sparsity import __version__
from snn_sparsity.commands.options import COMMANDS, Option
from snn_sparsity.validation import InputError, did_you_mean

PREFIX = "SNN_SPARSITY"
"""First part of the name of an environment variable that gives an option: ``SNN_SPARSITY_FIT__TRAINER__MAX_EPOCHS``."""


class OneLineParser(argparse.ArgumentParser):
    """argparse's parser, but for its errors: raised as InputError, which the command line shows in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """Raise the message."""
        raise InputError(f"{self.prog.split()[-1]}: {message.removeprefix('argument ')}; see {self.prog} --help")


def parse(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> Namespace:
    """Return what a command line says, with what environment variables say where it does not.

    Args:
        arguments: The command and what follows it.
        environment: ``SNN_SPARSITY_<COMMAND>__<OPTION>`` gives an option, with ``__`` for each dot in its name.

    Returns:
        The command's own options; ``command``; ``module``, which runs it; and ``more``, the arguments that are not its own.

    Raises:
        InputError: For whatever is not allowed.

    Example:
        >>> given = parse(["fit", "--config", "demo", "--model.lr", ".1"], {"SNN_SPARSITY_FIT__TRAINER__MAX_EPOCHS": "7"})
        >>> given.config, given.more
        (['demo'], ['--trainer.max_epochs=7', '--model.lr', '.1'])
    """
    tree = Tree()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in tree.commands:
        known = ", ".join(tree.commands)
        raise InputError(f"unknown command {arguments[0]!r}{did_you_mean(arguments[0], tree.commands)}: choose one of {known}")
    # What stands after a lone -- is for the runs of a sweep.
    place = arguments.index("--") if arguments[:1] == ["sweep"] and "--" in arguments else len(arguments)
    own: list[str] = []
    for word in arguments[:place]:
        # Joined to its option: a value such as -8/255 would be taken for one itself.
        if own and re.fullmatch(r"--[^=]+", own[-1]) and re.match(r"-\.?\d", word):
            own[-1] += f"={word}"
        else:
            own.append(word)
    prefix = f"{PREFIX}_{own[0].upper()}__" if own else PREFIX
    names = sorted(name for name in environment if name.startswith(prefix))
    said = [f"--{name.removeprefix(prefix).lower().replace('__', '.')}={environment[name]}" for name in names]
    given, more = tree.parser.parse_known_args([own[0], *said, *own[1:]] if own else ["--help"])
    if more and not given.takes_more:
        options = [option for action in tree.commands[given.command]._actions for option in action.option_strings]
        tree.commands[given.command].error(f"unrecognized arguments: {' '.join(more)}{did_you_mean(more[0].partition('=')[0], options)}")
    given.more = [*more, *arguments[place + 1 :]]
    return given


class Tree:
    """The parser of ``snn-sparsity``, and those of its commands by name."""

    def __init__(self) -> None:
        self.parser = OneLineParser(
            prog="snn-sparsity", usage="snn-sparsity COMMAND [OPTIONS]", description=DESCRIPTION, epilog=FIRST_STEPS
        )
        self.parser.add_argument("--version", action="version", version=f"snn-sparsity {__version__}")
        actions = self.parser.add_subparsers(title="commands", prog="snn-sparsity", metavar="COMMAND", dest="command", required=True)
        self.commands: dict[str, OneLineParser] = {}
        for command in COMMANDS:
            about = command.description or command.summary[0].upper() + command.summary[1:] + "."
            shown = "\n".join(f"  snn-sparsity {line}" for line in command.examples)
            examples = f"example{'s' if len(command.examples) > 1 or command.takes_more else ''}:\n{shown}"
            parser: OneLineParser = actions.add_parser(
                command.name, help=command.summary, description=about, epilog="\n".join(filter(None, (command.notes, examples))),
                usage=f"snn-sparsity {command.usage}" if command.usage else None,
            )  # fmt: skip
            parser.set_defaults(module=f"snn_sparsity.commands.{command.module or command.name}", takes_more=command.takes_more)
            for option in command.options:
                if isinstance(option, Option):
                    parser.add_argument(*option.names, **option.settings)
                else:
                    group = parser.add_mutually_exclusive_group()
                    for each in option:
                        group.add_argument(*each.names, **each.settings)
            self.commands[command.name] = parser


DESCRIPTION = "Train spiking ResNets, watch their gradients, attack them, and say how far the result can be believed."
FIRST_STEPS = """\
snn-sparsity COMMAND --help    options of a command

first steps:
  snn-sparsity fit --config demo
  snn-sparsity fit --config sew18_maxpool --data.name cifar100 --probes.pgd.attack.steps 20"""
