"""Vectors of the attested form of the shared sum: what a client and the second server must refuse."""

from __future__ import annotations

from typing import Any

import attested_ref as ref
import shared_ref as shared
from attested_recording import Recording, identity
from attested_ref import body_of
from shared_recording import drawn, of
from shared_ref import SECOND, SERVER, Params, u32
from signed_ref import Signer

#: The order of Ed25519's group: S and S + L fit the same equation, RFC 8032 allows only S.
L = 2**252 + 27742317777372353535851937790883648493


def malleable(signature: bytes) -> bytes:
    """R ‖ S + L."""
    return signature[:32] + (int.from_bytes(signature[32:], "little") + L).to_bytes(32, "little")


def flipped(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


def lengths(p: Params, kind: int, sender: int, to: int, frame: bytes) -> dict[str, tuple[str, bytes]]:
    """Frames of one signature that are too short, too long or damaged: refused before anything is verified."""
    body = body_of(frame)
    return {
        "empty": ("no signature in it", ref.frame(p, kind, sender, to, b"")),
        "short": ("one byte less, the frame is whole", ref.frame(p, kind, sender, to, body[:-1])),
        "long": ("one byte more, the frame is whole", ref.frame(p, kind, sender, to, body + b"\0")),
        "truncated": ("the frame's last byte is missing", frame[:-1]),
        "trailing": ("a byte behind the frame", frame + b"\0"),
        "flipped": ("one bit of the signature, the checksum as it was", flipped(frame, 60)),
    }


def of_clients(base: Recording) -> list[dict[str, Any]]:
    """What client 1 refuses."""
    p, me, other = base.p, *base.p.clients[:2]
    attested, key_frame, key = base.attested[me], base.keys[me], body_of(base.keys[me])
    later = of(p.suite, p.clients, p.dimension, p.max_value, p.threshold, round=p.round + 1)

    def over(
        signer: int = SECOND, at: Params = p, kind: int = ref.ATTESTATION, sender: int = SECOND, to: int = SERVER,
        body: bytes = key,
    ) -> bytes:  # fmt: skip
        signature = Signer(identity(signer)).signature(at.context, kind, sender, to, body)
        return ref.frame(p, ref.ATTESTATION, SECOND, me, signature)

    def carried(signature: bytes) -> bytes:
        return ref.frame(p, ref.ATTESTATION, SECOND, me, signature)

    assert over() == attested
    spoiled, own_key = flipped(body_of(attested), 40), shared.public_key(p.suite, drawn("first-server/key", 32))
    forged = {
        "by-a-stranger": ("of a key that nobody knows", over(signer=99)),
        "by-a-client": ("by client 2's key", over(signer=other)),
        "of-another-key": ("over another public key", over(body=own_key)),
        "of-a-longer-body": ("over the public key and a byte more", over(body=key + b"\0")),
        "of-another-round": ("under the next round's context", over(at=later)),
        "of-another-kind": ("as if it were a SIGNED_SEED", over(kind=ref.SIGNED_SEED)),
        "of-another-sender": ("a route that begins at client 2", over(sender=other)),
        "of-another-recipient": ("a route that ends at client 1, not at the first server", over(to=me)),
        "damaged": ("one bit of S, the checksum is right", carried(spoiled)),
        "zero": ("64 zero bytes", carried(bytes(64))),
        "malleable": ("R ‖ S + L: the equation holds, RFC 8032 refuses it", carried(malleable(body_of(attested)))),
    }
    tests = [
        base.refused_by_client(f"attestation-{name}", comment, "AuthenticationError", frame, key_frame)
        for name, (comment, frame) in forged.items()
    ]
    tests += [
        base.refused_by_client("attestation-missing", "KEY alone", "AuthenticationError", key_frame),
        base.refused_by_client(
            "key-of-the-first-server",
            "an honest attestation before a key of the first server's making",
            "AuthenticationError",
            attested,
            p.frame(shared.KEY, SERVER, me, own_key),
        ),
        base.refused_by_client(
            "attestation-overwritten",
            "a right one, then one of client 2's key: the later one counts",
            "AuthenticationError",
            attested,
            over(signer=other),
            key_frame,
        ),
    ]
    misplaced = {
        "for-another-client": ("the frame for client 2", base.attested[other]),
        "from-a-client": ("client 2 in the second server's place", ref.frame(p, 1, other, me, body_of(attested))),
        "from-the-first-server": ("party 0 in the second's place", ref.frame(p, 1, SERVER, me, body_of(attested))),
        "in-another-round": ("a frame of the next round", ref.frame(later, 1, SECOND, me, body_of(attested))),
        "of-kind-2": ("a SIGNED_SEED to a client", ref.frame(p, 2, SECOND, me, body_of(attested))),
    }
    misplaced |= lengths(p, ref.ATTESTATION, SECOND, me, attested)
    tests += [
        base.refused_by_client(f"attestation-{name}", comment, "DecodeError", frame)
        for name, (comment, frame) in misplaced.items()
    ]
    return tests


def forged_seeds(base: Recording) -> dict[str, tuple[str, bytes]]:
    """SIGNED_SEED frames under client 2's name which are not its signature over its sealed seed."""
    p, (first, me, last) = base.p, base.p.clients
    signed, box = base.signed, base.box(me)
    later = of(p.suite, p.clients, p.dimension, p.max_value, p.threshold, round=p.round + 1)

    def over(
        signer: int = me, at: Params = p, kind: int = ref.SIGNED_SEED, sender: int = me, to: int = SECOND,
        body: bytes = box,
    ) -> bytes:  # fmt: skip
        return carried(Signer(identity(signer)).signature(at.context, kind, sender, to, body))

    def carried(signature: bytes) -> bytes:
        return ref.frame(p, ref.SIGNED_SEED, me, SECOND, signature)

    assert over() == signed[me]
    return {
        "by-a-stranger": ("of a key that nobody knows", over(signer=99)),
        "by-another-client": ("client 1 signs for client 2", over(signer=first)),
        "by-the-second-server": ("by the second server's own key", over(signer=SECOND)),
        "of-another-client": ("client 1's signature under client 2's name", carried(body_of(signed[first]))),
        "of-another-box": ("over client 5's box", over(body=base.box(last))),
        "of-another-round": ("under the next round's context", over(at=later)),
        "of-another-kind": ("as if it were an ATTESTATION", over(kind=ref.ATTESTATION)),
        "of-another-sender": ("a route that begins at client 1", over(sender=first)),
        "of-another-recipient": ("a route that ends at the first server", over(to=SERVER)),
        "damaged": ("one bit of S, the checksum is right", carried(flipped(body_of(signed[me]), 40))),
        "malleable": ("R ‖ S + L", carried(malleable(body_of(signed[me])))),
    }


def misplaced_seeds(base: Recording) -> dict[str, tuple[str, bytes]]:
    """Frames that can be no SIGNED_SEED of an invited client."""
    p, me, signed = base.p, base.p.clients[1], base.signed
    later = of(p.suite, p.clients, p.dimension, p.max_value, p.threshold, round=p.round + 1)
    return {
        "of-an-uninvited-party": ("client 4 was not invited", ref.frame(p, 2, 4, SECOND, body_of(signed[me]))),
        "to-the-first-server": ("the frame is for party 0", ref.frame(p, 2, me, SERVER, body_of(signed[me]))),
        "in-another-round": ("a frame of the next round", ref.frame(later, 2, me, SECOND, body_of(signed[me]))),
        "of-kind-1": ("an ATTESTATION to the second server", ref.frame(p, 1, me, SECOND, body_of(signed[me]))),
    } | lengths(p, ref.SIGNED_SEED, me, SECOND, signed[me])


def of_second(base: Recording) -> list[dict[str, Any]]:
    """What the second server refuses. Client 2's signature is the one that is changed."""
    p, (first, me, last), request = base.p, base.p.clients, base.session["request"]
    signed, forged = base.signed, forged_seeds(base)
    made_up = shared.seal(p.suite, body_of(base.keys[me]), bytes(32), p.info(me), bytes(32))
    boxes = {**{who: base.box(who) for who in p.clients}, me: made_up}
    body = u32(len(boxes)) + b"".join(u32(who) + boxes[who] for who in p.clients)
    replaced = p.frame(shared.SUM_REQUEST, SERVER, SECOND, body)
    tests = [
        base.refused_by_second(
            f"seed-{name}", comment, "AuthenticationError", signed[first], frame, signed[last], request
        )
        for name, (comment, frame) in forged.items()
    ]
    tests += [
        base.refused_by_second("no-seed-signed", "the request alone", "AuthenticationError", request),
        base.refused_by_second(
            "one-seed-not-signed",
            "client 2's signature is missing",
            "AuthenticationError",
            signed[first],
            signed[last],
            request,
        ),
        base.refused_by_second(
            "last-seed-not-signed",
            "client 5's signature is missing: every one is looked at",
            "AuthenticationError",
            signed[first],
            signed[me],
            request,
        ),
        base.refused_by_second(
            "box-of-the-first-server",
            "a seed of its own making, sealed as client 2's, beside client 2's honest signature",
            "AuthenticationError",
            *signed.values(),
            replaced,
        ),
        base.refused_by_second(
            "seed-signature-overwritten",
            "a right signature of client 2, then one by client 1: the later one counts",
            "AuthenticationError",
            *signed.values(),
            forged["by-another-client"][1],
            request,
        ),
    ]
    tests += [
        base.refused_by_second(f"seed-{name}", comment, "DecodeError", signed[first], frame)
        for name, (comment, frame) in misplaced_seeds(base).items()
    ]
    return tests


def later_ones_count(base: Recording) -> list[dict[str, Any]]:
    """A false signature does no harm when the right one follows."""
    p, (first, me, *_) = base.p, base.p.clients
    false = ref.frame(p, ref.ATTESTATION, SECOND, first, body_of(base.signed[me]))
    frames = (false, base.attested[first], base.keys[first])
    wrong = ref.frame(p, ref.SIGNED_SEED, me, SECOND, body_of(base.signed[first]))
    return [
        {
            "id": "attested-again",
            "comment": "a false attestation, then the right one",
            "input": base.client_input(first, *frames, provides=True),
            "expected": {"sent": [frame.hex() for frame in base.sent[first]]},
        },
        base.second_test(
            "signed-again", "a false signature of client 2, then the right one", wrong, *base.signed.values()
        ),
    ]
