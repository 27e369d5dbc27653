"""A parser of arguments whose mistakes are told in one line."""

import argparse
from typing import NoReturn

from snn_sparsity.validation import InputError


class OneLineParser(argparse.ArgumentParser):
    """argparse's parser, but for its errors: raised as InputError, which the command line shows in one line."""

    def error(self, message: str) -> NoReturn:
        """Raise the message."""
        raise InputError(f"{self.prog.split()[-1]}: {message}; see {self.prog} --help")
