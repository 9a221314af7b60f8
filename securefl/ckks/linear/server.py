"""The side of an encrypted linear layer with the weights. SPEC: protocols/split/SPEC.md §5."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.backend import engine
from securefl.ckks.linear.arithmetic import divide, flood, multiply, negacyclic, place
from securefl.ckks.linear.coding import pack, read_encrypted, unpack
from securefl.ckks.linear.layer import Integers, LinearLayer
from securefl.ckks.linear.places import coefficients, feature_blocks, slot_blocks
from securefl.ckks.ring import Residues, add_into, scaled
from securefl.errors import DecodeError, InvalidInputError
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.wire import Buffer

__all__ = ["LinearServer"]


class LinearServer:
    """The side with the weights. It can decrypt nothing. ``public_key``: the client's, from the wire.

    ``zeros``: for vectors, a source of encryptions of zero, uint64[2, primes, N], in place of those under the key.
    Raises :class:`DecodeError` for a key that cannot be one.
    """

    def __init__(
        self,
        layer: LinearLayer,
        public_key: Buffer,
        *,
        entropy: Entropy | None = None,
        zeros: Callable[[], Residues] | None = None,
    ) -> None:
        self.layer = layer
        self._entropy = entropy if entropy is not None else SystemEntropy()
        self._zero = zeros if zeros is not None else self._fresh_zeros(memoryview(public_key))

    def _fresh_zeros(self, view: memoryview) -> Callable[[], Residues]:
        layer = self.layer
        if view.nbytes != layer.public_key_bytes:
            raise DecodeError(f"a public key of {layer.parameters.name} has {layer.public_key_bytes} bytes")
        moduli = layer.parameters.primes + layer.parameters.special
        key = np.empty((2, len(moduli), layer.parameters.degree), dtype=np.uint64)
        at = 0
        for part in range(2):
            for prime, q in enumerate(moduli):
                size = layer.parameters.degree * q.bit_length() // 8
                key[part, prime] = unpack(view[at : at + size], layer.parameters.degree, q)
                at += size
        return engine(layer.parameters).encryptor(key).zero

    def forward(self, payload: Buffer, weights: Integers, bias: Integers, batch: int) -> bytes:
        """Enc(W a + b) from Enc(a). ``weights``: int64[O, F] within ±weight_limit; ``bias``: int64[O].

        Raises :class:`InvalidInputError` for weights beyond the limit, :class:`DecodeError` for another payload.
        """
        layer = self.layer
        self._check_weights(weights)
        if np.abs(bias).max(initial=0) > layer.result_limit // 2:
            raise InvalidInputError("a bias is beyond what the lattice holds: lower it, or use more bits")
        group, per_answer = layer.group, layer.blocks // layer.group
        u = np.zeros((layer.output_answers, layer.polynomials, layer.blocks))
        for output, row in enumerate(weights):
            answer, slot = divmod(output, per_answer)
            for polynomial in range(layer.polynomials):
                piece = row[polynomial * group : (polynomial + 1) * group]
                place(u[answer, polynomial], slot * group - np.arange(len(piece)), piece)
        return self._apply(payload, u, slot_blocks(layer, group), bias, batch)

    def backward(self, payload: Buffer, weights: Integers, batch: int) -> bytes:
        """Enc(Wᵀ dz) from Enc(dz). Raises as :meth:`forward`."""
        layer = self.layer
        self._check_weights(weights)
        group, per_polynomial = layer.gradient_group, layer.blocks // layer.gradient_group
        u = np.zeros((layer.gradient_answers, layer.gradient_polynomials, layer.blocks))
        for output, row in enumerate(weights):
            polynomial, slot = divmod(output, per_polynomial)
            for answer in range(layer.gradient_answers):
                piece = row[answer * group : (answer + 1) * group]
                place(u[answer, polynomial], np.arange(len(piece)) - slot * group, piece)
        return self._apply(payload, u, feature_blocks(layer), np.zeros(layer.features, dtype=np.int64), batch)

    def _apply(
        self, payload: Buffer, u: NDArray[np.float64], blocks: Sequence[NDArray[np.int64]], bias: Integers, batch: int
    ) -> bytes:
        """Σ_i u[j, i] · ciphertext i for every answer j, re-randomised.

        ``u``: float64[answers, polynomials, n]. ``blocks``: per answer, those that carry results; ``bias``: int64, one
        for each of them, in order.
        """
        layer = self.layer
        answers, polynomials, n = u.shape
        ciphertexts = read_encrypted(layer, payload, polynomials)
        mixing = negacyclic(u)  # [answers, n, polynomials·n]
        wanted = np.concatenate([matrix[rows] for matrix, rows in zip(mixing, blocks, strict=True)])
        bounds = np.cumsum([len(rows) for rows in blocks])[:-1]
        largest = layer.weight_limit
        c0: list[list[Residues]] = []
        c1: list[Residues] = []
        for at, q in enumerate(layer.parameters.primes):
            shape = (polynomials * n, layer.stride)
            results = multiply(wanted, ciphertexts[0][at].reshape(shape)[:, :batch], q, largest)
            add_into(results, np.repeat(scaled(bias, layer.scale * layer.rest, q)[:, None], batch, axis=1), q)
            c0.append([piece.reshape(-1) for piece in np.split(results, bounds)])
            whole = multiply(mixing.reshape(answers * n, -1), ciphertexts[1][at].reshape(shape), q, largest)
            c1.append(whole.reshape(answers, -1))
        places = [coefficients(layer, rows, batch) for rows in blocks]
        return self._answer(c1, c0, places)

    def view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        """float64[B, F] in [−1/2, 1/2): c0 where each activation stands, modulo the first prime, over the prime.

        What the server holds of each example: for leakage figures.
        """
        layer = self.layer
        c0, _ = read_encrypted(layer, payload, layer.polynomials)
        blocks = c0[0].reshape(layer.polynomials, layer.blocks, layer.stride)
        rows = blocks[:, : layer.group].reshape(-1, layer.stride)[: layer.features, :batch]
        return np.asarray(rows.T / self.layer.parameters.primes[0] - 0.5, dtype=np.float64)

    def gradient_view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        """float64[B, O]: the same of a gradient."""
        layer = self.layer
        c0, _ = read_encrypted(layer, payload, layer.gradient_polynomials)
        blocks = slot_blocks(layer, layer.gradient_group)
        pieces = [row[coefficients(layer, where, batch)] for row, where in zip(c0[0], blocks, strict=True)]
        rows = np.concatenate(pieces).reshape(-1, batch)
        return np.asarray(rows.T / layer.parameters.primes[0] - 0.5, dtype=np.float64)

    def _check_weights(self, weights: Integers) -> None:
        expected = (self.layer.outputs, self.layer.features)
        if weights.shape != expected or np.abs(weights).max(initial=0) > self.layer.weight_limit:
            raise InvalidInputError(f"weights are integers of shape {expected} within ±{self.layer.weight_limit}")

    def _answer(
        self, c1: Sequence[Residues], c0: Sequence[Sequence[Residues]], places: Sequence[NDArray[np.int64]]
    ) -> bytes:
        """Re-randomise, divide out all primes but the first, and write. ``c1``: per prime, [answers, N]."""
        layer, primes = self.layer, self.layer.parameters.primes
        bits, q = layer.parameters.prime_bits[0], primes[0]
        out1: list[bytes] = []
        out0: list[Residues] = []
        for answer, where in enumerate(places):
            zero = self._zero()
            drowning = flood(self._entropy, len(where), layer.flooding, primes)
            rows1, rows0 = [], []
            for at, prime in enumerate(primes):
                row1, row0 = np.ascontiguousarray(c1[at][answer]), np.ascontiguousarray(c0[at][answer])
                add_into(row1, zero[1, at], prime)
                add_into(row0, np.ascontiguousarray(zero[0, at][where]), prime)
                add_into(row0, drowning[at], prime)
                rows1.append(row1)
                rows0.append(row0)
            out1.append(pack(divide(rows1, primes), bits))
            out0.append(divide(rows0, primes))
        return b"".join((*out1, pack(np.concatenate(out0), q.bit_length())))
