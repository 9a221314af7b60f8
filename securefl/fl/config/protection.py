"""How the sum is protected: ``[protection]``."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from securefl.errors import ConfigurationError
from securefl.fl.config.section import Section

__all__ = ["ProtectionConfig"]


def _threshold(value: object) -> object:
    # Said here in one sentence rather than per branch of the union, where 1 would also pass for the fraction 1.0.
    if not (type(value) is float and 0 < value <= 1) and not (type(value) is int and value >= 2):
        raise ValueError("must be a fraction in (0, 1] or a count of at least 2")
    return value


class ProtectionConfig(Section):
    """``[protection]``: how the sum is protected.

    ``threshold``: least number of survivors; a fraction of the clients in (0, 1], rounded up, or a count from 2.
    ``suite``: of masked and shared. ``key_model``, ``flooding``: of ckks, who can decrypt, and whether the noise of a
    sum is drowned before it is read.
    ``max_weight``: largest number of examples a client may count for; absent: see :meth:`max_weight_for`.
    """

    method: Literal["masked", "ckks", "shared", "plain"] = "masked"
    value_bits: int = Field(default=16, ge=2, le=31)
    clip_range: float = Field(default=1.0, gt=0)
    threshold: Annotated[float | int, BeforeValidator(_threshold)] = 0.6
    suite: Literal["mlkem768-x25519", "x25519"] = "mlkem768-x25519"
    key_model: Literal["key_holder", "shared_key", "threshold"] = "key_holder"
    flooding: bool = False
    max_weight: Annotated[int, Field(ge=1, lt=2**32)] | None = None

    def threshold_count(self, clients: int) -> int:
        """The threshold as a count: at least 2, since the "sum" of one client is its update."""
        if isinstance(self.threshold, int):
            return self.threshold
        # As written: 0.55 * 20 is 11, not the 11.000000000000002 that floating point makes of it.
        return max(2, math.ceil(Fraction(str(self.threshold)) * clients))

    def max_weight_for(self, weights: Iterable[int]) -> int:
        """``max_weight``, or the smallest power of two that holds every client's sample count.

        The default uses what only a simulation knows; a deployment agrees on a number beforehand.
        Raises :class:`~securefl.errors.ConfigurationError` when a client holds more than the ``max_weight`` given.
        """
        largest = max(weights)
        if self.max_weight is None:
            return 1 << (largest - 1).bit_length()
        if largest > self.max_weight:
            raise ConfigurationError(
                f"[protection] max_weight = {self.max_weight} but a client holds {largest} examples; "
                "raise it or leave it out"
            )
        return self.max_weight
