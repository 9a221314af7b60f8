"""What every section of a configuration is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Section", "as_tuple"]


def as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value  # TOML has arrays, a frozen model tuples


class Section(BaseModel):
    """A table of the file: frozen, every key known."""

    # strict: "20" is not 20 and true is not 1. An integer where a float is due is fine.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
