"""What one session of the n-of-n sum is about, its bounds, its security. SPEC: protocols/ckks-threshold/SPEC.md §2, §9.

Legend: n invited clients, N degree, B bound on the noise of a summed ciphertext, C coefficients that shares reveal,
f exponent of the flooding noise (uniform on [−2^f, 2^f) per coefficient and party), ε bound on what is left of all
noise after 80 bits are dropped, δ exponent of the lattice's distance, s bits of statistical security.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from securefl.ckks.ring import NOISE_LIMIT
from securefl.ckks.threshold.digits import PLAIN_BITS, Run, read, write
from securefl.ckks.threshold.wide import COEFFICIENT_BYTES, DEGREE, DROPPED_BITS, Words
from securefl.encoding.packing import Packing
from securefl.errors import ConfigurationError
from securefl.machine import RoundContext, Segment, check_identity, extra_fields
from securefl.primitives.identity import Directory
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import ClientId, IntegerVector

__all__ = [
    "DEFAULT_STATISTICAL_BITS",
    "MAX_CIPHERTEXTS",
    "MAX_CLIENTS",
    "MIN_STATISTICAL_BITS",
    "PROTOCOL",
    "SECURITY",
    "SHARE_BYTES",
    "ThresholdParams",
    "require_keys",
]

#: This protocol's number in the envelope.
PROTOCOL: Final = 7
#: Every party must stay for the whole session, and sums of limbs must fit 32 bits.
MAX_CLIENTS: Final = 64
#: Ciphertexts that one key may ever open; a key serves one sum.
MAX_CIPHERTEXTS: Final = 2**12
MIN_STATISTICAL_BITS: Final = 30
DEFAULT_STATISTICAL_BITS: Final = 40
#: Bytes of a coefficient of c0, and of a decryption share.
SHARE_BYTES: Final = (PLAIN_BITS + 7) // 8
#: What two words of a stream can give, and what leaves the lattice's distance below 2^60.
_MIN_FLOOD_BITS: Final = 64
_MAX_FLOOD_BITS: Final = 120

#: Where the one parameter set stands.
SECURITY: Final = (
    "ring-LWE, N = 8192, q = 2^208, uniform ternary secrets, centered binomial noise of deviation 3.24: 128-bit "
    "classical (208 bits of modulus, at most 218 in the HomomorphicEncryption.org standard of 2018)"
)


@dataclass(frozen=True)
class ThresholdParams:
    """Everything that all parties of a session must agree on.

    Fields as in :class:`~securefl.machine.RoundContext`. ``statistical_bits``: the least statistical security of the
    decryption shares; what room is left over is used for more (:attr:`achieved_bits`).

    Raises :class:`ConfigurationError` for anything that cannot work: fewer than 30 statistical bits, sums that do not
    fit beside the flooding noise, more ciphertexts than one key may open.
    """

    clients: tuple[ClientId, ...]
    dimension: int
    max_value: int
    threshold: int
    session: bytes = b"session"
    round: int = 0
    model_hash: bytes = bytes(32)
    statistical_bits: int = DEFAULT_STATISTICAL_BITS
    encoding: bytes = b""
    segments: tuple[Segment, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.clients)
        if not 2 <= n <= MAX_CLIENTS:
            raise ConfigurationError(f"the threshold key model takes 2 to {MAX_CLIENTS} clients, got {n}")
        check_identity(self.clients, self.session, self.round, self.model_hash)
        if not 2 <= self.threshold <= n:
            raise ConfigurationError(f"the threshold must be 2 to {n} (the number of clients), got {self.threshold}")
        if self.statistical_bits < MIN_STATISTICAL_BITS:
            raise ConfigurationError(
                f"decryption shares need at least {MIN_STATISTICAL_BITS} bits of statistical security, "
                f"got {self.statistical_bits}: fewer would release what the noise must hide"
            )
        if self.ciphertexts > MAX_CIPHERTEXTS:
            raise ConfigurationError(
                f"{self.dimension} integers take {self.ciphertexts} ciphertexts; one key may open at most "
                f"{MAX_CIPHERTEXTS}: sum the vector in parts, each a session of its own"
            )

    @classmethod
    def of(cls, context: RoundContext, statistical_bits: int = DEFAULT_STATISTICAL_BITS) -> ThresholdParams:
        """The parameters of one round of the pipeline. Raises :class:`ConfigurationError` as the constructor does."""
        if context.shells is not None:
            raise ConfigurationError(
                "the threshold key model has no shells: use another key_model, or protect = masked, for tiers"
            )
        return cls(
            clients=context.clients,
            dimension=context.dimension,
            max_value=context.max_value,
            threshold=context.threshold,
            session=context.session,
            round=context.round,
            model_hash=context.model_hash,
            statistical_bits=statistical_bits,
            encoding=context.encoding,
            segments=context.segments,
        )

    # ---- bounds ---------------------------------------------------------------------------------------------

    @property
    def noise_bound(self) -> int:
        """B = 42 N n² + 21 n, for any choice of the coins: Σ_j (e·u_j + e0_j + e1_j·s), |e_i|, |e0|, |e1| <= 21.

        |u_j| and |s_i| are at most 1 in every coefficient.
        """
        n = len(self.clients)
        return n * (2 * NOISE_LIMIT * DEGREE * n + NOISE_LIMIT)

    def _residue(self, flood_bits: int) -> int:
        """ε for floods of 2^flood_bits: n roundings of c0 and n of shares by 1/2, and the noise over 2^80."""
        n = len(self.clients)
        return n - (-(n * (1 << flood_bits) + self.noise_bound) // (1 << DROPPED_BITS))

    def _least_flood(self, coefficients: int, statistical_bits: int) -> int:
        """The smallest f with C·B / 2^(f+1) <= 2^-s."""
        least = (coefficients * self.noise_bound - 1).bit_length() + statistical_bits - 1
        if least > _MAX_FLOOD_BITS:
            raise ConfigurationError(
                f"{statistical_bits} bits of statistical security need flooding of 2^{least}; at most "
                f"2^{_MAX_FLOOD_BITS} fits: ask for fewer bits, or sum fewer integers"
            )
        return max(_MIN_FLOOD_BITS, least)

    @cached_property
    def _layout(self) -> tuple[tuple[Run, ...], int, int]:
        """The runs, δ and f: the fewest coefficients, then the most flooding that leaves them as they are."""
        coefficients = self.dimension
        while True:
            flood = self._least_flood(coefficients, self.statistical_bits)
            shift = (4 * self._residue(flood) - 1).bit_length()
            runs = self._runs(PLAIN_BITS - shift)
            needed = sum(run.coefficients for run in runs)
            if needed == coefficients:
                break
            coefficients = needed
        room = min((1 << PLAIN_BITS) // run.base**run.digits for run in runs).bit_length() - 1
        shift = min(room, 60)
        while flood < _MAX_FLOOD_BITS and 4 * self._residue(flood + 1) <= 1 << shift:
            flood += 1
        return runs, shift, flood

    def _runs(self, bits: int) -> tuple[Run, ...]:
        runs, value, coefficient = [], 0, 0
        for part in self.packing.segments:
            base = len(self.clients) * part.max_value + 1
            digits = 0
            while base ** (digits + 1) <= 1 << max(bits, 0) and digits < part.size:
                digits += 1
            if not digits or base > 1 << 56:
                raise ConfigurationError(
                    f"sums of {len(self.clients)} integers up to {part.max_value} do not fit beside "
                    f"{self.statistical_bits} bits of flooding: use fewer value bits or fewer clients"
                )
            run = Run(part.size, part.max_value, base, digits, value, coefficient)
            runs.append(run)
            value, coefficient = value + part.size, coefficient + run.coefficients
        return tuple(runs)

    @property
    def flood_bits(self) -> int:
        """The exponent f."""
        return self._layout[2]

    @property
    def shift(self) -> int:
        """The exponent δ."""
        return self._layout[1]

    @property
    def residue_bound(self) -> int:
        """ε."""
        return self._residue(self.flood_bits)

    @property
    def achieved_bits(self) -> float:
        """s: −log2 of the statistical distance between one party's shares of a session and their simulation."""
        return self.flood_bits + 1 - math.log2(self.coefficients * self.noise_bound)

    # ---- layout ---------------------------------------------------------------------------------------------

    @cached_property
    def packing(self) -> Packing:
        """The segments as every protection sees them; it checks the values of a client."""
        return Packing.of(self.dimension, self.max_value, len(self.clients), self.segments)

    @property
    def runs(self) -> tuple[Run, ...]:
        """One per segment."""
        return self._layout[0]

    @cached_property
    def coefficients(self) -> int:
        """C."""
        return sum(run.coefficients for run in self.runs)

    @property
    def ciphertexts(self) -> int:
        """Ciphertexts per client; of the last, only the coefficients in use of c0 and of the shares travel."""
        return -(-self.coefficients // DEGREE)

    @property
    def input_bytes(self) -> int:
        """Bytes of one client's ciphertexts."""
        return SHARE_BYTES * self.coefficients + COEFFICIENT_BYTES * DEGREE * self.ciphertexts

    def encode(self, values: IntegerVector) -> Words:
        """uint64[2, coefficients]: the plaintext; :attr:`packing` has checked the values."""
        out = np.empty((2, self.coefficients), dtype=np.uint64)
        for run in self.runs:
            write(run, values, out, self.shift)
        return out

    def decode(self, opened: Words, clients: int) -> IntegerVector:
        """uint64[dimension]: the sums over ``clients`` clients. Raises :class:`~securefl.errors.DecodeError`."""
        out = np.empty(self.dimension, dtype=np.uint64)
        for run in self.runs:
            read(run, opened, out, self.shift, self.residue_bound, clients)
        return out

    # ---- identity -------------------------------------------------------------------------------------------

    @cached_property
    def context_hash(self) -> bytes:
        """32 bytes over every field. SPEC §2."""
        return tuple_hash(
            Label.CONTEXT,
            b"ckks-threshold",
            self.session,
            self.round.to_bytes(4, "big"),
            self.threshold.to_bytes(4, "big"),
            self.statistical_bits.to_bytes(4, "big"),
            self.dimension.to_bytes(8, "big"),
            self.max_value.to_bytes(8, "big"),
            b"".join(client.to_bytes(4, "big") for client in self.clients),
            self.model_hash,
            *extra_fields(self.segments, self.encoding),
        )

    def attempt_hash(self, attempt: int, clients: tuple[ClientId, ...]) -> bytes:
        """32 bytes that name one attempt, of those clients, under fresh keys: in its frames, keys and signatures."""
        members = b"".join(client.to_bytes(4, "big") for client in clients)
        return tuple_hash(Label.THRESHOLD_ATTEMPT, self.context_hash, attempt.to_bytes(4, "big"), members)

    def __contains__(self, client: object) -> bool:
        return client in self._clients

    @cached_property
    def _clients(self) -> frozenset[ClientId]:
        return frozenset(self.clients)


def require_keys(params: ThresholdParams, directory: Directory) -> None:
    """Raises :class:`ConfigurationError` unless the directory has a key of every client, all different."""
    missing = [client for client in params.clients if client not in directory.keys]
    if missing or len({directory.keys[client] for client in params.clients}) != len(params.clients):
        raise ConfigurationError(f"the directory needs one public key per invited client; without: {missing}")
