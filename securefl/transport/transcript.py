"""A session's frames as JSON lines: one object per frame, in the order they were sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from securefl.errors import DecodeError
from securefl.types import PartyId
from securefl.wire import Buffer

__all__ = ["Entry", "Transcript"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One frame on its way."""

    sender: PartyId
    recipient: PartyId
    frame: bytes = field(repr=False)

    @property
    def kind(self) -> int:
        """The message's number in its protocol: the third byte of a frame (wire SPEC §2)."""
        return self.frame[2]


@dataclass
class Transcript:
    """Call it as an observer of a session. It holds every frame: use it for small sessions."""

    entries: list[Entry] = field(default_factory=list)

    def __call__(self, sender: PartyId, recipient: PartyId, frame: Buffer) -> None:
        self.entries.append(Entry(sender, recipient, bytes(frame)))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def write(self, path: Path) -> None:
        """Write one line per frame: ``{"from", "to", "kind", "frame"}``, the frame in lowercase hex."""
        path.write_text("".join(_line(entry) + "\n" for entry in self.entries), encoding="ascii")

    @classmethod
    def read(cls, path: Path) -> Transcript:
        """Read what :meth:`write` wrote. Raises :class:`DecodeError` naming the line that is not an entry."""
        transcript = cls()
        for number, raw in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                line = raw.decode("ascii")
                item = json.loads(line)
                entry = Entry(PartyId(item["from"]), PartyId(item["to"]), bytes.fromhex(item["frame"]))
                # one spelling per entry: what we would not have written is not read
                parties = (entry.sender, entry.recipient)
                if _line(entry) != line or not all(type(i) is int and 0 <= i < 2**32 for i in parties):
                    raise ValueError(line)
            except (ValueError, KeyError, TypeError, IndexError, RecursionError):
                raise DecodeError(f"{path.name}, line {number}: not a transcript entry") from None
            transcript.entries.append(entry)
        return transcript


def _line(entry: Entry) -> str:
    fields = {"from": entry.sender, "to": entry.recipient, "kind": entry.kind, "frame": entry.frame.hex()}
    return json.dumps(fields)
