"""Reference for protocols/secagg/SPEC.md §11: the signatures of the signed form, and lists of them."""

from __future__ import annotations

import hashlib
from itertools import pairwise

from Crypto.PublicKey import ECC
from Crypto.Signature import eddsa
from primitives_ref import tuple_hash
from secagg_ref import Params
from wire_ref import DecodeError, seal_frame

PROTOCOL = 8
SIGNED_KEYS, KEY_SIGNATURES, SIGNED_BOXES, BOX_SIGNATURES, SIGNED_REQUEST, REQUEST_SIGNATURES = range(1, 7)
SIGNATURE_BYTES = 64


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


class Signer:
    """A client's Ed25519 key, from 32 bytes."""

    def __init__(self, seed: bytes) -> None:
        self.key = ECC.construct(curve="Ed25519", seed=seed)
        self.public: bytes = self.key.public_key().export_key(format="raw")

    def signature(self, context: bytes, kind: int, sender: int, recipient: int, body: bytes) -> bytes:
        return eddsa.new(self.key, "rfc8032").sign(digest(context, kind, sender, recipient, body))


def digest(context: bytes, kind: int, sender: int, recipient: int, body: bytes) -> bytes:
    route = bytes([kind]) + u32(sender) + u32(recipient)
    return tuple_hash("securefl/v1/ckks/signature", context, route, hashlib.sha256(body).digest())


def verifies(
    public: bytes, signature: bytes, context: bytes, kind: int, sender: int, recipient: int, body: bytes
) -> bool:
    key = ECC.import_key(bytes.fromhex("302a300506032b6570032100") + public)  # RFC 8410
    try:
        eddsa.new(key, "rfc8032").verify(digest(context, kind, sender, recipient, body), signature)
    except ValueError:
        return False
    return True


def frame(context: bytes, kind: int, sender: int, recipient: int, body: bytes) -> bytes:
    return seal_frame(PROTOCOL, kind, context, sender, recipient, body)


def list_body(signatures: dict[int, bytes]) -> bytes:
    """§11.2: count, then id and signature, ascending."""
    return u32(len(signatures)) + b"".join(u32(client) + signatures[client] for client in sorted(signatures))


def read_list(p: Params, body: bytes) -> dict[int, bytes]:
    size = 4 + SIGNATURE_BYTES
    if len(body) < 4 or len(body) != 4 + int.from_bytes(body[:4], "big") * size:
        raise DecodeError("not a list of signatures")
    entries = [body[at : at + size] for at in range(4, len(body), size)]
    ids = [int.from_bytes(entry[:4], "big") for entry in entries]
    if any(a >= b for a, b in pairwise(ids)) or not set(ids) <= set(p.clients):
        raise DecodeError("ids out of order, repeated or not invited")
    return {client: entry[4:] for client, entry in zip(ids, entries, strict=True)}
