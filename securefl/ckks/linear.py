"""A linear layer on ciphertexts: z = W a + b forward, Wᵀ dz backward, in exact integers.

Legend: B examples, F features, O outputs, N degree, S = stride, the power of two >= max(B, 32), n = N / S blocks.

Coefficient j·S + b of a polynomial belongs to block j and example b. Forward, a polynomial holds g features, and an
answer k = ⌊n / g⌋ outputs; backward, an answer holds g' features and a polynomial h = ⌊n / g'⌋ outputs' gradients:

    forward    a(X) has feature f in block f,       w(X) = Σ_t Σ_f W[o_t, f] X^((t g − f) S):   W a of o_t in block t g
    backward   dz(X) has output c_t in block t g',  w(X) = Σ_t Σ_f W[c_t, f] X^((f − t g') S):  Wᵀ dz of f in block f

No other product reaches those blocks, since |f − f'| < g. So the server needs no rotation and no evaluation key: along
the blocks a product with w(X) is a negacyclic convolution, hence a product of integer matrices, done exactly in double
precision on limbs of 30 bits. g and g' are those with the fewest bytes on the wire.

The client encrypts symmetrically, c1 expanded from a seed. The server's answer is **re-randomised** so that it tells
the client no more about W than z itself: a fresh public-key encryption of zero makes c1 independent of W, uniform noise
drowns the products of W with the client's own noise (:attr:`LinearLayer.weight_distance`), and of c0 only the
coefficients that carry z are sent. Then all primes but the first are divided out.

Results are decoded by rounding to a lattice whose distance exceeds twice the worst-case noise: they are *equal* to the
integer product. An answer off the lattice (another key, a damaged ciphertext) raises. SPEC: protocols/split/SPEC.md §5.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.backend import KeyPair, engine
from securefl.ckks.params import KeyModel, ParameterSet
from securefl.ckks.ring import NOISE_LIMIT, Multiplier, Residues, add_into, centered, lift, noise, scaled, uniform
from securefl.errors import AuthenticationError, ConfigurationError, DecodeError, InvalidInputError
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.prg import KEY_BYTES, Keystream
from securefl.wire import Buffer

__all__ = ["LinearClient", "LinearLayer", "LinearServer"]

Integers = NDArray[np.int64]

_LEAST_STRIDE: Final = 32
_LIMB_BITS: Final = 30


@dataclass(frozen=True)
class LinearLayer:
    """What both sides agree on. ``parameters``: the ring. ``features``, ``outputs``: F and O. ``max_batch``: of B.

    ``activation_bits``, ``weight_bits``, ``gradient_bits``: signed widths of the integers; activations lie within
    ±:attr:`activation_limit`, and so on. ``max_bias``: see :attr:`result_limit`.
    Raises :class:`ConfigurationError` when the products do not fit beside the noise, or a batch in a polynomial.
    """

    parameters: ParameterSet
    features: int
    outputs: int
    max_batch: int
    activation_bits: int = 12
    weight_bits: int = 14
    gradient_bits: int = 16

    def __post_init__(self) -> None:
        if min(self.features, self.outputs, self.max_batch) < 1:
            raise ConfigurationError("a linear layer has features, outputs and a batch of at least 1")
        for name in ("activation_bits", "weight_bits", "gradient_bits"):
            if not 2 <= getattr(self, name) <= 20:
                raise ConfigurationError(f"{name} lies within 2 to 20, not {getattr(self, name)}")
        if len(self.parameters.primes) > 2:
            raise ConfigurationError("encrypted linear layers are made for one or two primes")
        if self.stride > self.parameters.degree:
            raise ConfigurationError(
                f"a batch of {self.max_batch} does not fit the {self.parameters.degree} coefficients of "
                f"{self.parameters.name}: lower batch_size"
            )
        if self.scale <= 4 * self._fixed_noise:
            raise ConfigurationError(
                f"{self.features} x {self.outputs} with {self.activation_bits}, {self.weight_bits} and "
                f"{self.gradient_bits} bits does not fit {self.parameters.name} beside the noise: use fewer bits or "
                "a wider parameter set"
            )

    # ---- integers

    @property
    def activation_limit(self) -> int:
        """The largest magnitude of an activation's integer."""
        return int(2 ** (self.activation_bits - 1)) - 1

    @property
    def weight_limit(self) -> int:
        """The largest magnitude of a weight's integer."""
        return int(2 ** (self.weight_bits - 1)) - 1

    @property
    def gradient_limit(self) -> int:
        """The largest magnitude of a gradient's integer."""
        return int(2 ** (self.gradient_bits - 1)) - 1

    @property
    def result_limit(self) -> int:
        """The largest magnitude of a result: twice the largest Σ W a, so that a bias of that size fits, or Σ W dz."""
        forward = 2 * self.features * self.activation_limit * self.weight_limit
        return max(forward, self.outputs * self.gradient_limit * self.weight_limit)

    # ---- packing

    @property
    def stride(self) -> int:
        """S: coefficients per feature."""
        return max(_LEAST_STRIDE, 1 << (self.max_batch - 1).bit_length())

    @property
    def blocks(self) -> int:
        """n: features per polynomial."""
        return self.parameters.degree // self.stride

    @cached_property
    def group(self) -> int:
        """g: features per polynomial of activations, and blocks between two outputs of an answer."""
        return self._best(lambda g: (-(-self.features // g), -(-self.outputs // (self.blocks // g))))

    @cached_property
    def gradient_group(self) -> int:
        """g': features per answer of gradients, and blocks between two outputs' gradients in a polynomial."""
        return self._best(lambda g: (-(-self.outputs // (self.blocks // g)), -(-self.features // g)))

    def _best(self, counts: Callable[[int], tuple[int, int]]) -> int:
        def cost(group: int) -> tuple[int, int]:
            up, down = counts(group)
            answer = self.parameters.degree * self.parameters.prime_bits[0] // 8
            return up * (KEY_BYTES + self._wide_bytes) + down * answer, down

        return min(range(1, min(self.blocks, self.features) + 1), key=cost)

    @property
    def polynomials(self) -> int:
        """Polynomials for all activations."""
        return -(-self.features // self.group)

    @property
    def output_answers(self) -> int:
        """Answers for all outputs."""
        return -(-self.outputs // (self.blocks // self.group))

    @property
    def gradient_polynomials(self) -> int:
        """Polynomials for all outputs' gradients."""
        return -(-self.outputs // (self.blocks // self.gradient_group))

    @property
    def gradient_answers(self) -> int:
        """Answers for all features' gradients."""
        return -(-self.features // self.gradient_group)

    # ---- noise, at the ciphertext modulus unless said otherwise

    @cached_property
    def product_noise(self) -> int:
        """E: the largest Σ |W| |e| in a coefficient of an answer, which the flooding drowns."""
        return self.weight_limit * NOISE_LIMIT * self.blocks * max(self.polynomials, self.gradient_polynomials)

    @property
    def _zero_noise(self) -> int:
        return self.parameters.noise_bound(KeyModel.KEY_HOLDER, 1)

    @property
    def _rest(self) -> int:
        """What is divided out of an answer."""
        return math.prod(self.parameters.primes[1:])

    @property
    def _fixed_noise(self) -> int:
        """The largest noise of an answer without flooding, under the first prime."""
        rounding = (self.parameters.degree + 1) // 2 + 2 if self._rest > 1 else 0
        return (self.product_noise + self._zero_noise) // self._rest + 1 + rounding

    @property
    def scale(self) -> int:
        """Δ: the distance of lattice points under the first prime; a power of two."""
        return 1 << ((self.parameters.primes[0] // 2) // (self.result_limit + 1)).bit_length() - 1

    @property
    def flooding(self) -> int:
        """K: the noise added to an answer is uniform on [−K·R, K·R), with R the product of the primes divided out.

        A quarter of the lattice's distance: twice the noise stays below it, with room to tell a wrong key.
        """
        return self.scale // 4 - self._fixed_noise // 2

    @property
    def noise_limit(self) -> int:
        """The largest distance of an honest answer from the lattice, under the first prime; below Δ/2."""
        return self.flooding + 1 + self._fixed_noise

    @property
    def weight_distance(self) -> float:
        """Statistical distance per coefficient sent between an answer's noise and noise that does not depend on W."""
        return self.product_noise / (2.0 * self.flooding * self._rest)

    # ---- sizes

    @property
    def _wide_bytes(self) -> int:
        return self.parameters.polynomial_bytes

    def encrypted_bytes(self, polynomials: int) -> int:
        """Bytes of seeded ciphertexts."""
        return polynomials * (KEY_BYTES + self._wide_bytes)

    def answer_bytes(self, polynomials: int, coefficients: int) -> int:
        """Bytes of answers: a whole c1 each, and ``coefficients`` of c0 altogether."""
        bits = self.parameters.prime_bits[0]
        return polynomials * self.parameters.degree * bits // 8 + -(-coefficients * bits // 8)

    @property
    def public_key_bytes(self) -> int:
        """Bytes of the client's public key."""
        return self.parameters.public_key_bytes


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
            _pack(self._public[part, at], q.bit_length()) for part in range(2) for at, q in enumerate(moduli)
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
        for polynomial, rows in enumerate(_slot_blocks(layer, layer.gradient_group)):
            piece = integers.T[first : first + len(rows)]
            whole[polynomial, _coefficients(layer, rows, len(integers))] = piece.reshape(-1)
            first += len(rows)
        return self._encrypt(whole)

    def decrypt_outputs(self, answer: Buffer, batch: int) -> Integers:
        """int64[B, O]: W a + b, exactly. Raises :class:`DecodeError` and :class:`AuthenticationError`."""
        return self._decrypt(answer, _slot_blocks(self.layer, self.layer.group), batch)

    def decrypt_input_gradient(self, answer: Buffer, batch: int) -> Integers:
        """int64[B, F]: Wᵀ dz, exactly. Raises :class:`DecodeError` and :class:`AuthenticationError`."""
        return self._decrypt(answer, _feature_blocks(self.layer), batch)

    def _decrypt(self, answer: Buffer, blocks: Sequence[NDArray[np.int64]], batch: int) -> Integers:
        places = [_coefficients(self.layer, rows, batch) for rows in blocks]
        c1, c0 = _read_answer(self.layer, answer, len(places), sum(map(len, places)))
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
                product = self._secret.times(_expand(seed, at, degree, q), q)
                c0 = lift(error, q)
                add_into(c0, scaled(row, layer.scale * layer._rest, q), q)
                np.add(c0, np.uint64(q) - product, out=c0)
                np.minimum(c0, c0 - np.uint64(q), out=c0)
                pieces.append(_pack(c0, q.bit_length()))
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
                key[part, prime] = _unpack(view[at : at + size], layer.parameters.degree, q)
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
                _place(u[answer, polynomial], slot * group - np.arange(len(piece)), piece)
        return self._apply(payload, u, _slot_blocks(layer, group), bias, batch)

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
                _place(u[answer, polynomial], np.arange(len(piece)) - slot * group, piece)
        return self._apply(payload, u, _feature_blocks(layer), np.zeros(layer.features, dtype=np.int64), batch)

    def _apply(
        self, payload: Buffer, u: NDArray[np.float64], blocks: Sequence[NDArray[np.int64]], bias: Integers, batch: int
    ) -> bytes:
        """Σ_i u[j, i] · ciphertext i for every answer j, re-randomised.

        ``u``: float64[answers, polynomials, n]. ``blocks``: per answer, those that carry results; ``bias``: int64, one
        for each of them, in order.
        """
        layer = self.layer
        answers, polynomials, n = u.shape
        ciphertexts = _read_encrypted(layer, payload, polynomials)
        mixing = _negacyclic(u)  # [answers, n, polynomials·n]
        wanted = np.concatenate([matrix[rows] for matrix, rows in zip(mixing, blocks, strict=True)])
        bounds = np.cumsum([len(rows) for rows in blocks])[:-1]
        largest = layer.weight_limit
        c0: list[list[Residues]] = []
        c1: list[Residues] = []
        for at, q in enumerate(layer.parameters.primes):
            shape = (polynomials * n, layer.stride)
            results = _multiply(wanted, ciphertexts[0][at].reshape(shape)[:, :batch], q, largest)
            add_into(results, np.repeat(scaled(bias, layer.scale * layer._rest, q)[:, None], batch, axis=1), q)
            c0.append([piece.reshape(-1) for piece in np.split(results, bounds)])
            whole = _multiply(mixing.reshape(answers * n, -1), ciphertexts[1][at].reshape(shape), q, largest)
            c1.append(whole.reshape(answers, -1))
        places = [_coefficients(layer, rows, batch) for rows in blocks]
        return self._answer(c1, c0, places)

    def view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        """float64[B, F] in [−1/2, 1/2): c0 where each activation stands, modulo the first prime, over the prime.

        What the server holds of each example: for leakage figures.
        """
        layer = self.layer
        c0, _ = _read_encrypted(layer, payload, layer.polynomials)
        blocks = c0[0].reshape(layer.polynomials, layer.blocks, layer.stride)
        rows = blocks[:, : layer.group].reshape(-1, layer.stride)[: layer.features, :batch]
        return np.asarray(rows.T / self.layer.parameters.primes[0] - 0.5, dtype=np.float64)

    def gradient_view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        """float64[B, O]: the same of a gradient."""
        layer = self.layer
        c0, _ = _read_encrypted(layer, payload, layer.gradient_polynomials)
        blocks = _slot_blocks(layer, layer.gradient_group)
        pieces = [row[_coefficients(layer, where, batch)] for row, where in zip(c0[0], blocks, strict=True)]
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
            flood = _flood(self._entropy, len(where), layer.flooding, primes)
            rows1, rows0 = [], []
            for at, prime in enumerate(primes):
                row1, row0 = np.ascontiguousarray(c1[at][answer]), np.ascontiguousarray(c0[at][answer])
                add_into(row1, zero[1, at], prime)
                add_into(row0, np.ascontiguousarray(zero[0, at][where]), prime)
                add_into(row0, flood[at], prime)
                rows1.append(row1)
                rows0.append(row0)
            out1.append(_pack(_divide(rows1, primes), bits))
            out0.append(_divide(rows0, primes))
        return b"".join((*out1, _pack(np.concatenate(out0), q.bit_length())))


# ---- arithmetic


def _multiply(matrix: NDArray[np.float64], values: Residues, q: int, largest: int) -> Residues:
    """Matrix @ values mod q: uint64[r, m] from float64[r, k], integers within ±``largest``, and uint64[k, m]; exact.

    Two limbs of 30 bits; as many columns of the matrix at once as keep every sum below 2^53, so BLAS rounds nothing.
    """
    signed = centered(np.ascontiguousarray(values), q)
    low = ((signed + (1 << (_LIMB_BITS - 1))) & ((1 << _LIMB_BITS) - 1)) - (1 << (_LIMB_BITS - 1))
    limbs = low.astype(np.float64), ((signed - low) >> _LIMB_BITS).astype(np.float64)
    columns = 2**53 // (2 ** (_LIMB_BITS - 1) * largest) - 1
    total = np.zeros((len(matrix), values.shape[1]), dtype=np.uint64)
    for first in range(0, matrix.shape[1], columns):
        part = slice(first, first + columns)
        lower, upper = ((matrix[:, part] @ limb[part]).astype(np.int64) for limb in limbs)
        add_into(total, lift(lower, q), q)
        add_into(total, scaled(upper, 1 << _LIMB_BITS, q), q)
    return total


def _place(u: NDArray[np.float64], exponents: NDArray[np.int64], values: Integers) -> None:
    """Add Σ values·X^(exponents·S) to a vector of blocks; X^N = −1, so a negative exponent wraps with its sign."""
    np.add.at(u, exponents % len(u), np.where(exponents < 0, -values, values).astype(np.float64))


def _negacyclic(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrices of multiplication by Σ_e u_e X^(e S) along the blocks, side by side for all polynomials:
    float64[answers, n, polynomials·n] from float64[answers, polynomials, n].
    """
    answers, polynomials, n = u.shape
    # row k, column j holds u_(k − j), with the other sign below zero: windows of (−u, u) laid end to end
    doubled = np.concatenate((-u, u), axis=2)[:, :, ::-1]
    windows = np.lib.stride_tricks.sliding_window_view(doubled, n, axis=2)[:, :, :n][:, :, ::-1]
    return np.ascontiguousarray(windows.transpose(0, 2, 1, 3)).reshape(answers, n, polynomials * n)


def _divide(rows: Sequence[Residues], primes: Sequence[int]) -> Residues:
    """round(x / p₁) modulo p₀ from x modulo p₀ and p₁; x itself where there is one prime."""
    if len(rows) == 1:
        return rows[0]
    first, second = primes
    rest = centered(rows[1], second)
    difference = rows[0].copy()
    add_into(difference, lift(-rest, first), first)
    return scaled(centered(difference, first), pow(second, -1, first), first)


def _flood(entropy: Entropy, count: int, most: int, primes: Sequence[int]) -> list[Residues]:
    """Uniform integers on [−most·R, most·R), R the second prime or 1, modulo each prime."""
    words = np.empty(count + count % 2, dtype=np.uint64)
    Keystream(entropy.token(KEY_BYTES)).fill(words)
    # 64 bits to a range below 2^34, in double: its steps are unequal by 2^-19 of one at most, where R = 1 and the bound
    # itself is far larger; where there is a second prime, the part below it is exactly uniform
    high = np.floor(words[:count].astype(np.float64) * 2.0**-64 * (2 * most)).astype(np.int64) - most
    np.minimum(high, most - 1, out=high)
    if len(primes) == 1:
        return [lift(high, primes[0])]
    first, second = primes
    low = uniform(entropy.token(KEY_BYTES), count + count % 2, second)[:count]
    upper = scaled(high, second, first)
    add_into(upper, lift(low.view(np.int64), first), first)
    return [upper, low]


# ---- bytes


def _expand(seed: bytes, at: int, degree: int, q: int) -> Residues:
    """c1 of a seeded ciphertext modulo its ``at``-th prime: the stream of the seed with its last byte changed."""
    return uniform(seed[:-1] + bytes([seed[-1] ^ at]), degree, q)


def _pack(residues: Residues, bits: int) -> bytes:
    """Little-endian bit string, ``bits`` per residue."""
    flat = np.ascontiguousarray(residues, dtype="<u8")
    each = np.unpackbits(flat.view(np.uint8).reshape(-1, 8), axis=1, bitorder="little")[:, :bits]
    return np.packbits(each, bitorder="little").tobytes()


def _unpack(data: Buffer, count: int, q: int) -> Residues:
    """The inverse of :func:`_pack`. Raises :class:`DecodeError` for residues that are not below q."""
    bits = q.bit_length()
    each = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little", count=count * bits).reshape(count, bits)
    whole = np.zeros((count, 64), dtype=np.uint8)
    whole[:, :bits] = each
    values = np.packbits(whole, axis=1, bitorder="little").reshape(-1).view("<u8").astype(np.uint64)
    if values.max(initial=0) >= q:
        raise DecodeError("a residue is not below its prime")
    return values


def _read_encrypted(layer: LinearLayer, payload: Buffer, polynomials: int) -> tuple[list[Residues], list[Residues]]:
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
            c0[prime][row] = _unpack(view[at : at + size], degree, q)
            c1[prime][row] = _expand(seed, prime, degree, q)
            at += size
    return c0, c1


def _read_answer(layer: LinearLayer, answer: Buffer, polynomials: int, coefficients: int) -> tuple[Residues, Residues]:
    view = memoryview(answer)
    if view.nbytes != layer.answer_bytes(polynomials, coefficients):
        raise DecodeError(f"this answer has {layer.answer_bytes(polynomials, coefficients)} bytes")
    degree, q = layer.parameters.degree, layer.parameters.primes[0]
    split = polynomials * degree * q.bit_length() // 8
    return _unpack(view[:split], polynomials * degree, q).reshape(polynomials, degree), _unpack(
        view[split:], coefficients, q
    )


def _coefficients(layer: LinearLayer, blocks: NDArray[np.int64], batch: int) -> NDArray[np.int64]:
    """The coefficients of blocks: one block after the other, the batch inside."""
    return np.asarray((blocks[:, None] * layer.stride + np.arange(batch)).reshape(-1))


def _feature_blocks(layer: LinearLayer) -> list[NDArray[np.int64]]:
    """Per answer of gradients, the blocks that carry features."""
    group, features = layer.gradient_group, layer.features
    return [np.arange(min(group, features - first)) for first in range(0, features, group)]


def _slot_blocks(layer: LinearLayer, group: int) -> list[NDArray[np.int64]]:
    """Per polynomial, the blocks that carry outputs: every ``group``-th."""
    each, outputs = layer.blocks // group, layer.outputs
    return [np.arange(min(each, outputs - first)) * group for first in range(0, outputs, each)]


def _check(integers: Integers, most: tuple[int, int], limit: int, what: str) -> None:
    if integers.ndim != 2 or integers.dtype != np.int64 or integers.shape[1] != most[1] or not len(integers):
        raise InvalidInputError(f"{what} are int64[batch, {most[1]}], not {integers.dtype} {integers.shape}")
    if len(integers) > most[0]:
        raise InvalidInputError(
            f"a batch of {len(integers)} examples is larger than the packing of {most[0]}: split it"
        )
    if np.abs(integers).max() > limit:
        raise InvalidInputError(f"{what} lie within ±{limit} on the grid: clamp them, or declare a larger range")
