"""The side of an encrypted linear layer with the secret key. SPEC: protocols/split/SPEC.md §5."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.backend import KeyPair, engine
from securefl.ckks.linear.coding import expand, pack, read_answer
from securefl.ckks.linear.layer import Integers, LinearLayer
from securefl.ckks.linear.places import coefficients, feature_blocks, slot_blocks
from securefl.ckks.ring import Multiplier, Residues, add_into, centered, lift, noise, scaled
from securefl.errors import AuthenticationError, InvalidInputError
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.prg import KEY_BYTES
from securefl.wire import Buffer

__all__ = ["LinearClient"]


class LinearClient:
    """The side with the secret key. One object, one key; any number of batches.

    ``entropy``: for seeds and noise; fresh from the operating system by default. It never prints.
    """

    def __init__(self, layer: LinearLayer, *, keys: KeyPair | None = None, entropy: Entropy | None = None) -> None:
        self.layer = layer
        self._entropy = entropy if entropy is not None else SystemEntropy()
        pair = engine(layer.parameters).generate() if keys is None else keys
        self._public = pair.public
        self._secret = Multiplier(pair.secret)

    def __repr__(self) -> str:
        return "LinearClient(<redacted>)"

    def public_key(self) -> bytes:
        """What the server re-randomises its answers with."""
        moduli = self.layer.parameters.primes + self.layer.parameters.special
        return b"".join(
            pack(self._public[part, at], q.bit_length()) for part in range(2) for at, q in enumerate(moduli)
        )

    def encrypt_activations(self, integers: Integers) -> bytes:
        """``integers``: int64[B, F] within ±activation_limit. Raises :class:`InvalidInputError`."""
        layer = self.layer
        _check(integers, (layer.max_batch, layer.features), layer.activation_limit, "activations")
        batch = len(integers)
        whole = np.zeros((layer.polynomials, layer.blocks, layer.stride), dtype=np.int64)
        for polynomial in range(layer.polynomials):
            rows = integers.T[polynomial * layer.group : (polynomial + 1) * layer.group]
            whole[polynomial, : len(rows), :batch] = rows
        return self._encrypt(whole.reshape(layer.polynomials, -1))

    def encrypt_gradient(self, integers: Integers) -> bytes:
        """``integers``: int64[B, O] within ±gradient_limit. Raises :class:`InvalidInputError`."""
        layer = self.layer
        _check(integers, (layer.max_batch, layer.outputs), layer.gradient_limit, "gradients")
        whole = np.zeros((layer.gradient_polynomials, layer.parameters.degree), dtype=np.int64)
        first = 0
        for polynomial, rows in enumerate(slot_blocks(layer, layer.gradient_group)):
            piece = integers.T[first : first + len(rows)]
            whole[polynomial, coefficients(layer, rows, len(integers))] = piece.reshape(-1)
            first += len(rows)
        return self._encrypt(whole)

    def decrypt_outputs(self, answer: Buffer, batch: int) -> Integers:
        """int64[B, O]: W a + b, exactly. Raises :class:`DecodeError` and :class:`AuthenticationError`."""
        return self._decrypt(answer, slot_blocks(self.layer, self.layer.group), batch)

    def decrypt_input_gradient(self, answer: Buffer, batch: int) -> Integers:
        """int64[B, F]: Wᵀ dz, exactly. Raises :class:`DecodeError` and :class:`AuthenticationError`."""
        return self._decrypt(answer, feature_blocks(self.layer), batch)

    def _decrypt(self, answer: Buffer, blocks: Sequence[NDArray[np.int64]], batch: int) -> Integers:
        places = [coefficients(self.layer, rows, batch) for rows in blocks]
        c1, c0 = read_answer(self.layer, answer, len(places), sum(map(len, places)))
        pieces, at = [], 0
        for polynomial, each in enumerate(places):
            pieces.append(self._open(c1[polynomial], c0[at : at + len(each)], each))
            at += len(each)
        return np.concatenate(pieces).reshape(-1, batch).T.copy()

    def _encrypt(self, integers: Integers) -> bytes:
        """int64[polynomials, N] → seed and c0 of each: c0 = −a·s + e + Δ R m. A fresh seed for every ciphertext."""
        layer, pieces = self.layer, []
        degree, primes = layer.parameters.degree, layer.parameters.primes
        for row in integers:
            seed = self._entropy.token(KEY_BYTES)
            error = noise(self._entropy.token(KEY_BYTES), degree)
            pieces.append(seed)
            for at, q in enumerate(primes):
                product = self._secret.times(expand(seed, at, degree, q), q)
                c0 = lift(error, q)
                add_into(c0, scaled(row, layer.scale * layer.rest, q), q)
                np.add(c0, np.uint64(q) - product, out=c0)
                np.minimum(c0, c0 - np.uint64(q), out=c0)
                pieces.append(pack(c0, q.bit_length()))
        return b"".join(pieces)

    def _open(self, c1: Residues, c0: Residues, places: NDArray[np.int64]) -> Integers:
        """The lattice points of an answer under the first prime, at ``places``."""
        layer, q = self.layer, self.layer.parameters.primes[0]
        total = self._secret.times(c1, q)[places]
        add_into(total, c0, q)
        value = centered(total, q)
        points = (value + layer.scale // 2) // layer.scale
        distance = np.abs(value - points * layer.scale)
        if distance.max(initial=0) > layer.noise_limit or np.abs(points).max(initial=0) > layer.result_limit:
            raise AuthenticationError(
                "an answer does not decrypt to the lattice under this key: it was made for another key, session or "
                "layer, or damaged"
            )
        return points


def _check(integers: Integers, most: tuple[int, int], limit: int, what: str) -> None:
    if integers.ndim != 2 or integers.dtype != np.int64 or integers.shape[1] != most[1] or not len(integers):
        raise InvalidInputError(f"{what} are int64[batch, {most[1]}], not {integers.dtype} {integers.shape}")
    if len(integers) > most[0]:
        raise InvalidInputError(
            f"a batch of {len(integers)} examples is larger than the packing of {most[0]}: split it"
        )
    if np.abs(integers).max() > limit:
        raise InvalidInputError(f"{what} lie within ±{limit} on the grid: clamp them, or declare a larger range")
