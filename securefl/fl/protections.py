"""Protections by the names users type."""

from __future__ import annotations

from typing import Final

from securefl.ckks import CKKSSum, KeyModel
from securefl.ckks.threshold import ThresholdSum
from securefl.errors import ConfigurationError
from securefl.machine import Protection
from securefl.mpc.summation import SharedSum
from securefl.plain import PlainSum
from securefl.primitives.kem import Suite
from securefl.secagg import MaskedSum

__all__ = ["THRESHOLD", "key_model_named", "protection_named", "suite_named", "trust_of"]

#: The key model without any one key: every client holds a share of it.
THRESHOLD: Final = "threshold"
_THRESHOLD_TRUST: Final = (
    "each client holds a share of the key and a sum opens only when all of them help: one client that drops out after "
    "encrypting fails the round"
)


def suite_named(name: str) -> Suite:
    """The key-encapsulation suite of that name. Raises :class:`ConfigurationError` listing the known ones."""
    for suite in Suite:
        if suite.label == name:
            return suite
    raise ConfigurationError(f"unknown suite {name!r}; there are {', '.join(suite.label for suite in Suite)}")


def protection_named(
    name: str,
    suite: str = Suite.MLKEM768_X25519.label,
    *,
    key_model: str = KeyModel.KEY_HOLDER.label,
    flooding: bool = False,
) -> Protection:
    """``"plain"``, ``"masked"``, ``"shared"`` or ``"ckks"``. ``suite``: of masked and shared; the rest: of ckks.

    Raises :class:`ConfigurationError` for other names and :class:`~securefl.errors.MissingExtraError` for ckks without
    TenSEAL.
    """
    if name == "plain":
        return PlainSum()
    if name == "masked":
        return MaskedSum(suite_named(suite))
    if name == "shared":
        return SharedSum(suite_named(suite))
    if name == "ckks":
        return _ckks_named(key_model, flooding)
    raise ConfigurationError(f"unknown protection {name!r}; there are plain, masked, shared and ckks")


def trust_of(name: str, key_model: str) -> str | None:
    """What a run under CKKS rests on, in one sentence; ``None`` under the other protections."""
    if name != "ckks":
        return None
    if key_model == THRESHOLD:
        return _THRESHOLD_TRUST
    return key_model_named(key_model).trust


def key_model_named(name: str) -> KeyModel:
    """The key model with one key of that name. Raises :class:`ConfigurationError` listing all."""
    for model in KeyModel:
        if model.label == name:
            return model
    known = ", ".join([*(model.label for model in KeyModel), THRESHOLD])
    raise ConfigurationError(f"unknown key model {name!r}; there are {known}")


def _ckks_named(key_model: str, flooding: bool) -> Protection:
    if key_model != THRESHOLD:
        return CKKSSum(key_model_named(key_model), flooding=flooding)
    if flooding:
        raise ConfigurationError("decryption shares of key_model = 'threshold' are always flooded: remove flooding")
    return ThresholdSum()
