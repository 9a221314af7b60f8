"""Unequal clients: ``[tiers]``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from securefl.fl.config.section import Section, as_tuple

__all__ = ["TiersConfig"]


class TiersConfig(Section):
    """``[tiers]``: clients train, and send, slices of the model; absent: everybody the whole.

    ``slices``: "width" (the first units of every hidden layer), "rolling" (a window of units that moves on each round)
    or "depth" (the first hidden layers). ``sizes``: per tier, ascending, the last the whole model: widths in (0, 1], or
    numbers of hidden layers. ``shares``: how many clients are in each tier, in proportion. ``minimum_holders``: a part
    of the model is not opened over fewer survivors. ``nested``: clients also train the smaller slices within their own.
    """

    slices: Literal["width", "rolling", "depth"] = "width"
    sizes: Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_tuple)] = (0.25, 0.5, 1.0)
    shares: Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(as_tuple)] = (1.0, 1.0, 1.0)
    minimum_holders: int = Field(default=3, ge=2)
    nested: bool = True

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if len(self.sizes) != len(self.shares):
            raise ValueError(f"sizes has {len(self.sizes)} tiers and shares {len(self.shares)}: one of each per tier")
        if not 1 <= len(self.sizes) <= 255 or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError("sizes are 1 to 255 ascending numbers")
        if self.slices == "depth":
            if "sizes" not in self.model_fields_set or any(size != int(size) for size in self.sizes):
                raise ValueError('slices = "depth" needs sizes that are numbers of hidden layers, such as [1, 2, 3]')
        elif self.sizes[-1] != 1:
            raise ValueError(f"the last of sizes is 1, the whole model, not {self.sizes[-1]:g}")
        return self
