"""Vectors of the attested form's first server: whom it leaves out, with the sum over the others."""

from __future__ import annotations

from functools import partial
from typing import Any

import attested_ref as ref
import shared_ref as shared
from attested_forgeries import forged_seeds, misplaced_seeds
from attested_recording import Given, Recording, known_to
from attested_ref import body_of
from shared_recording import drawn, expect_fault
from shared_ref import SERVER

AUTH, DECODE = "AuthenticationError", "DecodeError"
#: Those with a session of their own; one session has all of them.
ALONE = ("by-another-client", "of-another-client", "of-another-box", "of-another-round", "damaged")


def taken(*frames: bytes) -> list[Given]:
    return [(frame, None) for frame in frames]


def of_first(base: Recording) -> list[dict[str, Any]]:
    """Clients 1 and 5 keep to the protocol; what client 2 sends is changed."""
    p, (first, me, last) = base.p, base.p.clients
    signed, seed, vector = base.sent[me]
    forged = {name: frame for name, (_, frame) in forged_seeds(base).items()}
    sealed_by_first = shared.seal(p.suite, body_of(base.keys[me]), bytes(32), p.info(me), drawn("first-server/box", 32))

    def made(name: str, comment: str, *given: Given, without: bool = False) -> dict[str, Any]:
        survivors = [who for who in p.clients if not (without and who == me)]
        frames = [*taken(*base.sent[first]), *given, *taken(*base.sent[last])]
        return base.first_test(f"first-{name}", comment, survivors, *frames)

    tests = [
        made(
            f"drops-seed-{name}",
            f"{comment}: client 2 is left out, the others are summed",
            *[(frame, None), (seed, AUTH), (vector, None)],
            without=True,
        )
        for name, (comment, frame) in forged_seeds(base).items()
        if name in ALONE
    ]
    tests += [
        made(
            "drops-seed-however-often-it-comes",
            "every forged signature, each before client 2's seed: it is refused every time",
            *[given for frame in forged.values() for given in ((frame, None), (seed, AUTH))],
            (vector, None),
            without=True,
        ),
        made(
            "drops-seed-not-signed",
            "client 2's signature is missing",
            *[(seed, AUTH), (vector, None)],
            without=True,
        ),
        made(
            "drops-seed-signed-too-late",
            "the signature comes after the seed, which does not come again",
            *[(seed, AUTH), (signed, None), (vector, None)],
            without=True,
        ),
        made(
            "drops-signature-overwritten",
            "a right signature, then one by client 1, then the seed: the later one counts",
            *[(signed, None), (forged["by-another-client"], None), (seed, AUTH), (vector, None)],
            without=True,
        ),
        made(
            "drops-box-of-another",
            "an honest signature before client 5's box under client 2's name",
            *[(signed, None), (p.frame(shared.SEED, me, SERVER, base.box(last)), AUTH), (vector, None)],
            without=True,
        ),
        made(
            "drops-box-of-the-first-server",
            "an honest signature before another seed, sealed for client 2",
            *[(signed, None), (p.frame(shared.SEED, me, SERVER, sealed_by_first), AUTH), (vector, None)],
            without=True,
        ),
        made(
            "takes-the-right-signature-after-a-false-one",
            "a false signature, then the right one: that is relayed, and only that",
            *[(forged["damaged"], None), *taken(signed, seed, vector)],
        ),
        made(
            "takes-the-seed-when-it-is-signed",
            "a seed is refused for its signature; refusals change nothing, and the right frames still count",
            *[(forged["of-another-client"], None), (seed, AUTH), *taken(signed, seed, vector)],
        ),
        made(
            "relays-what-it-verified",
            "a false signature behind the seed: it is refused, and the verified one is relayed",
            *taken(signed, seed),
            (forged["damaged"], "FaultyClientError"),
            (vector, None),
        ),
        made(
            "takes-repeated-frames",
            "each of client 2's frames twice",
            *taken(signed, signed, seed, seed, signed, vector, vector),
        ),
        made(
            "refuses-what-is-no-signature",
            "frames that the second server could not read are not held or relayed",
            *[(frame, DECODE) for _, frame in misplaced_seeds(base).values()],
            *taken(signed, seed, vector),
        ),
        base.refused_by_first(
            "first-too-few-signed",
            "two of three seeds without signature: one client is left, the threshold is 2",
            "TooFewClientsError",
            *taken(*base.sent[first]),
            (seed, AUTH),
            (vector, None),
            (base.sent[last][1], AUTH),
            (base.sent[last][2], None),
        ),
    ]
    return tests


def of_unknown(base: Recording) -> list[dict[str, Any]]:
    """The first server does not know client 2's key."""
    first, me, last = base.p.clients
    signed, seed, vector = base.sent[me]
    given = [*taken(*base.sent[first], signed), (seed, AUTH), *taken(vector, *base.sent[last])]
    comment = "nobody gave the first server client 2's public key: it is left out"
    return [base.first_test("first-drops-client-unknown", comment, [first, last], *given, known=known_to(base.p, me))]


def out_of_turn(base: Recording) -> list[dict[str, Any]]:
    """A signature outside the clients' exchange."""
    p, me = base.p, base.p.clients[1]
    signed = base.signed[me]
    early = {"role": "first", "steps": [{"do": "start"}, {"do": "receive", "frame": signed.hex()}]}
    clients = [frame for who in p.clients if who != me for frame in base.sent[who]]
    role = ref.First(p, base.known)
    steps = [*base.given_to_first(role, *taken(*clients)), {"do": "close"}, {"do": "receive", "frame": signed.hex()}]
    role.close()
    late = {"role": "first", "steps": steps}
    for refusing in (ref.First(p, base.known), role):
        expect_fault("out of turn", "ProtocolError", [], [partial(refusing.receive, signed)])
    return [
        base.fault("first-signature-before-the-key", "before clients are asked", "first", early, "ProtocolError"),
        base.fault("first-signature-too-late", "after the request for the sum", "first", late, "ProtocolError"),
    ]
