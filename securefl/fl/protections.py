"""Protections by the names users type."""

from __future__ import annotations

from securefl.errors import ConfigurationError
from securefl.machine import Protection
from securefl.mpc.summation import SharedSum
from securefl.plain import PlainSum
from securefl.primitives.kem import Suite
from securefl.secagg import MaskedSum

__all__ = ["protection_named", "suite_named"]


def suite_named(name: str) -> Suite:
    """The key-encapsulation suite of that name. Raises :class:`ConfigurationError` listing the known ones."""
    for suite in Suite:
        if suite.label == name:
            return suite
    raise ConfigurationError(f"unknown suite {name!r}; there are {', '.join(suite.label for suite in Suite)}")


def protection_named(name: str, suite: str = Suite.MLKEM768_X25519.label) -> Protection:
    """``"plain"``, ``"masked"`` or ``"shared"``. Raises :class:`ConfigurationError` for other names."""
    if name == "plain":
        return PlainSum()
    if name == "masked":
        return MaskedSum(suite_named(suite))
    if name == "shared":
        return SharedSum(suite_named(suite))
    raise ConfigurationError(f"unknown protection {name!r}; this version has plain, masked and shared")
