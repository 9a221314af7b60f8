"""Differential privacy inside Flower: the noise that clients add, and the settings that rounds here cannot keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from securefl.errors import ConfigurationError
from securefl.integrations.terms import NoiseTerms

if TYPE_CHECKING:
    from securefl.dp.distributed import DistributedSkellam
    from securefl.fl.privacy import UserPrivacy  # brings pydantic

__all__ = ["mechanism_of", "noise_terms"]


def mechanism_of(privacy: UserPrivacy, settings: Mapping[str, Any]) -> DistributedSkellam:
    """The noise that clients are to add. Raises :class:`ConfigurationError` for what rounds here cannot keep."""
    from securefl.dp.distributed import DistributedSkellam

    mechanism = privacy.mechanism
    if not isinstance(mechanism, DistributedSkellam) or privacy.adaptive is not None:
        raise ConfigurationError('privacy inside Flower is noise = "distributed" with a fixed clip norm')
    if privacy.sampling_probability != 1.0:
        raise ConfigurationError(
            "a strategy samples a fixed number of nodes, not each by its own coin: leave sampling_probability out"
        )
    if settings.get("metrics") or settings.get("evaluate_metrics") or settings.get("groups", 1) != 1:
        raise ConfigurationError("metrics, evaluations and groups are releases of their own: not beside privacy=…")
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
