"""What each operation of the vector files asks of this package: one module per protocol, each with a table ``CHECKS``.

A check takes a :class:`Case` and raises: :class:`Mismatch`, or whatever the package raised where it should not have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from securefl.errors import SecureFLError

__all__ = ["Case", "Check", "Mismatch", "expect", "refused"]


class Mismatch(Exception):
    """The package does not do what the vector says."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test of a vector file. ``find`` gives another one of the same protocol by ``file#id``."""

    params: Mapping[str, Any]
    test: Mapping[str, Any]
    find: Callable[[str], Case]

    @property
    def input(self) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self.test["input"]
        return value

    @property
    def expected(self) -> Mapping[str, Any]:
        value: Mapping[str, Any] = self.test["expected"]
        return value

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The error that must come; ``None`` when an answer is expected."""
        return self.test.get("error")

    def bytes(self, name: str) -> bytes:
        return bytes.fromhex(self.input[name])


Check: TypeAlias = Callable[[Case], None]


def expect(what: str, found: object, wanted: object) -> None:
    """Raises :class:`Mismatch`; values are not printed, ``what`` says where to look."""
    if found != wanted:
        raise Mismatch(f"{what} differs")


def refused(error: Mapping[str, Any], step: Callable[[], object]) -> None:
    """``step`` must raise exactly the error that the vector names, and blame whom it names."""
    try:
        step()
    except SecureFLError as raised:
        expect(f"the error ({type(raised).__name__}, not {error['type']})", type(raised).__name__, error["type"])
        expect("who is blamed", list(getattr(raised, "clients", ())), error.get("blamed", []))
        return
    raise Mismatch(f"accepted, although {error['type']} is due")
