"""Differential privacy inside engines: the noise that clients add, what rounds there cannot keep, and the release."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from securefl.errors import ConfigurationError, SecureFLError
from securefl.integrations.compression import CompressedSum
from securefl.integrations.coordinator import Coordinator
from securefl.integrations.terms import NoiseTerms
from securefl.integrations.vector import Means

if TYPE_CHECKING:
    from securefl.dp.distributed import DistributedSkellam
    from securefl.fl.privacy import UserPrivacy  # brings pydantic

__all__ = ["mechanism_of", "noise_terms", "released"]


def mechanism_of(privacy: UserPrivacy, settings: Mapping[str, Any]) -> DistributedSkellam:
    """The noise that clients are to add. Raises :class:`ConfigurationError` for what rounds here cannot keep."""
    from securefl.dp.distributed import DistributedSkellam

    mechanism = privacy.mechanism
    if not isinstance(mechanism, DistributedSkellam):
        raise ConfigurationError(
            'privacy inside other systems is noise = "distributed": central noise needs a server that is trusted with '
            "the sum before it is noised, and its adding it cannot be checked by a client"
        )
    if privacy.adaptive is not None:
        raise ConfigurationError("inside other systems the clip norm is fixed: leave adaptive out")
    if privacy.sampling_probability != 1.0:
        raise ConfigurationError(
            "a strategy samples a fixed number of nodes, not each by its own coin: leave sampling_probability out"
        )
    if settings.get("metrics") or settings.get("evaluate_metrics") or settings.get("groups", 1) != 1:
        raise ConfigurationError("metrics, evaluations and groups are releases of their own: not beside privacy=…")
    if settings.get("compression") is not None:
        raise ConfigurationError("inside other systems noise is sized for the whole update: not beside compression=…")
    return mechanism


def noise_terms(privacy: UserPrivacy | None) -> NoiseTerms | None:
    """What an invitation says about the noise."""
    if privacy is None:
        return None
    mechanism = mechanism_of(privacy, {})
    return NoiseTerms(
        mechanism.clip_norm,
        mechanism.noise_multiplier,
        mechanism.clients,
        mechanism.minimum_survivors,
        mechanism.colluders,
    )


def released(
    coordinator: Coordinator, privacy: UserPrivacy | None, number: int
) -> tuple[Means | None, Exception | None]:
    """The means of a sum, or why there are none; under differential privacy only after their charge is on disk."""
    if coordinator.result is None:
        return None, coordinator.error
    coder = coordinator.coder
    try:
        if privacy is None:
            return coder.decode(coordinator.result), None
        noisy = coder.coder
        if isinstance(noisy, CompressedSum):
            raise ConfigurationError("noise is sized for the whole update: not in a compressed sum")
        privacy.charge(number, noisy, coordinator.result)
        means = coder.decode(coordinator.result)
        digest = hashlib.sha256(b"".join(tensor.tobytes() for tensor in means.update.values())).digest()
        privacy.released(number, noisy, digest)
    except SecureFLError as error:
        return None, error
    return means, None
