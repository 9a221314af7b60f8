"""Reference for protocols/secagg/SPEC.md §3 to §5: the mathematics of the masked sum, step by step, for honest parties.

Clarity before speed; shares no code with securefl/. Frames, states and refusals stand in session_ref. Legend (SPEC §2):
s_i mask seed, b_i self-mask seed, c_i channel seed of client i; m_ij the secret of a pair; C context, R roster hash.
[BIK+17] Bonawitz et al., "Practical Secure Aggregation for Privacy-Preserving Machine Learning", CCS 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

from encoding_ref import EncodingError, lane_sizes, pack, unpack
from primitives_ref import (
    PRIME,
    SUITES,
    derive,
    info_bytes,
    interpolate,
    public_key,
    seal,
    split,
    stream,
    tuple_hash,
    unseal,
)

LABEL = "securefl/v1/secagg/"

Random = Callable[[str, int], bytes]  #: ``random(name, bytes)``: fresh randomness; the names are those of the vectors
Keys = tuple[bytes, bytes, bytes]  #: what a client advertises: channel key, mask key, commitment to b_i
Boxes = dict[int, tuple[bytes, bytes]]  #: by the other client: shares box, pair box (empty from a higher to a lower id)


class Fault(Exception):
    """``error`` is the name of the error in SPEC §7, ``blamed`` the suspected clients."""

    def __init__(self, error: str, why: str, *blamed: int) -> None:
        super().__init__(f"{error}: {why}")
        self.error, self.blamed = error, sorted(set(blamed))


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


@dataclass(frozen=True)
class Params:
    """SPEC §3."""

    clients: tuple[int, ...]
    dimension: int
    max_value: int
    threshold: int
    session: bytes
    round: int
    model_hash: bytes
    suite: str
    encoding: bytes = b""

    @cached_property
    def context(self) -> bytes:
        """C, SPEC §3.3."""
        modes = bytes([SUITES[self.suite][0], 1, 1])  # suite, adversary: semi-honest, graph: complete
        numbers = [u32(self.threshold), self.dimension.to_bytes(8, "big"), self.max_value.to_bytes(8, "big")]
        ids = b"".join(map(u32, self.clients))
        fields = [b"secagg", self.session, u32(self.round), modes, *numbers, ids, self.model_hash]
        extra = [b"", self.encoding] if self.encoding else []
        return tuple_hash("securefl/v1/context", *fields, *extra)

    @property
    def lanes(self) -> tuple[int, int, int]:
        return self.dimension, self.max_value, len(self.clients)

    def point(self, client: int) -> int:
        """The client's Shamir point, SPEC §3.2."""
        return self.clients.index(client) + 1


def check(p: Params, allow_minority_threshold: bool = False) -> None:
    """The refusal rules of SPEC §3.2."""
    n = len(p.clients)
    fine = (
        2 <= n <= 2**16
        and list(p.clients) == sorted(set(p.clients))
        and all(0 < i < 2**32 for i in p.clients)
        and (2 if allow_minority_threshold else max(2, n // 2 + 1)) <= p.threshold <= n
        and 1 <= len(p.session) <= 64
        and 0 <= p.round < 2**32
        and len(p.model_hash) == 32
    )
    if not fine:
        raise Fault("ConfigurationError", "parameters that cannot work together")
    try:
        lane_sizes(*p.lanes)
    except EncodingError as error:
        raise Fault("ConfigurationError", str(error)) from None


# ---- SPEC §4: keys -------------------------------------------------------------------------------------------------


def key(p: Params, secret: bytes, purpose: str, *ids: int, length: int = 32) -> bytes:
    return derive(secret, LABEL + purpose, p.context, *map(u32, ids), length=length)


def commitment(p: Params, client: int, self_seed: bytes) -> bytes:
    return tuple_hash(LABEL + "self-commitment", self_seed, p.context, u32(client))


def roster_hash(p: Params, roster_body: bytes) -> bytes:
    return tuple_hash(LABEL + "roster", p.context, roster_body)


def box_info(p: Params, purpose: str, roster: bytes, sender: int, recipient: int) -> bytes:
    return info_bytes(LABEL + purpose, p.context, roster, u32(sender), u32(recipient))


def self_stream(p: Params, client: int, self_seed: bytes) -> list[int]:
    return stream(key(p, self_seed, "self-stream", client, length=16), lane_sizes(*p.lanes)[2])


def pair_stream(p: Params, low: int, high: int, pair_secret: bytes) -> list[int]:
    return stream(key(p, pair_secret, "pair-stream", low, high, length=16), lane_sizes(*p.lanes)[2])


def add(words: list[int], mask: list[int], sign: int) -> list[int]:
    return [(word + sign * m) % 2**64 for word, m in zip(words, mask, strict=True)]


# ---- SPEC §5.1: advertise keys [BIK+17, Fig. 4, round 0] -----------------------------------------------------------


def advertise(p: Params, me: int, mask_seed: bytes, self_seed: bytes, channel_seed: bytes) -> tuple[bytes, bytes, Keys]:
    """``(channel private key, mask private key, what is advertised)``; a private key is its 32-byte seed."""
    channel, mask = key(p, channel_seed, "channel-key", me), key(p, mask_seed, "mask-key", me)
    return channel, mask, (public_key(p.suite, channel), public_key(p.suite, mask), commitment(p, me, self_seed))


# ---- SPEC §5.2: share keys [BIK+17, Fig. 4, round 1] ---------------------------------------------------------------


def share_keys(
    p: Params, me: int, mask_seed: bytes, self_seed: bytes, roster: dict[int, Keys], roster_hash: bytes, random: Random
) -> tuple[Boxes, dict[int, bytes], bytes]:
    """``(boxes by recipient, pair secrets made here, the own share of b_i)``."""
    n, t = len(p.clients), p.threshold
    of_mask_seed = split(mask_seed, n, t, random("mask_coefficients", 48 * (t - 1)))
    of_self_seed = split(self_seed, n, t, random("self_coefficients", 48 * (t - 1)))

    def sealed(what: str, other: int, public: bytes, plaintext: bytes) -> bytes:
        coins = random(f"seal_{what}_{other}", 64 if p.suite == "mlkem768-x25519" else 32)
        try:
            return seal(p.suite, public, plaintext, box_info(p, f"{what}-box", roster_hash, me, other), coins)
        except ValueError:
            raise Fault("FaultyClientError", "advertised something that is no key", other) from None

    boxes: Boxes = {}
    secrets = {other: key(p, mask_seed, "pair-secret", me, other) for other in roster if me < other}
    for other, (channel_key, mask_key, _) in sorted(roster.items()):
        if other != me:
            at = p.point(other) - 1
            shares = sealed("shares", other, channel_key, of_mask_seed[at] + of_self_seed[at])
            boxes[other] = (shares, sealed("pair", other, mask_key, secrets[other]) if me < other else b"")
    return boxes, secrets, of_self_seed[p.point(me) - 1]


# ---- SPEC §5.3: masked input [BIK+17, Fig. 4, round 2] -------------------------------------------------------------


def open_pair_box(p: Params, low: int, high: int, mask_private: bytes, box: bytes, roster_hash: bytes) -> bytes:
    """m_ij, by the higher id, or by the server once it has the higher id's seed."""
    try:
        return unseal(p.suite, mask_private, box, box_info(p, "pair-box", roster_hash, low, high))
    except ValueError:
        raise Fault("FaultyClientError", "a pair box does not open", low) from None


def masked_input(p: Params, me: int, values: list[int], self_seed: bytes, pair_secrets: dict[int, bytes]) -> list[int]:
    """[BIK+17, §4.0.2]: y_i = x_i + PRG(b_i) + Σ_{j>i} PRG(m_ij) − Σ_{j<i} PRG(m_ij), over those that shared keys."""
    words = add(pack(values, p.max_value, len(p.clients)), self_stream(p, me, self_seed), +1)
    for other, secret in pair_secrets.items():
        low, high = sorted((me, other))
        words = add(words, pair_stream(p, low, high, secret), +1 if me == low else -1)
    return words


# ---- SPEC §5.4: unmask [BIK+17, Fig. 4, rounds 3 and 4] ------------------------------------------------------------


def share_for(
    p: Params, me: int, dealer: int, survived: bool, channel_private: bytes, box: bytes, roster_hash: bytes
) -> bytes | None:
    """One share of one kind: of a survivor's b, or of a dropped client's s. ``None`` when the box does not open."""
    try:
        shares = unseal(p.suite, channel_private, box, box_info(p, "shares-box", roster_hash, dealer, me))
    except ValueError:
        return None
    return shares[33:] if survived else shares[:33]


def open_seed(
    p: Params, dealer: int, survived: bool, keys: Keys, given: dict[int, bytes]
) -> tuple[bytes | None, set[int]]:
    """``(seed, suspects)``: the first t shares that give what the dealer committed to; who is off their polynomial.

    Without such shares there is no seed, and the dealer is suspect; so are the others if there was no share to spare.
    """
    shares = {p.point(responder): int.from_bytes(share, "big") for responder, share in given.items()}
    suspects = {p.clients[x - 1] for x, y in shares.items() if y >= PRIME}
    shares = {x: y for x, y in sorted(shares.items()) if y < PRIME}
    for tried, points in enumerate(combinations(shares, p.threshold)):
        chosen = {x: shares[x] for x in points}
        seed = (interpolate(chosen) % 2**256).to_bytes(32, "big")
        if survived:
            right = commitment(p, dealer, seed) == keys[2]
        else:
            right = public_key(p.suite, key(p, seed, "mask-key", dealer)) == keys[1]
        if right:
            if tried:
                suspects |= {p.clients[x - 1] for x, y in shares.items() if interpolate(chosen, x) != y}
            return seed, suspects
    return None, {dealer, *suspects, *(p.clients[x - 1] for x in shares if len(shares) == p.threshold)}


def open_sum(
    p: Params,
    total: list[int],
    boxes: dict[int, Boxes],
    roster_hash: bytes,
    survivors: list[int],
    seeds: dict[int, bytes],
) -> list[int]:
    """The survivors' sum. ``boxes`` by sender, then recipient; ``seeds``: b_i of survivors, s_i of the dropped."""
    for client, seed in seeds.items():
        if client in survivors:
            total = add(total, self_stream(p, client, seed), -1)
            continue
        mask_private = key(p, seed, "mask-key", client)
        for i in survivors:
            if i < client:  # i made the pair's secret, sealed it to the dropped client's mask key, and added the mask
                secret = open_pair_box(p, i, client, mask_private, boxes[i][client][1], roster_hash)
                total = add(total, pair_stream(p, i, client, secret), -1)
            else:  # the dropped client made the pair's secret from its own seed; i subtracted the mask
                total = add(total, pair_stream(p, client, i, key(p, seed, "pair-secret", client, i)), +1)
    try:
        values = unpack(total, *p.lanes)
    except EncodingError as error:
        raise Fault("FaultyClientError", f"the masks did not cancel: {error}") from None
    if max(values) > len(survivors) * p.max_value:
        raise Fault("FaultyClientError", "the masks did not cancel: a sum is larger than the survivors can give")
    return values
