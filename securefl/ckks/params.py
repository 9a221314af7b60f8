"""Named parameter sets and what one session of the CKKS sum is about. SPEC: protocols/ckks-sum/SPEC.md §2, §5.

Legend: N degree, q moduli, n clients, V variance proxy of sub-Gaussian noise, s statistical security of flooding,
τ coefficients released under one key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Final, TypeAlias

from securefl.ckks.lattice import Lattice
from securefl.ckks.ring import NOISE_LIMIT
from securefl.encoding.shells import ShellPacking
from securefl.errors import ConfigurationError
from securefl.machine import RoundContext, Segment, Shells, check_identity, extra_fields
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import ClientId, PartyId

__all__ = [
    "FAILURE_BITS",
    "KEY_HOLDER",
    "PARAMETER_SETS",
    "PROTOCOL",
    "Flooding",
    "Guard",
    "KeyModel",
    "ParameterSet",
    "Params",
    "Release",
    "parameter_set",
]

#: This protocol's number in the envelope.
PROTOCOL: Final = 3
#: The key holder's id on the wire; no client may have it.
KEY_HOLDER: Final = PartyId(2**32 - 1)
#: A coefficient leaves its lattice point with probability at most 2^-FAILURE_BITS where the bound is a tail bound.
FAILURE_BITS: Final = 128
#: The largest a sample of Box and Muller's method with 53-bit uniforms can be, in standard deviations.
_LARGEST_NORMAL: Final = math.sqrt(2 * 53 * math.log(2))


#: Runs a step that reads another party's bytes, by itself, and raises what that raised, or that it did not end well.
Guard: TypeAlias = Callable[[Callable[[], object]], None]


class KeyModel(Enum):
    """Who can decrypt. ``code`` is on the wire; ``trust`` is the assumption in one sentence."""

    KEY_HOLDER = (
        "key_holder",
        1,
        "clients encrypt under a public key whose secret key only the key holder has: whoever is both aggregator and "
        "key holder, or gets them to collude, reads every update",
    )
    SHARED_KEY = (
        "shared_key",
        2,
        "every client holds the one secret key: the aggregator together with any single client reads every update",
    )

    def __init__(self, label: str, code: int, trust: str) -> None:
        self.label = label
        self.code = code
        self.trust = trust


class Release(Enum):
    """To whom the sum goes. ``code`` is on the wire."""

    AGGREGATOR = ("aggregator", 1)
    KEY_HOLDER = ("key_holder", 2)

    def __init__(self, label: str, code: int) -> None:
        self.label = label
        self.code = code


@dataclass(frozen=True, slots=True)
class Flooding:
    """Noise drowned in fresh noise before a release: N(0, σ²), σ = sqrt(12 τ)·2^(s/2)·B for a worst-case bound B.

    [Li, Micciancio, Schultz, Sorrell 2022, Theorem 2], τ counted in coefficients. ``statistical_bits``: s.
    """

    statistical_bits: int

    def deviation(self, noise: int, released: int) -> float:
        """σ for noise up to ``noise`` and ``released`` coefficients per key."""
        return math.sqrt(12 * released) * math.exp2(self.statistical_bits / 2) * noise


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """One of :data:`PARAMETER_SETS`; nothing else is accepted anywhere.

    ``primes``: of the ciphertexts, the first is the one that sums are decoded under; ``special``: primes that SEAL
    keeps for keys. Secret keys are uniform ternary, noise is centered binomial of standard deviation 3.24.
    ``security``: where the total modulus stands in the table of the HomomorphicEncryption.org standard (2018), for
    classical attacks and ternary secrets. ``decryptions``: ciphertexts a key may open before it is replaced.
    """

    name: str
    code: int
    degree: int
    primes: tuple[int, ...]
    special: tuple[int, ...]
    security: str
    max_clients: int
    decryptions: int
    flooding: Flooding | None

    @property
    def prime_bits(self) -> tuple[int, ...]:
        """Bits per residue on the wire."""
        return tuple(prime.bit_length() for prime in self.primes)

    @property
    def polynomial_bytes(self) -> int:
        """Bytes of one polynomial on the wire."""
        return self.degree * sum(self.prime_bits) // 8

    @property
    def public_key_bytes(self) -> int:
        """Bytes of a public key: two polynomials over all primes."""
        return 2 * self.degree * sum(prime.bit_length() for prime in self.primes + self.special) // 8

    def noise_bound(self, model: KeyModel, clients: int) -> int:
        """The largest noise of a sum of ``clients`` fresh ciphertexts, per coefficient. SPEC §5.

        Worst case, except for ``key_holder`` without a special prime: a tail bound with probability 2^-128.
        """
        if model is KeyModel.SHARED_KEY:
            return clients * NOISE_LIMIT
        if self.special:  # fresh ciphertexts are divided by the special prime: rounding of c0 and of c1, times s
            return clients * ((self.degree + 1) // 2 + 2)
        # u·e: n·N coins of proxy 1 times |e|² <= 21 N; e1·s and e0: proxy 10.5 each coin.
        proxy = clients * (21 * self.degree + NOISE_LIMIT / 2 * (self.degree + 1))
        return math.ceil(math.sqrt(2 * proxy * math.log(2) * (FAILURE_BITS + 1)))

    def flood_deviation(self, model: KeyModel, clients: int) -> float:
        """σ of the flooding noise at the ciphertext modulus. Raises :class:`ConfigurationError` without room."""
        if self.flooding is None:
            raise ConfigurationError(
                f"parameter set {self.name} has no room for noise flooding: use n8192-q112, or release the sum to the "
                "key holder alone"
            )
        return self.flooding.deviation(self.noise_bound(model, clients), self.decryptions * self.degree)

    def decoding_bound(self, model: KeyModel, clients: int, *, flooded: bool) -> int:
        """B: the largest distance from the lattice after all but the first prime were divided out. SPEC §5.2."""
        bound = self.noise_bound(model, clients)
        if flooded:
            bound += math.ceil(self.flood_deviation(model, clients) * _LARGEST_NORMAL) + 1
        for prime in self.primes[1:]:
            bound = bound // prime + 2  # the quotient, and the rounding
        return bound


#: Primes are SEAL's: the largest of their width that are 1 modulo 2 N. 2048 / 54 bits is left out on purpose: it lies
#: on the 128-bit limit of the 2018 table and above that of the 2024 guidelines (53 bits).
PARAMETER_SETS: Final = {
    item.name: item
    for item in (
        ParameterSet(
            name="n4096-q60",
            code=1,
            degree=4096,
            primes=(1152921504606830593,),
            special=(),
            security="192-bit classical: 60 bits of modulus, at most 75 for degree 4096 (109 for 128-bit)",
            max_clients=2**16,
            decryptions=2**20,
            flooding=None,
        ),
        ParameterSet(
            name="n8192-q112",
            code=2,
            degree=8192,
            primes=(1152921504606748673, 4503599627124737),
            special=(1152921504606830593,),
            security="128-bit classical: 172 bits of modulus, at most 218 for degree 8192",
            max_clients=2**10,
            decryptions=2**17,
            flooding=Flooding(statistical_bits=40),
        ),
    )
}


def parameter_set(name: str) -> ParameterSet:
    """The set of that name. Raises :class:`ConfigurationError` listing the known ones."""
    if name not in PARAMETER_SETS:
        raise ConfigurationError(f"unknown CKKS parameter set {name!r}; there are {', '.join(PARAMETER_SETS)}")
    return PARAMETER_SETS[name]


@dataclass(frozen=True)
class Params:
    """Everything that all parties of a session must agree on.

    Fields as in :class:`~securefl.machine.RoundContext`, and: ``parameters``: the set. ``key_model``: who can decrypt.
    ``flooded``: whether the sum is flooded before it is rounded. ``release``: to whom the sum goes.

    Raises :class:`ConfigurationError` for anything that cannot work: sums that do not fit beside the noise, flooding
    that the set has no room for, too many clients.
    """

    clients: tuple[ClientId, ...]
    dimension: int
    max_value: int
    threshold: int
    session: bytes
    round: int
    model_hash: bytes
    parameters: ParameterSet
    key_model: KeyModel = KeyModel.KEY_HOLDER
    flooded: bool = False
    release: Release = Release.AGGREGATOR
    encoding: bytes = b""
    segments: tuple[Segment, ...] = ()
    shells: Shells | None = None

    def __post_init__(self) -> None:
        n = len(self.clients)
        if not 2 <= n <= self.parameters.max_clients:
            raise ConfigurationError(
                f"a CKKS sum under {self.parameters.name} needs 2 to {self.parameters.max_clients} clients, got {n}"
            )
        check_identity(self.clients, self.session, self.round, self.model_hash)
        if KEY_HOLDER in self.clients:
            raise ConfigurationError(f"client id {KEY_HOLDER} is the key holder's: use another")
        if not 2 <= self.threshold <= n:
            raise ConfigurationError(f"the threshold must be 2 to {n} (the number of clients), got {self.threshold}")
        if self.shells is not None and self.shells.minimum_holders > self.threshold:
            raise ConfigurationError(
                f"minimum_holders = {self.shells.minimum_holders} is more than the threshold, {self.threshold}: what "
                "everybody holds could stay closed"
            )
        _ = self.packing, self.lattice  # raise when the sum does not fit

    @classmethod
    def of(
        cls,
        context: RoundContext,
        parameters: ParameterSet,
        key_model: KeyModel = KeyModel.KEY_HOLDER,
        *,
        flooded: bool = False,
        release: Release = Release.AGGREGATOR,
    ) -> Params:
        """The parameters of one round of the pipeline. Raises :class:`ConfigurationError` as the constructor does."""
        return cls(
            clients=context.clients,
            dimension=context.dimension,
            max_value=context.max_value,
            threshold=context.threshold,
            session=context.session,
            round=context.round,
            model_hash=context.model_hash,
            parameters=parameters,
            key_model=key_model,
            flooded=flooded,
            release=release,
            encoding=context.encoding,
            segments=context.segments,
            shells=context.shells,
        )

    @cached_property
    def packing(self) -> ShellPacking:
        """The vector as every protection sees it; it checks the values of a client."""
        return ShellPacking.of(self.dimension, self.max_value, len(self.clients), self.segments, self.shells)

    @cached_property
    def noise_bound(self) -> int:
        """B for the whole cohort."""
        return self.parameters.decoding_bound(self.key_model, len(self.clients), flooded=self.flooded)

    @cached_property
    def lattice(self) -> Lattice:
        """Where the integers stand in the coefficients; every shell begins a ciphertext. Shells SPEC §9."""
        segments = tuple(segment for part in self.packing.parts for segment in part.segments)
        align = 1 if self.shells is None else self.parameters.degree
        return Lattice(segments, len(self.clients), self.parameters.primes[0], self.noise_bound, align)

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts of the whole vector."""
        return -(-self.lattice.coefficients // self.parameters.degree)

    def ciphertexts_of(self, tier: int) -> int:
        """Ciphertexts of a client of this tier: the first of the whole; all without shells."""
        if self.shells is None:
            return self.ciphertexts
        return -(-self.lattice.runs[tier - 1].end // self.parameters.degree)

    def opened(self, survivors: Collection[ClientId]) -> tuple[int, ...]:
        """The ciphertexts whose sums are opened over ``survivors``, ascending. Shells SPEC §4."""
        if self.shells is None:
            return tuple(range(self.ciphertexts))
        ends = [0, *(self.ciphertexts_of(tier) for tier in range(1, len(self.shells.sizes) + 1))]
        shells = self.shells.opened([self.tier(client) for client in survivors])
        return tuple(at for shell in shells for at in range(ends[shell - 1], ends[shell]))

    def counts(self, survivors: Collection[ClientId]) -> list[int]:
        """How many of ``survivors`` hold each segment of the lattice."""
        if self.shells is None:
            return [len(survivors)] * len(self.lattice.runs)
        tiers = [self.tier(client) for client in survivors]
        return [self.shells.holders(shell, tiers) for shell in range(1, len(self.shells.sizes) + 1)]

    def tier(self, client: ClientId) -> int:
        """Of an invited client; 1 without shells."""
        return 1 if self.shells is None else self._tiers[client]

    @cached_property
    def _tiers(self) -> dict[ClientId, int]:
        return {} if self.shells is None else dict(zip(self.clients, self.shells.tiers, strict=True))

    def used(self, at: int) -> int:
        """Coefficients of ciphertext ``at`` that carry values, made even: what is sent of its c0. SPEC §6.2."""
        start, end = at * self.parameters.degree, self.lattice.coefficients
        if self.shells is not None:
            end = next(run.end for run in self.lattice.runs if start < run.end)
        return min(self.parameters.degree, end - start + (end - start) % 2)

    def first_bytes(self, at: int) -> int:
        """Bytes of c0 of ciphertext ``at`` on the wire; c1 is always sent whole."""
        return self.used(at) * sum(self.parameters.prime_bits) // 8

    def vector_bytes(self, *, whole: bool, numbers: Collection[int] | None = None) -> int:
        """Bytes of the ciphertexts ``numbers`` (``None``: all): both polynomials, or c0 alone."""
        chosen = range(self.ciphertexts) if numbers is None else numbers
        return sum(map(self.first_bytes, chosen)) + (len(chosen) * self.parameters.polynomial_bytes if whole else 0)

    @cached_property
    def multiplier(self) -> int:
        """What a coefficient is multiplied with before encryption: Δ times the primes that decoding divides out."""
        return self.lattice.scale * math.prod(self.parameters.primes[1:])

    @cached_property
    def context_hash(self) -> bytes:
        """32 bytes over every field: it enters every frame and every signature. SPEC §6.1."""
        return tuple_hash(
            Label.CONTEXT,
            b"ckks",
            self.session,
            self.round.to_bytes(4, "big"),
            bytes([self.parameters.code, self.key_model.code, self.flooded, self.release.code]),
            self.threshold.to_bytes(4, "big"),
            self.dimension.to_bytes(8, "big"),
            self.max_value.to_bytes(8, "big"),
            b"".join(i.to_bytes(4, "big") for i in self.clients),
            self.model_hash,
            *extra_fields(self.segments, self.encoding, self.shells),
        )

    def __contains__(self, client: object) -> bool:
        return client in self._clients

    @cached_property
    def _clients(self) -> frozenset[ClientId]:
        return frozenset(self.clients)
