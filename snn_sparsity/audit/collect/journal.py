"""What an audit has measured so far, on disk: stopped at any moment, it goes on where it was."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snn_sparsity.runs.files import write_whole
from snn_sparsity.validation import InputError

Json = Any


class Journal:
    """Results by name, each computed once.

    Args:
        path: The file; what it holds is taken as done. None keeps nothing.
        identity: What the results are of; a file of something else is refused.

    Raises:
        InputError: If the file is damaged, or of another audit.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "journal.json"
        >>> Journal(path, {"seed": 1}).once("answer", lambda: 42), Journal(path, {"seed": 1}).once("answer", lambda: 43)
        (42, 42)
    """

    def __init__(self, path: Path | None, identity: Json) -> None:
        self.path = path
        self.identity = json.loads(json.dumps(identity))
        self._results: dict[str, Json] = {}
        if path is None or not path.exists():
            return
        try:
            kept = json.loads(path.read_text())
            found, results = kept["identity"], kept["results"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no readable journal of an audit: remove it to begin anew") from error
        for name in found.keys() | self.identity.keys():
            was, is_now = found.get(name), self.identity.get(name)
            if was != is_now:
                raise InputError(f"{path} was begun with {name}={was!r}, not {is_now!r}: remove it to begin anew")
        self._results = dict(results)

    def once(self, name: str, compute: Callable[[], Json]) -> Json:
        """Return the result of this name; compute and keep it if there is none yet."""
        if name not in self._results:
            # Through JSON, so that a result is the same whether it was just computed or read back.
            self._results[name] = json.loads(json.dumps(compute()))
            if self.path is not None:
                write_whole(self.path, json.dumps({"identity": self.identity, "results": self._results}))
        return self._results[name]

    def __contains__(self, name: str) -> bool:
        return name in self._results

    def remove(self) -> None:
        """Remove the file: the audit is done."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)
