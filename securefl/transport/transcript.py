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
        lines = [
            json.dumps({"from": e.sender, "to": e.recipient, "kind": e.kind, "frame": e.frame.hex()})
            for e in self.entries
        ]
        path.write_text("\n".join(lines) + "\n", encoding="ascii")

    @classmethod
    def read(cls, path: Path) -> Transcript:
        """Read what :meth:`write` wrote. Raises :class:`DecodeError` naming the line that is not an entry."""
        transcript = cls()
        for number, line in enumerate(path.read_text(encoding="ascii").splitlines(), start=1):
            try:
                item = json.loads(line)
                entry = Entry(PartyId(int(item["from"])), PartyId(int(item["to"])), bytes.fromhex(item["frame"]))
                if entry.kind != item["kind"]:
                    raise ValueError("kind")
            except (ValueError, KeyError, TypeError, IndexError):
                raise DecodeError(f"{path.name}, line {number}: not a transcript entry") from None
            transcript.entries.append(entry)
        return transcript
