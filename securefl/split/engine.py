"""What a mode of protection is to the roles: four conversions per batch, two at either side.

Legend: B examples in the batch, F values in one example's activations, O in one example's outputs of the body.

    client                                             server
    activations   float32[B, F] → payload  ─────────▶  forward    payload → payload
    outputs       payload → float32[B, O]  ◀─────────
    gradient      float32[B, O] → payload  ─────────▶  backward   payload → payload
    input_gradient payload → float32[B, F] ◀─────────

Gradients are those of the *sum* of the examples' losses: one example's row does not depend on the batch it is in. An
engine sees rows, never tensors of a model: the roles (``client``, ``server``) know frames, the engines know payloads,
and only ``learner`` and the bodies in ``clear`` know torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.errors import InvalidInputError
from securefl.wire import Buffer

__all__ = ["ClientEngine", "PayloadLimits", "Rows", "ServerEngine", "check_rows", "float32_bytes", "float32_rows"]

#: float32[B, values]: one row per example.
Rows: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class PayloadLimits:
    """The most bytes that each payload can have, for the largest batch."""

    setup: int
    activations: int
    outputs: int
    gradient: int
    input_gradient: int


class ClientEngine(Protocol):
    """The client's side of a mode."""

    @property
    def limits(self) -> PayloadLimits: ...
    def setup(self) -> bytes:
        """What the server needs before the first batch (a public key); empty for most modes."""
        ...

    def activations(self, rows: Rows) -> bytes:
        """Raises :class:`InvalidInputError` for rows that are not finite or beyond the declared range."""
        ...

    def outputs(self, payload: Buffer, batch: int) -> Rows: ...
    def gradient(self, rows: Rows) -> bytes: ...
    def input_gradient(self, payload: Buffer, batch: int) -> Rows: ...


class ServerEngine(Protocol):
    """The server's side of a mode, for one client; the body behind it may be shared by many."""

    @property
    def limits(self) -> PayloadLimits: ...
    def setup(self, payload: Buffer) -> None: ...
    def forward(self, payload: Buffer, batch: int, *, train: bool) -> bytes: ...
    def backward(self, payload: Buffer, batch: int) -> bytes: ...
    def view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        """float64[B, k]: what the server holds of each example in an activations payload; for leakage figures."""
        ...

    def gradient_view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        """The same of a gradient payload."""
        ...


def check_rows(rows: Rows, width: int, what: str, *, largest: float | None = None) -> None:
    """Raises :class:`InvalidInputError` unless ``rows`` is finite float32[B, width] within ±``largest``."""
    if rows.ndim != 2 or rows.shape[1] != width or rows.dtype != np.float32 or not len(rows):
        raise InvalidInputError(f"{what} must be float32 of shape [batch, {width}], not {rows.dtype} {rows.shape}")
    peak = float(np.abs(rows).max())  # NaN propagates
    if not np.isfinite(peak):
        raise InvalidInputError(f"{what} hold NaN or infinite values: lower the learning rate or mend the inputs")
    if largest is not None and peak > largest:
        raise InvalidInputError(
            f"{what} reach {peak:.6g}, beyond the declared range of ±{largest:g}: raise activation_range, or bound "
            "them in the front (the learner clamps)"
        )


def float32_bytes(rows: Rows) -> bytes:
    """Row by row, little-endian."""
    return np.ascontiguousarray(rows, dtype="<f4").tobytes()


def float32_rows(payload: Buffer, batch: int, width: int, what: str) -> Rows:
    """The inverse of :func:`float32_bytes`. Raises :class:`InvalidInputError` for another size or values not finite."""
    view = memoryview(payload)
    if view.nbytes != 4 * batch * width:
        raise InvalidInputError(f"{what}: {view.nbytes} bytes came, {4 * batch * width} are due for {batch} examples")
    rows = np.frombuffer(view, dtype="<f4").reshape(batch, width).astype(np.float32)
    check_rows(rows, width, what)
    return rows
