"""Reference for protocols/shared/SPEC.md: the shared sum, role by role. Clarity before speed; no code of securefl/.

Every random byte is an argument. Vectors of one range, or nested shells (shells SPEC §8); segments are those of the
compression reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from encoding_ref import EncodingError, lane_sizes, pack, unpack
from primitives_ref import SUITES, derive, info_bytes, public_key, seal, stream, tuple_hash, unseal
from wire_ref import DecodeError, open_frame, seal_frame

PROTOCOL, SERVER, SECOND = 4, 0, 2**32 - 1
ADVERTISE_KEY, KEY, SEED, INPUT, SUM_REQUEST, SUM_SHARE, BLAMED = range(1, 8)
LABEL = "securefl/v1/shared/"
WORD = 2**64


class Fault(Exception):
    """``error`` is the name of the error in SPEC §7, ``blamed`` the suspected clients."""

    def __init__(self, error: str, why: str, *blamed: int) -> None:
        super().__init__(f"{error}: {why}")
        self.error, self.blamed = error, sorted(set(blamed))


def need(condition: bool, error: str, why: str, *blamed: int) -> None:
    if not condition:
        raise Fault(error, why, *blamed)


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
    shells: tuple[tuple[int, ...], tuple[int, ...], int] | None = None  # sizes, tiers, least number of holders

    @cached_property
    def context(self) -> bytes:
        """C, SPEC §3.2."""
        numbers = [u32(self.threshold), self.dimension.to_bytes(8, "big"), self.max_value.to_bytes(8, "big")]
        ids = b"".join(map(u32, self.clients))
        fields = [b"shared", self.session, u32(self.round), bytes([SUITES[self.suite][0]]), *numbers, ids]
        extra = [b"", self.encoding] if self.encoding or self.shells else []
        if self.shells:
            sizes, tiers, least = self.shells
            lengths = b"".join(size.to_bytes(8, "big") for size in sizes)
            extra.append(u32(least) + bytes([len(sizes)]) + lengths + bytes(tiers))
        return tuple_hash("securefl/v1/context", *fields, self.model_hash, *extra)

    def tier(self, client: int) -> int:
        return self.shells[1][self.clients.index(client)] if self.shells else 1

    @property
    def parts(self) -> list[tuple[int, int, int]]:
        """``(integers, largest integer, clients)`` of each shell; of the whole vector without shells."""
        if not self.shells:
            return [(self.dimension, self.max_value, len(self.clients))]
        sizes, tiers, _ = self.shells
        counts = [sum(tier > at for tier in tiers) for at in range(len(sizes))]
        return [(size, self.max_value, max(1, count)) for size, count in zip(sizes, counts, strict=True)]

    def words_of(self, tier: int) -> int:
        return sum(lane_sizes(*part)[2] for part in self.parts[:tier])

    @property
    def words(self) -> int:
        return self.words_of(len(self.parts))

    def open_parts(self, survivors: list[int]) -> list[int]:
        """Shells SPEC §4: the parts that are opened, from 0."""
        if not self.shells:
            return [0]
        found: list[int] = []
        last: set[int] = set()
        for at in range(len(self.parts)):
            holding, least = {who for who in survivors if self.tier(who) > at}, self.shells[2]
            gone = last - holding if found else set()
            if len(holding) >= least and (not gone or len(gone) >= least):
                found.append(at)
                last = holding
        return found

    @property
    def box(self) -> int:
        """Bytes of a sealed seed."""
        return SUITES[self.suite][2] + 32 + 16

    def limits(self, *kinds: int) -> dict[int, int]:
        """SPEC §6, the column of lengths."""
        n, key, vector = len(self.clients), SUITES[self.suite][1], 8 * self.words
        sizes = [key, key, self.box, vector, 4 + n * (4 + self.box), vector, 4 + 4 * n]
        return {kind: sizes[kind - 1] for kind in kinds}

    def frame(self, kind: int, sender: int, recipient: int, body: bytes) -> bytes:
        return seal_frame(PROTOCOL, kind, self.context, sender, recipient, body)

    def opened(self, frame: bytes, recipient: int, *kinds: int) -> tuple[int, int, bytes]:
        try:
            return open_frame(frame, PROTOCOL, self.context, recipient, self.limits(*kinds))
        except DecodeError as error:
            raise Fault("DecodeError", str(error)) from None

    def share(self, client: int, seed: bytes) -> list[int]:
        """SPEC §4.1: the second server's share of a client's words."""
        key = derive(seed, LABEL + "share-stream", self.context, u32(client), length=16)
        return stream(key, self.words_of(self.tier(client)))

    def info(self, client: int) -> bytes:
        """SPEC §4.2."""
        return info_bytes(LABEL + "share-box", self.context, u32(client))


def words_bytes(words: list[int]) -> bytes:
    return b"".join(word.to_bytes(8, "little") for word in words)


def bytes_words(body: bytes) -> list[int]:
    return [int.from_bytes(body[at : at + 8], "little") for at in range(0, len(body), 8)]


def added(total: list[int], words: list[int]) -> list[int]:
    """``words`` added to the first of ``total``."""
    return [(a + b) % WORD for a, b in zip(total, words, strict=False)] + total[len(words) :]


def client(p: Params, me: int, key_frame: bytes, values: list[int], seed: bytes, randomness: bytes) -> list[bytes]:
    """SPEC §5.2: the client's two frames, from the server's one."""
    _, sender, key = p.opened(key_frame, me, KEY)
    need(sender == SERVER, "FaultyServerError", "only the server speaks to clients")
    need(len(key) == SUITES[p.suite][1], "DecodeError", "another length")
    share = p.share(me, seed)
    words, at = [], 0
    for size, largest, holders in p.parts[: p.tier(me)]:
        words += pack(values[at : at + size], largest, holders)
        at += size
    first = [(word - mine) % WORD for word, mine in zip(words, share, strict=True)]
    box = seal(p.suite, key, seed, p.info(me), randomness)
    return [p.frame(SEED, me, SERVER, box), p.frame(INPUT, me, SERVER, words_bytes(first))]


def boxes_in(p: Params, body: bytes) -> dict[int, bytes]:
    """The sealed seeds in a SUM_REQUEST by client, ascending."""
    size, count = 4 + p.box, int.from_bytes(body[:4], "big")
    need(len(body) == 4 + count * size, "DecodeError", "another length")
    items = [body[at : at + size] for at in range(4, len(body), size)]
    ids = [int.from_bytes(item[:4], "big") for item in items]
    need(ids == sorted(set(ids)) and set(ids) <= set(p.clients), "DecodeError", "not ascending, or not invited")
    return {who: item[4:] for who, item in zip(ids, items, strict=True)}


class Second:
    """SPEC §5.1 and §5.4: the second server, with the seed of its key pair."""

    def __init__(self, p: Params, key_seed: bytes) -> None:
        self.p, self.key_seed, self.open = p, key_seed, True

    def start(self) -> bytes:
        return self.p.frame(ADVERTISE_KEY, SECOND, SERVER, public_key(self.p.suite, self.key_seed))

    def answer(self, frame: bytes) -> bytes:
        p = self.p
        _, sender, body = p.opened(frame, SECOND, SUM_REQUEST)
        need(sender == SERVER and self.open, "FaultyServerError", "one sum is opened per session")
        boxes = boxes_in(p, body)
        ids = list(boxes)
        self.open = False
        need(len(ids) >= p.threshold, "TooFewClientsError", "a sum over too few")
        total, blamed = [0] * p.words, []
        for who, box in boxes.items():
            try:
                share = p.share(who, unseal(p.suite, self.key_seed, box, p.info(who)))
                total = added(total, share)
            except ValueError:
                blamed.append(who)
        if blamed:
            return p.frame(BLAMED, SECOND, SERVER, u32(len(blamed)) + b"".join(map(u32, blamed)))
        answer = [word for at in p.open_parts(ids) for word in total[p.words_of(at) : p.words_of(at + 1)]]
        return p.frame(SUM_SHARE, SECOND, SERVER, words_bytes(answer))


class First:
    """SPEC §5.3: the first server. ``close`` gives frames, at the last ``(sum, survivors)``."""

    def __init__(self, p: Params) -> None:
        self.p, self.exchange, self.got = p, 0, {}

    def receive(self, frame: bytes) -> None:
        p = self.p
        kind, sender, body = p.opened(frame, SERVER, ADVERTISE_KEY, SEED, INPUT, SUM_SHARE, BLAMED)
        mine = sender in p.clients if kind in (SEED, INPUT) else sender == SECOND
        need(mine, "FaultyClientError", "not who may send this", sender)
        if self.got.get((sender, kind)) == body:
            return
        due = [(ADVERTISE_KEY,), (SEED, INPUT), (SUM_SHARE, BLAMED)][self.exchange]
        need(kind in due, "ProtocolError", "outside its exchange")
        need((sender, kind) not in self.got, "FaultyClientError", "two different messages", sender)
        if kind == BLAMED:
            ids = [int.from_bytes(body[at : at + 4], "big") for at in range(4, len(body), 4)]
            ok = (
                int.from_bytes(body[:4], "big") == len(ids) > 0
                and ids == sorted(set(ids))
                and set(ids) <= set(p.clients)
            )
            need(ok, "DecodeError", "not a list of clients")
        else:
            need(len(body) == self.length(kind, sender), "DecodeError", "another length")
        self.got[sender, kind] = body

    def survivors(self) -> list[int]:
        return [who for who in self.p.clients if (who, SEED) in self.got and (who, INPUT) in self.got]

    def length(self, kind: int, sender: int) -> int:
        p = self.p
        if kind == INPUT:
            return 8 * p.words_of(p.tier(sender))
        if kind == SUM_SHARE:
            return 8 * sum(p.words_of(at + 1) - p.words_of(at) for at in p.open_parts(self.survivors()))
        return p.limits(kind)[kind]

    def close(self) -> list[bytes] | tuple[list[int], list[int]]:
        p, got = self.p, self.got
        self.exchange += 1
        if self.exchange == 1:
            need((SECOND, ADVERTISE_KEY) in got, "LostPartyError", "no key")
            return [p.frame(KEY, SERVER, who, got[SECOND, ADVERTISE_KEY]) for who in p.clients]
        survivors = self.survivors()
        if self.exchange == 2:
            need(len(survivors) >= p.threshold, "TooFewClientsError", "too few are left")
            body = u32(len(survivors)) + b"".join(u32(who) + got[who, SEED] for who in survivors)
            return [p.frame(SUM_REQUEST, SERVER, SECOND, body)]
        if (SECOND, BLAMED) in got:
            body = got[SECOND, BLAMED]
            blamed = [int.from_bytes(body[at : at + 4], "big") for at in range(4, len(body), 4)]
            raise Fault("FaultyClientError", "sealed seeds do not open", *blamed)
        need((SECOND, SUM_SHARE) in got, "LostPartyError", "no answer")
        total, answer = [0] * p.words, bytes_words(got[SECOND, SUM_SHARE])
        for who in survivors:
            total = added(total, bytes_words(got[who, INPUT]))
        values: list[int] = []
        for at, part in enumerate(p.parts):
            if at not in p.open_parts(survivors):
                values += [0] * part[0]
                continue
            piece = total[p.words_of(at) : p.words_of(at + 1)]
            piece, answer = added(piece, answer[: len(piece)]), answer[len(piece) :]
            try:
                sums = unpack(piece, *part)
            except EncodingError:
                raise Fault("FaultyClientError", "not a sum of packed vectors", *survivors) from None
            holding = sum(p.tier(who) > at for who in survivors)
            within = max(sums) <= holding * p.max_value
            need(within, "FaultyClientError", "more than the survivors can have given", *survivors)
            values += sums
        return values, survivors
