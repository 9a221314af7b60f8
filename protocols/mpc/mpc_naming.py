"""What the vectors of secret-shared computation draw by name, and how they are laid out."""

from __future__ import annotations

import hashlib
from typing import Any

SESSION = b"vectors"


def expand(name: str, count: int) -> bytes:
    return hashlib.shake_256(f"protocols/mpc/{name}".encode()).digest(count)


def words(name: str, count: int) -> list[int]:
    raw = expand(name, 8 * count)
    return [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]


def strings(values: list[int]) -> list[str]:
    return [str(value) for value in values]


def group(operation: str, tests: list[dict[str, Any]], **params: Any) -> dict[str, Any]:
    return {"operation": operation, "params": params, "tests": tests}
