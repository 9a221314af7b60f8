"""Reference for protocols/secagg/SPEC.md §6 and §7: bodies, states and refusals around the mathematics of secagg_ref.

Events are tuples: ("send", to, frame) · ("need_input",) · ("completed", sum or None) · ("aborted", error, blamed).
A refusal raises DecodeError, or Fault with the error's name and the suspected clients. Shares no code with securefl/.
"""

from __future__ import annotations

import secagg_ref as ref
from encoding_ref import lane_sizes
from primitives_ref import SUITES
from secagg_ref import Boxes, Fault, Keys, Params, Random, u32
from wire_ref import DecodeError, Fields, open_frame, seal_frame

PROTOCOL, SERVER = 1, 0
ADVERTISE_KEYS, ROSTER, SHARE_KEYS, DELIVER_SHARES, MASKED_INPUT, UNMASK_REQUEST, UNMASK_SHARES, ABORT = range(1, 9)


def need(condition: bool, error: str, why: str, *blamed: int) -> None:
    if not condition:
        raise Fault(error, why, *blamed)


# ---- SPEC §6: bodies -----------------------------------------------------------------------------------------------


def sizes(p: Params) -> tuple[int, int, int, int]:
    """Bytes of a public key, of a shares box, of a pair box; words of the packed vector."""
    _, key_bytes, encapsulation, _ = SUITES[p.suite]
    return key_bytes, encapsulation + 66 + 16, encapsulation + 32 + 16, lane_sizes(*p.lanes)[2]


def limits(p: Params, *kinds: int) -> dict[int, int]:
    """The largest body of each kind."""
    n, (key_bytes, shares, pair, words) = len(p.clients), sizes(p)
    boxes = 4 + n * (4 + shares + pair)
    bodies = [2 * key_bytes + 32, 4 + n * (36 + 2 * key_bytes), boxes, boxes, 8 * words, 8 + 8 * n, 4 + 34 * n, 1]
    return {kind: bodies[kind - 1] for kind in kinds}


def ascending(p: Params, ids: list[int]) -> list[int]:
    if ids != sorted(set(ids)) or not set(ids) <= set(p.clients):
        raise DecodeError("ids not ascending, repeated or not invited")
    return ids


def read_keys(p: Params, fields: Fields) -> Keys:
    return fields.raw(sizes(p)[0]), fields.raw(sizes(p)[0]), fields.raw(32)


def read_advertised(p: Params, body: bytes) -> Keys:
    fields = Fields(body)
    keys = read_keys(p, fields)
    fields.end()
    return keys


def write_roster(roster: dict[int, Keys]) -> bytes:
    return u32(len(roster)) + b"".join(u32(client) + b"".join(keys) for client, keys in sorted(roster.items()))


def read_roster(p: Params, body: bytes) -> dict[int, Keys]:
    fields = Fields(body)
    items = fields.count(len(p.clients), 36 + 2 * sizes(p)[0])
    pairs = [(fields.uint(4), read_keys(p, fields)) for _ in range(items)]
    fields.end()
    ascending(p, [client for client, _ in pairs])
    return dict(pairs)


def write_boxes(boxes: Boxes) -> bytes:
    return u32(len(boxes)) + b"".join(u32(other) + shares + pair for other, (shares, pair) in sorted(boxes.items()))


def read_boxes(p: Params, body: bytes, owner: int, *, owner_sends: bool) -> Boxes:
    """``owner`` is the end that all boxes share; a pair box goes from a lower to a higher id only."""
    fields, (_, shares_bytes, pair_bytes, _) = Fields(body), sizes(p)
    pairs = []
    for _ in range(fields.count(len(p.clients), 4 + shares_bytes)):
        other, shares = fields.uint(4), fields.raw(shares_bytes)
        pairs.append((other, (shares, fields.raw(pair_bytes if (owner < other) == owner_sends else 0))))
    fields.end()
    if owner in ascending(p, [other for other, _ in pairs]):
        raise DecodeError("addressed to itself")
    return dict(pairs)


def write_request(survivors: list[int], dropped: list[int]) -> bytes:
    return b"".join(u32(len(ids)) + b"".join(map(u32, ids)) for ids in (survivors, dropped))


def read_request(p: Params, body: bytes) -> tuple[list[int], list[int]]:
    fields = Fields(body)
    survivors = ascending(p, [fields.uint(4) for _ in range(fields.count(len(p.clients), 4))])
    dropped = ascending(p, [fields.uint(4) for _ in range(fields.count(len(p.clients), 4))])
    fields.end()
    return survivors, dropped


def write_unmask(shares: list[bytes | None]) -> bytes:
    return u32(len(shares)) + b"".join(bytes(34) if share is None else b"\x01" + share for share in shares)


def read_unmask(p: Params, body: bytes) -> list[bytes | None]:
    fields, shares = Fields(body), []
    for _ in range(fields.count(len(p.clients), 34)):
        present, share = fields.uint(1), fields.raw(33)
        if present > 1 or (not present and any(share)):
            raise DecodeError("neither present nor absent")
        shares.append(share if present else None)
    fields.end()
    return shares


def read_abort(body: bytes) -> int:
    if body not in (b"\x01", b"\x02"):
        raise DecodeError("unknown reason")
    return body[0]


# ---- SPEC §7.1, §7.2: the client -----------------------------------------------------------------------------------


class Client:
    """``floor``: this client's own least number of survivors. ``random``: see :mod:`secagg_ref`."""

    def __init__(self, p: Params, me: int, random: Random, floor: int | None = None) -> None:
        self.p, self.me, self.random, self.floor = p, me, random, floor or p.threshold
        self.state, self.seen, self.values = "NEW", {}, None

    def start(self) -> list[tuple]:
        self.mask_seed, self.self_seed = self.random("mask_seed", 32), self.random("self_seed", 32)
        seeds = self.mask_seed, self.self_seed, self.random("channel_seed", 32)
        self.channel_private, self.mask_private, self.keys = ref.advertise(self.p, self.me, *seeds)
        self.state = "ADVERTISED"
        return [self.send(ADVERTISE_KEYS, b"".join(self.keys))]

    def provide(self, values: list[int]) -> list[tuple]:
        self.values = values
        return self.mask() if self.state == "KEYED" else []

    def receive(self, frame: bytes) -> list[tuple]:
        p = self.p
        kinds = limits(p, ROSTER, DELIVER_SHARES, UNMASK_REQUEST, ABORT)
        kind, sender, body = open_frame(frame, PROTOCOL, p.context, self.me, kinds)
        if self.seen.get(kind) == frame and kind != UNMASK_REQUEST:
            return []  # the same frame again
        need(sender == SERVER, "FaultyServerError", "clients talk to the server only")
        due = {"ADVERTISED": ROSTER, "SHARED": DELIVER_SHARES, "MASKED": UNMASK_REQUEST}.get(self.state)
        right = kind == due or (kind == ABORT and self.state != "NEW")
        need(right, "FaultyServerError", "a step happens once, in order")
        if kind == ROSTER:  # decoding, too, comes before any change of state
            step, message = self.share, (read_roster(p, body), body)
        elif kind == DELIVER_SHARES:
            step, message = self.take, (read_boxes(p, body, self.me, owner_sends=False),)
        elif kind == UNMASK_REQUEST:
            step, message = self.unmask, read_request(p, body)
        else:
            step, message = self.end, (read_abort(body),)
        self.seen[kind] = frame
        try:
            return step(*message)
        except Fault:
            self.state = "ABORTED"
            raise

    def share(self, roster: dict[int, Keys], body: bytes) -> list[tuple]:
        p = self.p
        need(roster.get(self.me) == self.keys, "FaultyServerError", "own keys missing or changed")
        need(len(roster) >= self.floor, "TooFewClientsError", "advertised keys")
        raw = [key for keys in roster.values() for key in keys[:2]]
        need(len(set(raw)) == len(raw), "FaultyServerError", "the same key twice")
        self.roster, self.roster_hash = roster, ref.roster_hash(p, body)
        boxes, self.secrets, self.own_share = ref.share_keys(
            p, self.me, self.mask_seed, self.self_seed, roster, self.roster_hash, self.random
        )
        self.state = "SHARED"
        return [self.send(SHARE_KEYS, write_boxes(boxes))]

    def take(self, boxes: Boxes) -> list[tuple]:
        need(set(boxes) <= set(self.roster), "FaultyServerError", "shares from a client that is not on the roster")
        need(len(boxes) + 1 >= self.floor, "TooFewClientsError", "shared keys")
        for other, (_, pair) in boxes.items():
            if other < self.me:
                self.secrets[other] = ref.open_pair_box(
                    self.p, other, self.me, self.mask_private, pair, self.roster_hash
                )
        self.boxes, self.state = boxes, "KEYED"
        return [("need_input",)] if self.values is None else self.mask()

    def mask(self) -> list[tuple]:
        secrets = {other: self.secrets[other] for other in self.boxes}
        words = ref.masked_input(self.p, self.me, self.values, self.self_seed, secrets)
        self.state = "MASKED"
        return [self.send(MASKED_INPUT, b"".join(word.to_bytes(8, "little") for word in words))]

    def unmask(self, survivors: list[int], dropped: list[int]) -> list[tuple]:
        sharing = sorted({*self.boxes, self.me})
        need(not set(survivors) & set(dropped), "FaultyServerError", "surviving and dropped")
        need(self.me not in dropped, "FaultyServerError", "this client did not drop")
        need(sorted(survivors + dropped) == sharing, "FaultyServerError", "not exactly the clients that shared keys")
        need(len(survivors) >= self.floor, "TooFewClientsError", "survived")
        shares = []
        for dealer in sharing:
            if dealer == self.me:
                shares.append(self.own_share)
            else:
                box, survived = self.boxes[dealer][0], dealer in survivors
                shares.append(
                    ref.share_for(self.p, self.me, dealer, survived, self.channel_private, box, self.roster_hash)
                )
        self.state = "FINISHED"
        return [self.send(UNMASK_SHARES, write_unmask(shares)), ("completed", None)]

    def end(self, reason: int) -> list[tuple]:
        self.state = "ABORTED"
        return [("aborted", "TooFewClientsError" if reason == 1 else "FaultyClientError", [])]

    def send(self, kind: int, body: bytes) -> tuple:
        return "send", SERVER, seal_frame(PROTOCOL, kind, self.p.context, self.me, SERVER, body)


# ---- SPEC §7.3, §7.4: the server -----------------------------------------------------------------------------------


class Server:
    """``due`` is the kind that the present exchange waits for, ``got`` what came, by sender."""

    def __init__(self, p: Params) -> None:
        self.p, self.due, self.seen = p, 0, {}

    def start(self) -> list[tuple]:
        self.wait(ADVERTISE_KEYS, self.p.clients)
        return []

    def wait(self, due: int, expected: object) -> None:
        self.due, self.expected, self.got = due, sorted(expected), {}

    def receive(self, frame: bytes) -> list[tuple]:
        kinds = limits(self.p, ADVERTISE_KEYS, SHARE_KEYS, MASKED_INPUT, UNMASK_SHARES)
        kind, sender, body = open_frame(frame, PROTOCOL, self.p.context, SERVER, kinds)
        need(sender in self.p.clients, "FaultyClientError", "not invited", sender)
        if self.seen.get((sender, kind)) == frame:
            return []  # the same frame again
        need(
            kind == self.due and sender in self.expected, "ProtocolError", "outside its exchange: late, early, dropped"
        )
        need(sender not in self.got, "FaultyClientError", "two different messages", sender)
        self.got[sender] = self.read(kind, sender, body)
        self.seen[sender, kind] = frame
        return []

    def read(self, kind: int, sender: int, body: bytes) -> object:
        p = self.p
        if kind == ADVERTISE_KEYS:
            return read_advertised(p, body)
        if kind == SHARE_KEYS:
            boxes = read_boxes(p, body, sender, owner_sends=True)
            need({*boxes, sender} == set(self.keys), "FaultyClientError", "not exactly the roster", sender)
            return boxes
        if kind == MASKED_INPUT:
            if len(body) != 8 * sizes(p)[3]:
                raise DecodeError("another number of words")
            return [int.from_bytes(body[at : at + 8], "little") for at in range(0, len(body), 8)]
        shares = read_unmask(p, body)
        need(len(shares) == len(self.boxes), "FaultyClientError", "another number of shares", sender)
        return shares

    def close_round(self) -> list[tuple]:
        if len(self.got) < self.p.threshold:
            return self.abort(1, Fault("TooFewClientsError", "left"))
        steps = {
            ADVERTISE_KEYS: self.publish,
            SHARE_KEYS: self.route,
            MASKED_INPUT: self.request,
            UNMASK_SHARES: self.finish,
        }
        return steps[self.due]()

    def publish(self) -> list[tuple]:
        self.keys, body = self.got, write_roster(self.got)
        self.roster_hash = ref.roster_hash(self.p, body)
        self.wait(SHARE_KEYS, self.keys)
        return [self.send(ROSTER, to, body) for to in self.expected]

    def route(self) -> list[tuple]:
        self.boxes = dict(sorted(self.got.items()))
        self.wait(MASKED_INPUT, self.boxes)
        return [
            self.send(DELIVER_SHARES, to, write_boxes({i: self.boxes[i][to] for i in self.boxes if i != to}))
            for to in self.expected
        ]

    def request(self) -> list[tuple]:
        self.total = [sum(column) % 2**64 for column in zip(*self.got.values(), strict=True)]
        self.survivors = sorted(self.got)
        self.wait(UNMASK_SHARES, self.survivors)
        body = write_request(self.survivors, [client for client in self.boxes if client not in self.survivors])
        return [self.send(UNMASK_REQUEST, to, body) for to in self.expected]

    def finish(self) -> list[tuple]:
        p, seeds, suspects = self.p, {}, set()
        try:
            for at, dealer in enumerate(self.boxes):
                given = {i: shares[at] for i, shares in self.got.items() if shares[at] is not None}
                survived = dealer in self.survivors
                seeds[dealer], off = ref.open_seed(p, dealer, survived, self.keys[dealer], given)
                suspects |= off
                need(seeds[dealer] is not None, "FaultyClientError", "a seed cannot be opened", *suspects)
            values = ref.open_sum(p, self.total, self.boxes, self.roster_hash, self.survivors, seeds)
        except Fault as fault:
            return self.abort(2, fault)
        self.due = 0
        return [("completed", {"sum": values, "survivors": self.survivors, "suspects": sorted(suspects)})]

    def abort(self, reason: int, fault: Fault) -> list[tuple]:
        notices = [self.send(ABORT, to, bytes([reason])) for to in self.expected]
        self.due = 0
        return [*notices, ("aborted", fault.error, fault.blamed)]

    def send(self, kind: int, to: int, body: bytes) -> tuple:
        return "send", to, seal_frame(PROTOCOL, kind, self.p.context, SERVER, to, body)
