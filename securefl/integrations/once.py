"""What a node of an engine answers once, noted on its disk.

An engine may start a process per message, several at a time, and hand each the state that the node had when it began.
So a server that sends two messages at once could have both answered out of one session (two sets of survivors signed,
two sums opened by one key), whatever the session remembers. Processes of one node share a folder: who notes a name in
it first may go on, and nobody a second time.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from securefl.errors import ConfigurationError

__all__ = ["STATE_KEY", "Once"]

#: Of a node's configuration: the folder.
STATE_KEY: Final = "securefl-state"
#: Notes of runs that nobody has added to for so long are thrown away.
_KEPT_SECONDS: Final = 30 * 24 * 3600.0


class Once:
    """The notes of one node in one run. ``folder``: made where it is missing, for its owner alone.

    The names are no secrets. Nothing is read or written before :meth:`claim`.
    """

    def __init__(self, folder: Path, run: int, node: int) -> None:
        self._folder, self._name = folder, f"{run}-{node}.once"

    def claim(self, name: str) -> bool:
        """Note ``name``, one line of text; whether nobody had. On the disk when this returns.

        Raises :class:`ConfigurationError` when it cannot be noted: then nothing may be answered.
        """
        try:
            return self._claim(b"\n" + name.encode() + b"\n")  # whole, even after a line that a crash cut off
        except OSError as error:
            raise ConfigurationError(
                f"what this node answered cannot be noted in {self._folder}: {error}; name a folder that it may write "
                f"to in {STATE_KEY}"
            ) from None

    def _claim(self, line: bytes) -> bool:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._folder / self._name, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            noted = file.read()
            if line in noted:
                return False
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        if not noted:
            self._clear()
        return True

    def _clear(self) -> None:
        """Throw away what runs of long ago left."""
        for path in self._folder.glob("*.once"):
            try:
                if time.time() - path.stat().st_mtime > _KEPT_SECONDS:
                    path.unlink()
            except FileNotFoundError:  # another process was quicker
                continue

    def __repr__(self) -> str:
        return f"Once({str(self._folder / self._name)!r})"
