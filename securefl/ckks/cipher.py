"""Encryption of a client's vector and opening of a sum, ciphertext by ciphertext. SPEC: protocols/ckks-sum/SPEC.md §5.

A ciphertext is (c0, c1) with c0 + c1·s = Δ'·m + e, all in coefficient form: Δ' the session's multiplier, m a stretch of
the lattice's coefficients. Under ``key_holder`` SEAL makes (c0, c1) for m = 0; under ``shared_key`` c1 is the stream of
a public seed and e is centered binomial noise, as SEAL's is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from securefl.ckks import backend
from securefl.ckks.messages import EncryptedInput, ciphertext_places
from securefl.ckks.params import KeyModel, ParameterSet, Params
from securefl.ckks.residues import pack_residues, unpack_residues
from securefl.ckks.ring import Multiplier, Residues, add_into, centered, lift, noise, normal, scaled, uniform
from securefl.errors import ConfigurationError
from securefl.primitives.entropy import Entropy
from securefl.primitives.kdf import Label, derive
from securefl.primitives.prg import KEY_BYTES
from securefl.types import ClientId, IntegerVector

__all__ = ["Cipher", "PublicCipher", "SharedCipher", "encrypt", "open_sum", "public_key_of", "uniform_half"]

#: Ciphertexts whose products with the secret key are taken together.
_BATCH = 4


class Cipher(Protocol):
    """How a client makes ciphertexts: what stands before them, and one stretch of coefficients at a time."""

    seed: bytes

    def write(self, at: int, coefficients: NDArray[np.int64], first: memoryview, second: memoryview) -> None:
        """Write ciphertext ``at`` of the centred ``coefficients`` (int64[N]): c0 to ``first``, c1 to ``second``.

        ``first`` has room for the coefficients in use; ``second`` is empty where c1 is not sent.
        """
        ...


def _add_message(c0: Residues, coefficients: NDArray[np.int64], params: Params) -> None:
    for row, prime in zip(c0, params.parameters.primes, strict=True):
        add_into(row, scaled(coefficients, params.multiplier, prime), prime)


def public_key_of(parameters: ParameterSet, wire: memoryview) -> Residues:
    """uint64[2, primes and special primes, N]. Raises :class:`DecodeError` for residues of a prime or above."""
    moduli, half = parameters.primes + parameters.special, wire.nbytes // 2
    return np.stack([unpack_residues(wire[at * half : (at + 1) * half], moduli, parameters.degree) for at in range(2)])


class PublicCipher:
    """Under a public key: SEAL encrypts zero, the message is added to c0."""

    seed = b""

    def __init__(self, params: Params, public: Residues) -> None:
        self._params = params
        self._encryptor = backend.engine(params.parameters).encryptor(public)

    def write(self, at: int, coefficients: NDArray[np.int64], first: memoryview, second: memoryview) -> None:
        c0, c1 = self._encryptor.zero()
        primes, used = self._params.parameters.primes, self._params.used(at)
        c0 = c0[:, :used].copy()
        _add_message(c0, coefficients[:used], self._params)
        pack_residues(c0, primes, first)
        pack_residues(c1, primes, second)


class SharedCipher:
    """Under the shared key: c0 = −c1·s + e + Δ'·m, c1 from a public seed. It holds the secret key."""

    def __init__(self, params: Params, me: ClientId, multiplier: Multiplier, entropy: Entropy) -> None:
        self.seed: bytes = entropy.token(32)
        self._secret = entropy.token(32)
        self._params, self._me, self._multiplier = params, me, multiplier

    def write(self, at: int, coefficients: NDArray[np.int64], first: memoryview, second: memoryview) -> None:
        params = self._params
        degree, primes = params.parameters.degree, params.parameters.primes
        c1 = uniform_half(params, self._me, self.seed, at)
        key = derive(self._secret, Label.CKKS_NOISE, params.context_hash, at.to_bytes(4, "big"), length=KEY_BYTES)
        small = noise(key, degree)
        c0 = np.empty_like(c1)
        for row, half, prime in zip(c0, c1, primes, strict=True):
            row[:] = lift(small - self._multiplier.times(half, prime).view(np.int64), prime)
        _add_message(c0, coefficients, params)
        pack_residues(c0[:, : params.used(at)], primes, first)

    def __repr__(self) -> str:
        return "<SharedCipher>"


def uniform_half(params: Params, sender: ClientId, seed: bytes, at: int) -> Residues:
    """c1 of ciphertext ``at`` of a client's message under the shared key: uint64[primes, N]. SPEC §5.4."""
    place = sender.to_bytes(4, "big") + at.to_bytes(4, "big")
    return np.stack(
        [
            uniform(
                derive(seed, Label.CKKS_UNIFORM, params.context_hash, place + bytes([number]), length=KEY_BYTES),
                params.parameters.degree,
                prime,
            )
            for number, prime in enumerate(params.parameters.primes)
        ]
    )


def encrypt(params: Params, cipher: Cipher, values: IntegerVector, tier: int = 1) -> bytearray:
    """The ciphertexts of the checked ``values`` of a client of this ``tier``, in wire form."""
    degree, out = params.parameters.degree, bytearray(EncryptedInput.ciphertext_bytes(params, tier))
    view = memoryview(out)
    whole = params.key_model is KeyModel.KEY_HOLDER
    numbers = range(params.ciphertexts_of(tier))
    for at, (first, second) in zip(numbers, ciphertext_places(params, whole=whole, numbers=numbers), strict=True):
        coefficients = params.lattice.encode(values, at * degree, (at + 1) * degree)
        cipher.write(at, coefficients, view[first], view[second])
    return out


def open_sum(
    params: Params,
    secret: NDArray[np.int8],
    multiplier: Multiplier,
    ciphertexts: memoryview,
    survivors: Collection[ClientId],
    entropy: Entropy,
) -> IntegerVector:
    """uint64[dimension]: the sum over ``survivors``, flooded before it is read where the session says so.

    ``ciphertexts``: those that are opened over them; the values of the others are 0. The first is decrypted by SEAL as
    well, and must agree. Raises :class:`DecodeError` for what is no sum of so many clients: nothing is released.
    """
    chosen, values = params.parameters, np.zeros(params.dimension, dtype=np.uint64)
    flood = _Flood(params, entropy) if params.flooded else None
    numbers, counts = params.opened(survivors), params.counts(survivors)
    places = dict(zip(numbers, ciphertext_places(params, whole=True, numbers=numbers), strict=True))
    for start in range(0, len(numbers), _BATCH):
        batch = numbers[start : start + _BATCH]
        parts = [_read(params, at, ciphertexts[places[at][0]], ciphertexts[places[at][1]]) for at in batch]
        phase = _phases(chosen, multiplier, parts)
        if start == 0 and (backend.engine(chosen).decrypt(secret, np.stack(parts[0])) != phase[0]).any():
            raise ConfigurationError("SEAL's decryption and exact arithmetic differ on this machine: nothing was used")
        for at, row in zip(batch, phase, strict=True):
            if flood is not None:
                flood.add(row, at)
            sent = _divided(row, chosen.primes)[: params.used(at)]
            params.lattice.decode(sent, counts, at * chosen.degree, values)
    return values


def _read(params: Params, at: int, first: memoryview, second: memoryview) -> tuple[Residues, Residues]:
    """(c0, c1) of ciphertext ``at``; the coefficients of c0 that were not sent are zero."""
    primes, degree = params.parameters.primes, params.parameters.degree
    return unpack_residues(first, primes, degree, params.used(at)), unpack_residues(second, primes, degree)


def _phases(chosen: ParameterSet, multiplier: Multiplier, parts: Sequence[tuple[Residues, Residues]]) -> Residues:
    """c0 + c1·s of several ciphertexts: uint64[ciphertexts, primes, N]."""
    out = np.stack([c0 for c0, _ in parts])
    for number, prime in enumerate(chosen.primes):
        add_into(out[:, number], multiplier.times(np.stack([c1[number] for _, c1 in parts]), prime), prime)
    return out


class _Flood:
    """Flooding noise, fresh for each ciphertext of an opening."""

    def __init__(self, params: Params, entropy: Entropy) -> None:
        self._deviation = params.parameters.flood_deviation(params.key_model, len(params.clients))
        self._primes, self._secret = params.parameters.primes, entropy.token(32)

    def add(self, phase: Residues, at: int) -> None:
        key = derive(self._secret, Label.CKKS_NOISE, b"flooding", at.to_bytes(4, "big"), length=KEY_BYTES)
        drawn = np.rint(normal(key, phase.shape[-1]) * self._deviation).astype(np.int64)
        for row, prime in zip(phase, self._primes, strict=True):
            add_into(row, lift(drawn, prime), prime)


def _divided(phase: Residues, primes: Sequence[int]) -> NDArray[np.int64]:
    """All primes but the first divided out, rounding to the nearest: centred under the first. SPEC §5.6."""
    rows = [centered(row, prime) for row, prime in zip(phase, primes, strict=True)]
    while len(rows) > 1:
        last, divisor = rows.pop(), primes[len(rows)]
        for number, row in enumerate(rows):
            prime = primes[number]
            difference = centered(lift(row - last, prime), prime)
            rows[number] = centered(scaled(difference, pow(divisor, -1, prime), prime), prime)
    return rows[0]
