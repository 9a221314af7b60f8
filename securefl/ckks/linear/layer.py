"""What both sides of an encrypted linear layer agree on: its integers, its packing, its noise, its sizes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.params import KeyModel, ParameterSet
from securefl.ckks.ring import NOISE_LIMIT
from securefl.errors import ConfigurationError
from securefl.primitives.prg import KEY_BYTES

__all__ = ["Integers", "LinearLayer"]

Integers: TypeAlias = NDArray[np.int64]

_LEAST_STRIDE: Final = 32


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
    def rest(self) -> int:
        """What is divided out of an answer."""
        return math.prod(self.parameters.primes[1:])

    @property
    def _fixed_noise(self) -> int:
        """The largest noise of an answer without flooding, under the first prime."""
        rounding = (self.parameters.degree + 1) // 2 + 2 if self.rest > 1 else 0
        return (self.product_noise + self._zero_noise) // self.rest + 1 + rounding

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
        return self.product_noise / (2.0 * self.flooding * self.rest)

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
