"""Rules that bear poisoned updates: ``[robust]``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from securefl.fl.config.section import Section

__all__ = ["RobustConfig"]


class RobustConfig(Section):
    """``[robust]``: what the computing parties do with shared updates instead of their weighted mean; absent: that.

    ``rule``: "norm_bound" (the mean of the updates within the bound), "median", "trimmed_mean" or "multi_krum".
    ``norm_bound``: ℓ2 norm beyond which an update is dropped, before any of the rules. ``faulty``: share of the clients
    that trimmed mean and multi-Krum are to bear.
    """

    rule: Literal["norm_bound", "median", "trimmed_mean", "multi_krum"] = "norm_bound"
    norm_bound: float | None = Field(default=None, gt=0)
    faulty: float = Field(default=0.2, ge=0, lt=0.5)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.rule == "norm_bound" and self.norm_bound is None:
            raise ValueError('rule = "norm_bound" needs norm_bound, the largest ℓ2 norm of an update')
        if "faulty" in self.model_fields_set and self.rule not in ("trimmed_mean", "multi_krum"):
            raise ValueError(f'faulty has no effect with rule = "{self.rule}"; remove it')
        return self
