"""What a SuperNode keeps between two messages, in ``context.state``: per run, and in that node's memory only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, Context

from securefl.errors import ConfigurationError, FaultyServerError
from securefl.integrations.compression import Feedback
from securefl.integrations.flower.records import KEY
from securefl.integrations.once import STATE_KEY, Once

__all__ = ["Session"]

IDENTITY: Final = "securefl.identity"
RESIDUAL: Final = "securefl.residual"
RESIDUAL_OF: Final = "securefl.residual.of"


def folder_of(context: Context) -> Path:
    """Where a node notes what it answered: what its configuration says, or beside Flower's own files."""
    try:
        home = os.environ.get("FLWR_HOME") or Path.home() / ".flwr"
    except RuntimeError:
        raise ConfigurationError(f"this node has no home directory: name a folder of its own in {STATE_KEY}") from None
    return Path(str(context.node_config.get(STATE_KEY, Path(home) / "securefl")))


class Session:
    """The records of one run at one node. ``run``: its id.

    Flower starts a process per message, and two that come at once from the same state. So a saved session is taken, and
    a sum's number answered, once on this node's disk (:mod:`securefl.integrations.once`).
    """

    def __init__(self, context: Context, run: int) -> None:
        self._state, self._run = context.state, run
        self._once = Once(folder_of(context), run, context.node_id)

    def saved(self) -> bytes:
        """The session that waits for this message, once. Raises :class:`FaultyServerError` when there is none."""
        old = self._record()
        if old is None or not isinstance(old.get("session"), bytes):
            raise FaultyServerError("a message of a session that this client does not take part in (any more)")
        if not self._once.claim(f"session {bytes(old['ticket']).hex()}"):
            raise FaultyServerError(
                "a second message to one state of a session: two answers would give more than a sum"
            )
        return bytes(old["session"])

    def check_new(self, number: int) -> None:
        """Raises :class:`FaultyServerError` for a sum that was answered already; it is from now on."""
        old = self._record()
        answered = old is not None and int(str(old["round"])) >= number
        if answered or not self._once.claim(f"sum {number}"):
            raise FaultyServerError(
                f"sum {number} of this run was answered already: its repetition with other clients would give "
                "away the difference"
            )

    def keep(self, number: int, session: bytes | None) -> None:
        """Remember the sum's number, and the session when it goes on, under a ticket that is taken once."""
        fields = {"run": self._run, "round": number}
        going_on = {} if session is None else {"session": session, "ticket": os.urandom(16)}
        self._state[KEY] = ConfigRecord({**fields, **going_on})

    def forget(self) -> None:
        """Drop the secrets; the number of the last sum stays, or an error would make room for its repetition."""
        old = self._state.get(KEY)
        if isinstance(old, ConfigRecord):
            self._state[KEY] = ConfigRecord({name: old[name] for name in ("run", "round") if name in old})

    def identity_seed(self) -> bytes:
        """32 secret bytes that last as long as the run: the identity of a node that has no file."""
        old = self._state.get(IDENTITY)
        if not isinstance(old, ConfigRecord) or old.get("run") != self._run:
            old = ConfigRecord({"run": self._run, "seed": os.urandom(32)})
            self._state[IDENTITY] = old
        return bytes(old["seed"])

    def feedback(self) -> Feedback:
        """What this client's coder dropped in earlier sums of the run."""
        arrays, of = self._state.get(RESIDUAL), self._state.get(RESIDUAL_OF)
        if not isinstance(arrays, ArrayRecord) or not isinstance(of, ConfigRecord) or of.get("run") != self._run:
            return Feedback()
        kept, pending = (arrays[name].numpy() if name in arrays else None for name in ("kept", "pending"))
        return Feedback(kept, pending, int(str(of["number"])))

    def keep_feedback(self, feedback: Feedback) -> None:
        """Remember it; it never leaves the node."""
        values = {"kept": feedback.kept, "pending": feedback.pending}
        arrays = {name: Array(value) for name, value in values.items() if value is not None}
        self._state[RESIDUAL] = ArrayRecord(arrays)
        self._state[RESIDUAL_OF] = ConfigRecord({"run": self._run, "number": feedback.number})

    def _record(self) -> ConfigRecord | None:
        old = self._state.get(KEY)
        return old if isinstance(old, ConfigRecord) and old.get("run") == self._run else None
