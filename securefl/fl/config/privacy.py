"""What the released aggregates give away: ``[privacy]``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from securefl.fl.config.section import Section

__all__ = ["PrivacyConfig"]


class PrivacyConfig(Section):
    """``[privacy]``: differential privacy of what the run releases; absent: none, and the run says so.

    ``epsilon``, ``delta``: the budget of the whole run. ``noise``: who adds it — ``distributed`` (each client a share,
    inside the ring), ``central`` (a trusted server, after the sum), ``local`` (each client, for itself).
    ``clip_norm``: ℓ2 bound of an update (of an example's gradient where ``unit = "example"``).
    ``noise_multiplier``: by default the least that meets the budget in the configured rounds; given, the run stops
    where the budget does. ``sampling_probability``: each client joins a round by its own coin; absent: all do.
    ``colluders``: survivors that may pool what they know with the server; their noise does not count.
    ``adaptive``: the clip norm follows a quantile of the norms. ``unit``: ``client`` (user-level) or ``example``.
    """

    epsilon: float = Field(default=8.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    noise: Literal["distributed", "central", "local"] = "distributed"
    clip_norm: float = Field(default=1.0, gt=0, le=1e9)
    noise_multiplier: float | None = Field(default=None, ge=1e-6, le=1e6)
    sampling_probability: float | None = Field(default=None, gt=0, le=1)
    colluders: int = Field(default=0, ge=0)
    adaptive: bool = False
    target_quantile: float = Field(default=0.5, gt=0, lt=1)
    neighboring: Literal["add-remove", "replace-one"] = "add-remove"
    unit: Literal["client", "example"] = "client"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = self.model_fields_set
        if self.unit == "example" and (given & {"noise", "colluders", "adaptive", "sampling_probability"}):
            raise ValueError(
                'unit = "example" is DP-SGD at each client: noise, colluders, adaptive and '
                "sampling_probability are for user-level privacy; remove them"
            )
        if self.adaptive and self.noise == "local":
            raise ValueError('adaptive needs a sum: it does not go with noise = "local"')
        if self.colluders and self.noise != "distributed":
            raise ValueError('colluders is for noise = "distributed"; remove it')
        if "target_quantile" in given and not self.adaptive:
            raise ValueError("target_quantile has no effect without adaptive = true; remove it")
        if self.noise == "local" and self.noise_multiplier is not None:
            raise ValueError('noise = "local" is calibrated to epsilon and delta; remove noise_multiplier')
        return self
