"""Known answers of the signed form: what is signed, the frames, and lists of signatures. Made by signed_ref."""

from __future__ import annotations

from typing import Any

import signed_ref as ref
from secagg_known_answers import SPEC, expand, must_raise, params_json, refusal, small


def signed_file() -> dict[str, Any]:
    p = small()
    context = p.context
    signers = {client: ref.Signer(expand(32, "signed", client)) for client in p.clients}
    return {
        "spec": f"{SPEC} §11.2",
        "description": (
            "Operation sign: input.body of a message input.kind from input.sender to input.recipient, signed with the "
            "Ed25519 key of input.seed: its public key and signature are the expected ones. Operation verify: "
            "input.signature of input.public holds for the same, or is refused. Operation signatures: the list "
            "input.body names the expected signers, or is refused."
        ),
        "groups": [
            {"operation": "sign", "params": params_json(p), "tests": list(signing(p.clients, context, signers))},
            {"operation": "verify", "params": params_json(p), "tests": list(verifying(p.clients, context, signers))},
            {"operation": "signatures", "params": params_json(p), "tests": lists(p, context, signers)},
        ],
    }


def signing(clients: tuple[int, ...], context: bytes, signers: dict[int, ref.Signer]) -> Any:
    a, b, c = clients
    cases = {
        "keys": ("what a client advertises", ref.SIGNED_KEYS, a, 0, expand(96, "signed keys")),
        "box": ("a box for one recipient", ref.SIGNED_BOXES, a, b, expand(130, "signed box")),
        "box-for-another": ("the same box for another", ref.SIGNED_BOXES, a, c, expand(130, "signed box")),
        "request": ("an unmask request", ref.SIGNED_REQUEST, c, 0, expand(20, "signed request")),
        "empty": ("nothing at all", ref.SIGNED_KEYS, b, 0, b""),
    }
    for name, (comment, kind, sender, recipient, body) in cases.items():
        signer = signers[sender]
        signature = signer.signature(context, kind, sender, recipient, body)
        given = {"seed": expand(32, "signed", sender).hex(), "kind": kind, "sender": sender, "recipient": recipient}
        yield {
            "id": name,
            "comment": comment,
            "input": {**given, "body": body.hex()},
            "expected": {"public": signer.public.hex(), "signature": signature.hex()},
        }


def verifying(clients: tuple[int, ...], context: bytes, signers: dict[int, ref.Signer]) -> Any:
    a, b, _ = clients
    body = expand(130, "signed box")
    signature = signers[a].signature(context, ref.SIGNED_BOXES, a, b, body)
    good = {"public": signers[a].public.hex(), "kind": ref.SIGNED_BOXES, "sender": a, "recipient": b}
    good |= {"body": body.hex(), "signature": signature.hex()}
    yield {"id": "verified", "comment": "as it was signed", "input": good, "expected": {}}
    other_session = signers[a].signature(bytes(32), ref.SIGNED_BOXES, a, b, body)
    for name, comment, change in (
        ("another-kind", "the same bytes as keys", {"kind": ref.SIGNED_KEYS}),
        ("another-recipient", "a box moved to another client", {"recipient": clients[2]}),
        ("another-sender", "a box under another name", {"sender": b}),
        ("another-key", "signed by somebody else", {"public": signers[b].public.hex()}),
        ("another-body", "one bit of the box", {"body": (body[:-1] + bytes([body[-1] ^ 1])).hex()}),
        ("another-session", "signed for another context", {"signature": other_session.hex()}),
    ):
        yield refusal(name, comment, "signed.json#verified", good | change, {"type": "AuthenticationError"})


def lists(p: Any, context: bytes, signers: dict[int, ref.Signer]) -> list[dict[str, Any]]:
    a, b, c = p.clients
    signed = {i: signers[i].signature(context, ref.SIGNED_KEYS, i, 0, b"keys") for i in p.clients}
    whole = ref.list_body(signed)
    tests: list[dict[str, Any]] = []
    for name, comment, body in (
        ("list", "all three", whole),
        ("list-of-one", "one of them", ref.list_body({b: signed[b]})),
        ("list-of-nobody", "an empty list", ref.list_body({})),
    ):
        expected = {"signers": sorted(ref.read_list(p, body))}
        tests.append({"id": name, "comment": comment, "input": {"body": body.hex()}, "expected": expected})
    entry = {i: ref.u32(i) + signed[i] for i in p.clients}
    for name, comment, body in (
        ("list-descending", "ids out of order", ref.u32(2) + entry[b] + entry[a]),
        ("list-repeats", "a client twice", ref.u32(2) + entry[a] + entry[a]),
        ("list-of-a-stranger", "a client that was not invited", ref.u32(1) + ref.u32(c + 1) + signed[c]),
        ("list-short", "one byte less", whole[:-1]),
        ("list-long", "one byte more", whole + b"\0"),
        ("list-count", "a count of one more", ref.u32(4) + whole[4:]),
    ):
        must_raise("DecodeError", lambda body=body: ref.read_list(p, body), name)
        tests.append(refusal(name, comment, "signed.json#list", {"body": body.hex()}, {"type": "DecodeError"}))
    return tests
