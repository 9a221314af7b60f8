"""Reference for protocols/shared/SPEC.md §9: the attested form, around the roles of shared_ref. No code of securefl/.

Signatures are those of ckks-sum SPEC §6.3, as in the signed masked sum; a directory gives a party's public key.
"""

from __future__ import annotations

import shared_ref as shared
from shared_ref import SECOND, SERVER, Fault, Params, need
from signed_ref import SIGNATURE_BYTES, Signer, verifies
from wire_ref import DecodeError, open_frame, seal_frame

PROTOCOL = 9
ATTESTATION, SIGNED_SEED = 1, 2

Directory = dict[int, bytes]


def frame(p: Params, kind: int, sender: int, recipient: int, signature: bytes) -> bytes:
    return seal_frame(PROTOCOL, kind, p.context, sender, recipient, signature)


def body_of(whole: bytes) -> bytes:
    return whole[56:-16]


def signature_in(p: Params, whole: bytes, kind: int, recipient: int, senders: tuple[int, ...]) -> tuple[int, bytes]:
    """``(sender, signature)``, not verified."""
    try:
        _, sender, body = open_frame(whole, PROTOCOL, p.context, recipient, {kind: SIGNATURE_BYTES})
    except DecodeError as error:
        raise Fault("DecodeError", str(error)) from None
    need(len(body) == SIGNATURE_BYTES, "DecodeError", "another length")
    need(sender in senders, "DecodeError", "not who may send this")
    return sender, body


def verify(
    p: Params, known: Directory, given: bytes | None, kind: int, sender: int, recipient: int, body: bytes
) -> None:
    need(given is not None, "AuthenticationError", "no signature")
    need(sender in known, "AuthenticationError", "nobody knows its key")
    right = verifies(known[sender], given, p.context, kind, sender, recipient, body)
    need(right, "AuthenticationError", "the signature does not verify")


class Client:
    """``seed``: of its signing key. It answers KEY with SIGNED_SEED, SEED and INPUT."""

    def __init__(self, p: Params, me: int, seed: bytes, known: Directory) -> None:
        self.p, self.me, self.signer, self.known = p, me, Signer(seed), known
        self.attestation: bytes | None = None

    def receive(self, whole: bytes, values: list[int], share_seed: bytes, randomness: bytes) -> list[bytes]:
        p = self.p
        if whole[:1] == bytes([PROTOCOL]):
            _, self.attestation = signature_in(p, whole, ATTESTATION, self.me, (SECOND,))
            return []
        _, _, key = p.opened(whole, self.me, shared.KEY)
        verify(p, self.known, self.attestation, ATTESTATION, SECOND, SERVER, key)
        sealed, vector = shared.client(p, self.me, whole, values, share_seed, randomness)
        signature = self.signer.signature(p.context, SIGNED_SEED, self.me, SECOND, body_of(sealed))
        return [frame(p, SIGNED_SEED, self.me, SECOND, signature), sealed, vector]


class Second:
    """``seed``: of its signing key. It takes SIGNED_SEED frames, then SUM_REQUEST."""

    def __init__(self, p: Params, key_seed: bytes, seed: bytes, known: Directory) -> None:
        self.p, self.inner, self.signer, self.known = p, shared.Second(p, key_seed), Signer(seed), known
        self.signatures: dict[int, bytes] = {}

    def start(self) -> list[bytes]:
        p, advertised = self.p, self.inner.start()
        signature = self.signer.signature(p.context, ATTESTATION, SECOND, SERVER, body_of(advertised))
        return [advertised, *(frame(p, ATTESTATION, SECOND, who, signature) for who in p.clients)]

    def receive(self, whole: bytes) -> list[bytes]:
        p = self.p
        if whole[:1] == bytes([PROTOCOL]):
            sender, signature = signature_in(p, whole, SIGNED_SEED, SECOND, p.clients)
            self.signatures[sender] = signature
            return []
        _, _, body = p.opened(whole, SECOND, shared.SUM_REQUEST)
        for who, box in shared.boxes_in(p, body).items():
            verify(p, self.known, self.signatures.get(who), SIGNED_SEED, who, SECOND, box)
        return [self.inner.answer(whole)]


class First:
    """The first server: that of shared_ref, which takes a SEED only behind its client's SIGNED_SEED and relays those of
    the survivors. ``close`` as there.
    """

    def __init__(self, p: Params, known: Directory) -> None:
        self.p, self.inner, self.known = p, shared.First(p), known
        self.signatures: dict[int, bytes] = {}
        self.right: dict[int, bytes] = {}

    def receive(self, whole: bytes) -> None:
        p, due = self.p, self.inner.exchange == 1
        if whole[:1] == bytes([PROTOCOL]):
            sender, signature = signature_in(p, whole, SIGNED_SEED, SECOND, p.clients)
            same = self.right.get(sender, signature) == signature
            need(same, "FaultyClientError", "another signature behind the seed", sender)
            need(due or sender in self.right, "ProtocolError", "outside its exchange")
            self.signatures[sender] = signature
            return
        if not due or whole[2:3] != bytes([shared.SEED]):
            self.inner.receive(whole)
            return
        _, sender, box = p.opened(whole, SERVER, shared.SEED)
        if sender in p.clients and sender not in self.right:
            verify(p, self.known, self.signatures.get(sender), SIGNED_SEED, sender, SECOND, box)
        self.inner.receive(whole)
        self.right.setdefault(sender, self.signatures[sender])

    def close(self) -> list[bytes] | tuple[list[int], list[int]]:
        p, requests, out = self.p, self.inner.exchange == 1, self.inner.close()
        if not requests or isinstance(out, tuple):
            return out
        return [*(frame(p, SIGNED_SEED, who, SECOND, self.right[who]) for who in self.inner.survivors()), *out]
