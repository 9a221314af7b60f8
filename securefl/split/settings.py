"""What a split-learning run is asked to do, checked before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from securefl.errors import ConfigurationError

__all__ = ["MODES", "ModeName", "SplitSettings"]

ModeName: TypeAlias = Literal["plain", "quantized", "noise", "ckks", "shared"]
MODES: Final[tuple[ModeName, ...]] = ("plain", "quantized", "noise", "ckks", "shared")


@dataclass(frozen=True, slots=True)
class SplitSettings:
    """``protect``: how activations and gradients travel. ``order``: ``parallel`` or ``sequential`` clients.

    ``parallel``: every client sends a batch, the body makes one step for all, and fronts and heads are averaged at the
    end of the round by the protected sum ``sum_protection``. ``sequential``: one client after the other; front and head
    go on to the next, sealed to its key.

    ``activation_range``: activations are clamped to it under ``quantized``, ``ckks`` and ``shared``; ``None``: 8, and
    64 under ``shared``, where a wider range costs no precision.
    ``gradient_range``: largest gradient at the outputs under ``shared``. ``parties``: how the computing parties of
    ``shared`` run where none are given; ``audit``: the share of their batches in which the helper is checked.
    ``bits``: of ``quantized``.
    ``epsilon``, ``delta``: per example, of the whole run, where something noised is released: under ``noise`` the
    activations (ℓ2 norm clipped to ``clip_norm``) and gradients (``gradient_clip_norm``), and under ``ckks`` the weight
    gradient, if it is ``noised`` (per-example norm ``gradient_clip_norm``) instead of ``summed`` over the clients.
    ``weight_gradient``: ``None``: summed for parallel clients, noised for sequential ones. ``ciphertexts``: the
    parameter set of ``ckks``. Raises :class:`ConfigurationError`.
    """

    protect: ModeName = "ckks"
    order: Literal["parallel", "sequential"] = "parallel"
    rounds: int = 10
    batch_size: int = 32
    learning_rate: float = 0.1
    momentum: float = 0.9
    activation_range: float | None = None
    bits: int = 8
    epsilon: float = 8.0
    delta: float = 1e-5
    clip_norm: float = 4.0
    gradient_clip_norm: float = 1.0
    weight_gradient: Literal["summed", "noised"] | None = None
    ciphertexts: Literal["wide", "compact"] = "wide"
    gradient_range: float = 16.0
    parties: Literal["threads", "processes"] = "threads"
    audit: float = 0.0
    sum_protection: str = "masked"

    def __post_init__(self) -> None:
        if self.protect not in MODES:
            raise ConfigurationError(f"no protection {self.protect!r} of activations; there are {', '.join(MODES)}")
        if self.order not in ("parallel", "sequential"):
            raise ConfigurationError(f"clients train parallel or sequential, not {self.order!r}")
        if min(self.rounds, self.batch_size) < 1:
            raise ConfigurationError(f"rounds and batch_size are at least 1, not {self.rounds} and {self.batch_size}")
        if not self.learning_rate > 0 or not 0 <= self.momentum < 1:
            raise ConfigurationError("learning_rate is positive and momentum lies in [0, 1)")
        if min(self.largest_activation, self.gradient_range, self.clip_norm, self.gradient_clip_norm) <= 0:
            raise ConfigurationError("activation_range, gradient_range, clip_norm and gradient_clip_norm are positive")
        if self.weight_gradient is not None and self.protect != "ckks":
            raise ConfigurationError(
                f"weight_gradient has no effect under {self.protect!r}: there the server has the gradient already; "
                "leave it out"
            )
        if self.weight_gradient == "summed" and self.order == "sequential":
            raise ConfigurationError(
                "with sequential clients one client's batch is all there is to a step: its weight gradient cannot be "
                "summed over clients; use weight_gradient = 'noised' or order = 'parallel'"
            )

    @property
    def largest_activation(self) -> float:
        """The range to which activations are clamped."""
        if self.activation_range is not None:
            return self.activation_range
        return 64.0 if self.protect == "shared" else 8.0

    @property
    def releases(self) -> Literal["summed", "noised"]:
        """How the weight gradient of an encrypted body leaves the clients."""
        if self.weight_gradient is not None:
            return self.weight_gradient
        return "summed" if self.order == "parallel" else "noised"
