"""Residues on the wire: planes of bytes, as many bits as the prime has. SPEC: protocols/ckks-sum/SPEC.md §6.2.

For N words of b bits: N low words of 32 bits, N of the next 16, then N bytes of the next 8 where b allows, then the
last 4 where it has them, two to a byte, the even index in the low half. Words and planes are little-endian. Of the
first polynomial of the last ciphertext only the coefficients in use travel: N is then their number, made even.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.ring import Residues
from securefl.errors import DecodeError
from securefl.wire import Buffer

__all__ = ["pack_residues", "unpack_residues"]

_HALF_BYTE: Final = 4


def _planes(bits: int) -> Iterator[tuple[int, int, str]]:
    """(shift, width, type) of each plane."""
    shift = 0
    for width, kind in ((32, "<u4"), (16, "<u2"), (8, "u1"), (_HALF_BYTE, "u1")):
        if bits - shift >= width:
            yield shift, width, kind
            shift += width
    if shift != bits:
        raise ValueError(f"residues of {bits} bits have no wire form")


def pack_residues(rows: Residues, primes: Sequence[int], out: memoryview) -> None:
    """Write ``rows`` (uint64[primes, N]) to ``out``, which has exactly the bytes that the primes take."""
    at = 0
    for row, prime in zip(rows, primes, strict=True):
        for shift, width, kind in _planes(prime.bit_length()):
            if width == _HALF_BYTE:
                top = (row >> np.uint64(shift)).astype(np.uint8)
                plane: NDArray[np.uint8] = top[::2] | (top[1::2] << 4)
            else:
                plane = (
                    np.ascontiguousarray(row, dtype="<u8")
                    .view(kind)[shift // width :: 64 // width]
                    .copy()
                    .view(np.uint8)
                )
            out[at : at + plane.nbytes] = plane.data
            at += plane.nbytes
    if at != out.nbytes:
        raise ValueError(f"residues take {at} bytes, the space has {out.nbytes}")


def unpack_residues(data: Buffer, primes: Sequence[int], degree: int, count: int | None = None) -> Residues:
    """uint64[primes, degree]. ``count``: the coefficients that were sent, an even number; the others are zero.

    Raises :class:`DecodeError` for another length and for residues of a prime or above.
    """
    count = degree if count is None else count
    rows, at = np.zeros((len(primes), degree), dtype="<u8"), 0
    view = memoryview(data)
    if view.nbytes != sum(count * prime.bit_length() // 8 for prime in primes):
        raise DecodeError(f"{view.nbytes} bytes are no polynomial of this parameter set")
    for whole, prime in zip(rows, primes, strict=True):
        row = whole[:count]
        for shift, width, kind in _planes(prime.bit_length()):
            size = count * width // 8
            plane = np.frombuffer(view[at : at + size], dtype=kind)
            if width == _HALF_BYTE:  # the upper half of its byte is zero: only planes of whole bytes stand below
                target = row.view(np.uint8)[shift // 8 :: 8]
                target[::2] = plane & 15
                target[1::2] = plane >> 4
            else:
                row.view(kind)[shift // width :: 64 // width] = plane
            at += size
        if int(row.max()) >= prime:
            raise DecodeError("a residue is not below its prime")
    return rows
