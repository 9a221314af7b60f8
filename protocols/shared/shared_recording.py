"""Whole sessions of the shared sum, run by shared_ref, which the vectors of both forms are taken from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from Crypto.Hash import SHAKE256
from shared_ref import Fault, First, Params, Second, client

SESSIONS = {
    "three-of-three": ("everyone stays", "x25519", (1, 2, 5), 7, 2**16 - 2, 2, ()),
    "one-drops": ("client 2 shares its seed and never sends its vector", "x25519", (1, 2, 5), 7, 2**16 - 2, 2, (2,)),
    "hybrid": ("the hybrid suite, two clients", "mlkem768-x25519", (3, 9), 4, 255, 2, ()),
}
_SHELLS = ((3, 4, 2), (3, 1, 2, 3, 2, 1), 2)
#: Nested shells, shells SPEC §8: the same cohort, other survivors.
NESTED = {
    "shells": ("three shells, nobody drops: all are opened", ()),
    "top-closed": ("one client is left that holds shell 3: the second server keeps its share of it", (5,)),
}


def recordings() -> dict[str, Any]:
    played = {name: play(name, *given) for name, given in SESSIONS.items()}
    for name, (comment, dropped) in NESTED.items():
        played[name] = play(name, comment, "x25519", (1, 2, 3, 5, 8, 9), 9, 1000, 3, dropped, _SHELLS)
    return played


def drawn(name: str, length: int) -> bytes:
    return SHAKE256.new(f"shared/{name}".encode()).read(length)


def of(suite: str, clients: tuple[int, ...], dimension: int, max_value: int, threshold: int, **more: Any) -> Params:
    given = {"session": b"vectors", "round": 3, "model_hash": bytes(range(32)), **more}
    return Params(clients, dimension, max_value, threshold, suite=suite, **given)


def described(p: Params) -> dict[str, Any]:
    values = {**asdict(p), "clients": list(p.clients), "max_value": str(p.max_value)}
    values |= {name: values[name].hex() for name in ("session", "model_hash", "encoding")}
    del values["shells"]
    if p.shells:
        sizes, tiers, least = p.shells
        values["shells"] = {"sizes": list(sizes), "tiers": list(tiers), "minimum_holders": least}
    return values


def play(
    name: str,
    comment: str,
    suite: str,
    clients: tuple[int, ...],
    dimension: int,
    max_value: int,
    threshold: int,
    dropped: tuple[int, ...],
    shells: tuple[tuple[int, ...], tuple[int, ...], int] | None = None,
) -> dict[str, Any]:
    """One session: what each role was given and what it sent, and the result."""
    p = of(suite, clients, dimension, max_value, threshold, shells=shells)
    second, first = Second(p, drawn(f"{name}/key", 32)), First(p)
    advertised = second.start()
    first.receive(advertised)
    keys = first.close()
    inputs, arrived = {}, [advertised]
    for who, key in zip(clients, keys, strict=True):
        raw = drawn(f"{name}/{who}/values", 4 * dimension)
        values = [int.from_bytes(raw[4 * i : 4 * i + 4], "big") % (max_value + 1) for i in range(dimension)]
        values[:2] = [0, max_value]
        values = values[: sum(size for size, _, _ in p.parts[: p.tier(who)])]
        seed = drawn(f"{name}/{who}/seed", 32)
        frames = client(p, who, key, values, seed, drawn(f"{name}/{who}/seal", 32 if suite == "x25519" else 64))
        inputs[who] = {"values": values, "seed": seed, "key": key, "frames": frames}
        arrived += frames[:1] if who in dropped else frames
    for frame in arrived[1:]:
        first.receive(frame)
    (request,) = first.close()
    share = second.answer(request)
    first.receive(share)
    total, survivors = first.close()
    kept = [inputs[who]["values"] for who in survivors]
    plain = [sum(own[at] for own in kept if at < len(own)) for at in range(dimension)]
    at = 0
    for part, (size, _, _) in enumerate(p.parts):
        if part not in p.open_parts(survivors):
            plain[at : at + size] = [0] * size
        at += size
    if total != plain or set(survivors) != set(clients) - set(dropped):
        raise AssertionError(name)
    return {
        "p": p,
        "comment": comment,
        "key_seed": second.key_seed,
        "inputs": inputs,
        "first": [*arrived, share],
        "keys": keys,
        "request": request,
        "share": share,
        "sum": total,
        "survivors": survivors,
    }


def second_input(session: dict[str, Any], *requests: bytes) -> dict[str, Any]:
    received = [{"do": "receive", "frame": frame.hex()} for frame in requests]
    return {"role": "second", "tokens": [session["key_seed"].hex()], "seals": [], "steps": [{"do": "start"}, *received]}


def expect_fault(name: str, error: str, blamed: list[int], steps: list[Any]) -> None:
    for step in steps[:-1]:
        step()
    try:
        steps[-1]()
    except Fault as found:
        if (found.error, found.blamed) != (error, blamed):
            raise AssertionError((name, found)) from None
        return
    raise AssertionError(f"{name} was accepted")
