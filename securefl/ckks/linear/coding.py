"""Seeded ciphertexts and answers as bytes. SPEC: protocols/split/SPEC.md §5."""

from __future__ import annotations

import numpy as np

from securefl.ckks.linear.layer import LinearLayer
from securefl.ckks.ring import Residues, uniform
from securefl.errors import DecodeError
from securefl.primitives.prg import KEY_BYTES
from securefl.wire import Buffer

__all__ = ["expand", "pack", "read_answer", "read_encrypted", "unpack"]


def expand(seed: bytes, at: int, degree: int, q: int) -> Residues:
    """c1 of a seeded ciphertext modulo its ``at``-th prime: the stream of the seed with its last byte changed."""
    return uniform(seed[:-1] + bytes([seed[-1] ^ at]), degree, q)


def pack(residues: Residues, bits: int) -> bytes:
    """Little-endian bit string, ``bits`` per residue."""
    flat = np.ascontiguousarray(residues, dtype="<u8")
    each = np.unpackbits(flat.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, :bits]
    return np.packbits(each, bitorder="little").tobytes()


def unpack(data: Buffer, count: int, q: int) -> Residues:
    """The inverse of :func:`pack`. Raises :class:`DecodeError` for residues that are not below q."""
    bits = q.bit_length()
    each = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little", count=count * bits).reshape(count, bits)
    whole = np.zeros((count, 64), dtype=np.uint8)
    whole[:, :bits] = each
    values = np.packbits(whole, axis=1, bitorder="little").reshape(-1).view("<u8").astype(np.uint64)
    if values.max(initial=0) >= q:
        raise DecodeError("a residue is not below its prime")
    return values


def read_encrypted(layer: LinearLayer, payload: Buffer, polynomials: int) -> tuple[list[Residues], list[Residues]]:
    """(c0, c1) per prime, each uint64[polynomials, N]."""
    view = memoryview(payload)
    if view.nbytes != layer.encrypted_bytes(polynomials):
        raise DecodeError(f"{polynomials} ciphertexts have {layer.encrypted_bytes(polynomials)} bytes")
    degree, primes = layer.parameters.degree, layer.parameters.primes
    c0 = [np.empty((polynomials, degree), dtype=np.uint64) for _ in primes]
    c1 = [np.empty((polynomials, degree), dtype=np.uint64) for _ in primes]
    at = 0
    for row in range(polynomials):
        seed = bytes(view[at : at + KEY_BYTES])
        at += KEY_BYTES
        for prime, q in enumerate(primes):
            size = degree * q.bit_length() // 8
            c0[prime][row] = unpack(view[at : at + size], degree, q)
            c1[prime][row] = expand(seed, prime, degree, q)
            at += size
    return c0, c1


def read_answer(layer: LinearLayer, answer: Buffer, polynomials: int, coefficients: int) -> tuple[Residues, Residues]:
    view = memoryview(answer)
    if view.nbytes != layer.answer_bytes(polynomials, coefficients):
        raise DecodeError(f"this answer has {layer.answer_bytes(polynomials, coefficients)} bytes")
    degree, q = layer.parameters.degree, layer.parameters.primes[0]
    split = polynomials * degree * q.bit_length() // 8
    return unpack(view[:split], polynomials * degree, q).reshape(polynomials, degree), unpack(
        view[split:], coefficients, q
    )
