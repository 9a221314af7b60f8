"""One protected sum of plain arrays, in this process: the shortest way to see what the package does."""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.quantize import SEED_BYTES, FixedPoint, require_finite
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.protections import protection_named
from securefl.machine import RoundContext
from securefl.primitives.kdf import Label, tuple_hash
from securefl.transport.memory import Faults, run_session
from securefl.types import ClientId, IntegerVector, PartyId

__all__ = ["Sum", "secure_sum"]


@dataclass(frozen=True, slots=True)
class Sum:
    """``sum``: float64, the inputs' shape, over exactly ``survivors`` (names, in the order given).

    ``integers``: uint64[d], the exact sum on the grid; equal under every protection for equal ``seed``.
    ``upload_bytes``, ``vector_bytes``: frames each client sent, and of these the one with its vector.
    """

    sum: NDArray[np.float64]
    survivors: tuple[str, ...]
    upload_bytes: dict[str, int]
    vector_bytes: dict[str, int]
    integers: IntegerVector = field(repr=False)


def secure_sum(
    inputs: Mapping[str, NDArray[np.floating]],
    *,
    protect: str = "masked",
    clip_range: float,
    value_bits: int = 16,
    threshold: int | None = None,
    dropped: Collection[str] = (),
    suite: str = "mlkem768-x25519",
    key_model: str = "key_holder",
    flooding: bool = False,
    seed: bytes | None = None,
) -> Sum:
    """The sum of the arrays of all clients that are not in ``dropped``.

    ``inputs``: client name → float array, all of one shape, every value within ±``clip_range``. ``protect``: plain,
    masked or shared. ``threshold``: least number of survivors; default: the smallest majority. ``dropped``: clients
    that share their keys and then never send their vector, the case that costs the server most. ``seed``: 32 bytes
    for the stochastic rounding; fresh randomness by default. Error per value and client: below
    2 · clip_range / 2^value_bits.

    Raises :class:`InvalidInputError` for values that cannot be summed, :class:`ConfigurationError` for parameters that
    cannot work, and :class:`~securefl.errors.TooFewClientsError` when fewer than ``threshold`` clients are left.
    """
    if not isinstance(inputs, Mapping):
        raise ConfigurationError(f"inputs must map client names to arrays, got {type(inputs).__name__}")
    if seed is not None and (not isinstance(seed, bytes) or len(seed) != SEED_BYTES):
        raise ConfigurationError(f"seed must be {SEED_BYTES} bytes, or left out for fresh randomness")
    names = list(inputs)
    if len(names) < 2:
        raise ConfigurationError(f"a sum that hides its terms needs at least 2 clients, got {len(names)}")
    unknown = sorted(set(dropped) - set(names))
    if unknown:
        raise ConfigurationError(f"dropped names clients that give no input: {', '.join(map(repr, unknown))}")
    shape = _check(inputs)
    grid = FixedPoint(clip_range, value_bits)
    ids = {name: PartyId(at) for at, name in enumerate(names, start=1)}
    root = os.urandom(SEED_BYTES) if seed is None else seed

    def input_of(client: ClientId) -> IntegerVector:
        name = names[client - 1]
        return grid.encode(inputs[name].reshape(-1), seed=root + client.to_bytes(4, "big")).values

    for name in names:  # before anything is masked
        if require_finite(inputs[name]) > clip_range:
            raise InvalidInputError(f"client {name!r} has a value beyond clip_range = {clip_range:g}: raise it or clip")
    protection = protection_named(protect, suite, key_model=key_model, flooding=flooding)
    context = RoundContext(
        session=os.urandom(16),
        round=0,
        clients=tuple(ids.values()),
        dimension=max(1, int(np.prod(shape))),
        max_value=grid.max_value,
        threshold=len(names) // 2 + 1 if threshold is None else threshold,
        model_hash=bytes(32),
        encoding=tuple_hash(Label.GRID, b"secure_sum", struct.pack(">dI", clip_range, value_bits)),
    )
    faults = Faults(drop_after={ids[name]: protection.vector_frame for name in dropped})
    outcome = run_session(protection, context, input_of, faults=faults)
    result = outcome.unwrap()
    return Sum(
        sum=grid.decode(result.values, len(result.survivors)).reshape(shape),
        survivors=tuple(names[client - 1] for client in result.survivors),
        upload_bytes={name: outcome.uploaded[ids[name]] for name in names},
        vector_bytes={name: outcome.vector_bytes[ids[name]] for name in names},
        integers=result.values,
    )


def _check(inputs: Mapping[str, NDArray[np.floating]]) -> tuple[int, ...]:
    """The common shape. Raises :class:`InvalidInputError` naming the client whose array differs or is of no floats."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, array in inputs.items():
        try:
            require_finite(array)
        except InvalidInputError as error:
            raise InvalidInputError(f"client {name!r}: {error}") from None
        shapes[name] = array.shape
    first, expected = next(iter(shapes.items()))
    for name, shape in shapes.items():
        if shape != expected:
            raise InvalidInputError(
                f"client {name!r} has shape {shape}, client {first!r} has {expected}: they must agree"
            )
    return expected
