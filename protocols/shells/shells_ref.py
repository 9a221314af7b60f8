"""Reference for protocols/shells/SPEC.md: masked sums of nested shells, for honest parties.

Clarity before speed; shares no code with securefl/. What it does not say is as in secagg_ref. Legend: K shells, d_k
integers of shell k (k = 1 … K), t_i the tier of client i, q the least number of holders, b_i^k the self-mask seed of
client i for shell k, m_ij the secret of a pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from encoding_ref import EncodingError, lane_sizes, pack, unpack
from primitives_ref import SUITES, derive, stream, tuple_hash
from secagg_ref import LABEL, Fault, Params, add, key, u32


@dataclass(frozen=True)
class ShellParams(Params):
    """SPEC §2: the parameters of a masked sum, and the shells."""

    sizes: tuple[int, ...] = ()
    tiers: tuple[int, ...] = ()
    minimum_holders: int = 2

    @cached_property
    def context(self) -> bytes:
        """C, SPEC §2."""
        modes = bytes([SUITES[self.suite][0], 1, 1])
        numbers = [u32(self.threshold), self.dimension.to_bytes(8, "big"), self.max_value.to_bytes(8, "big")]
        ids = b"".join(map(u32, self.clients))
        sizes = b"".join(size.to_bytes(8, "big") for size in self.sizes)
        shells = u32(self.minimum_holders) + bytes([len(self.sizes)]) + sizes + bytes(self.tiers)
        fields = [b"secagg", self.session, u32(self.round), modes, *numbers, ids, self.model_hash]
        return tuple_hash("securefl/v1/context", *fields, b"", self.encoding, shells)

    def tier(self, client: int) -> int:
        return self.tiers[self.clients.index(client)]

    def holders(self, shell: int) -> list[int]:
        return [client for client in self.clients if self.tier(client) >= shell]

    def lane(self, shell: int) -> tuple[int, int, int]:
        """``(integers, largest integer, clients)`` of a shell: headroom is for its holders. SPEC §3."""
        return self.sizes[shell - 1], self.max_value, max(1, len(self.holders(shell)))

    def words(self, tier: int) -> int:
        return sum(lane_sizes(*self.lane(shell))[2] for shell in range(1, tier + 1))


def check(p: ShellParams) -> None:
    """The refusals of SPEC §2 beyond those of secagg."""
    fine = (
        1 <= len(p.sizes) <= 255
        and min(p.sizes) >= 1
        and sum(p.sizes) == p.dimension
        and len(p.tiers) == len(p.clients)
        and all(1 <= tier <= len(p.sizes) for tier in p.tiers)
        and 2 <= p.minimum_holders <= p.threshold
    )
    if not fine:
        raise Fault("ConfigurationError", "shells that cannot work")
    try:
        for shell in range(1, len(p.sizes) + 1):
            lane_sizes(*p.lane(shell))
    except EncodingError as error:
        raise Fault("ConfigurationError", str(error)) from None


def opened(p: ShellParams, survivors: list[int]) -> list[int]:
    """SPEC §4: the shells whose sums are opened over these survivors."""
    result: list[int] = []
    last: set[int] = set()
    for shell in range(1, len(p.sizes) + 1):
        holding = {client for client in survivors if p.tier(client) >= shell}
        left_out = last - holding if result else set()
        if len(holding) >= p.minimum_holders and (not left_out or len(left_out) >= p.minimum_holders):
            result.append(shell)
            last = holding
    return result


def commitment(p: ShellParams, client: int, shell: int, seed: bytes) -> bytes:
    return tuple_hash(LABEL + "self-commitment", seed, p.context, u32(client), bytes([shell]))


def self_stream(p: ShellParams, client: int, shell: int, seed: bytes) -> list[int]:
    secret = derive(seed, LABEL + "self-stream", p.context, u32(client), bytes([shell]), length=16)
    return stream(secret, lane_sizes(*p.lane(shell))[2])


def pair_mask(p: ShellParams, low: int, high: int, secret: bytes) -> list[int]:
    """One stream, as long as the shells that both hold. SPEC §3."""
    words = p.words(min(p.tier(low), p.tier(high)))
    return stream(key(p, secret, "pair-stream", low, high, length=16), words)


def masked_input(
    p: ShellParams, me: int, values: list[int], self_seeds: list[bytes], pair_secrets: dict[int, bytes]
) -> list[int]:
    """What client ``me`` sends: its shells, packed one after the other, plus masks. SPEC §3."""
    words: list[int] = []
    at = 0
    for shell, seed in enumerate(self_seeds, start=1):
        size, largest, holders = p.lane(shell)
        packed = pack(values[at : at + size], largest, holders)
        words += add(packed, self_stream(p, me, shell, seed), +1)
        at += size
    for other, secret in pair_secrets.items():
        low, high = sorted((me, other))
        mask = pair_mask(p, low, high, secret)
        words[: len(mask)] = add(words[: len(mask)], mask, +1 if me == low else -1)
    return words


def open_sum(
    p: ShellParams,
    inputs: dict[int, list[int]],
    self_seeds: dict[int, list[bytes]],
    pair_secrets: dict[tuple[int, int], bytes],
    dropped: list[int],
) -> list[int]:
    """The sums of the opened shells, 0 elsewhere. SPEC §5.

    ``inputs``: of the survivors. ``self_seeds``: of the survivors, for the opened shells only.
    ``pair_secrets``: of each survivor with each dropped client, by ``(lower id, higher id)``.
    """
    survivors, total = sorted(inputs), [0] * p.words(len(p.sizes))
    for words in inputs.values():
        total[: len(words)] = add(total[: len(words)], words, +1)
    for gone in dropped:
        for i in survivors:
            low, high = sorted((i, gone))
            mask = pair_mask(p, low, high, pair_secrets[low, high])
            total[: len(mask)] = add(total[: len(mask)], mask, -1 if i == low else +1)
    values: list[int] = []
    shells = opened(p, survivors)
    for shell in range(1, len(p.sizes) + 1):
        if shell not in shells:
            values += [0] * p.sizes[shell - 1]
            continue
        piece = total[p.words(shell - 1) : p.words(shell)]
        holding = [client for client in survivors if p.tier(client) >= shell]
        for client in holding:
            piece = add(piece, self_stream(p, client, shell, self_seeds[client][shells.index(shell)]), -1)
        sums = unpack(piece, *p.lane(shell))
        if max(sums) > len(holding) * p.max_value:
            raise Fault("FaultyClientError", "the masks did not cancel")
        values += sums
    return values
