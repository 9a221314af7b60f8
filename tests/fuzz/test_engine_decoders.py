"""What engines carry and keep: invitations, lists of signatures, keys and suspended parties decode or are refused."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from securefl.ckks.keys import Key
from securefl.ckks.params import KeyModel, parameter_set
from securefl.ckks.threshold import ThresholdClient, ThresholdParams
from securefl.ckks.threshold.suspension import SuspendedParty
from securefl.encoding.layout import TensorSpec
from securefl.errors import DecodeError
from securefl.integrations.invitation import Invitation
from securefl.integrations.terms import CompressionTerms, NoiseTerms
from securefl.primitives.identity import Directory, Identity
from securefl.primitives.kem import Suite
from securefl.secagg import Params
from securefl.secagg.signed import SignedClient
from securefl.secagg.signed.messages import Signatures
from securefl.types import PartyId

IDS = tuple(PartyId(i) for i in (1, 2, 5))
PARAMS = Params(IDS, 7, 100, 2, suite=Suite.X25519)
THRESHOLD = ThresholdParams(IDS, 7, 100, 2)
IDENTITIES = {i: Identity(bytes([i]) * 32) for i in IDS}
DIRECTORY = Directory({i: identity.public for i, identity in IDENTITIES.items()})
SMALL = parameter_set("n4096-q60")


def invitations() -> list[bytes]:
    plain = Invitation(
        "train", "masked", "x25519", b"run", 3, 3, 2, 16, 0.5, 0.0, 128, "n", (TensorSpec("w", (3, 4), "float32"),),
        (("loss", 10.0),), bytes(32), bytes(32),
    )  # fmt: skip
    terms = CompressionTerms("random_k", 0.1, 3, 3.0, True, 0.9, bytes(32), 0.25, 0.5)
    keys = tuple(identity.public for identity in IDENTITIES.values())
    noisy = replace(plain, metrics=(), noise=NoiseTerms(1.0, 0.7, 10, 6, 1))
    named = replace(plain, protect="ckks", key_model="key_holder", compression=terms, identities=keys)
    return [one.encode() for one in (plain, noisy, replace(named, helper=bytes(32), server=bytes([9]) * 32))]


def signed_client() -> list[bytes]:
    client = SignedClient(PARAMS, IDS[0], IDENTITIES[IDS[0]], DIRECTORY)
    client.start()
    return [client.suspend()]


def party() -> list[bytes]:
    client = ThresholdClient(THRESHOLD, IDS[0], IDENTITIES[IDS[0]], DIRECTORY)
    client.start()
    client.provide(np.arange(7, dtype=np.uint64))
    return [client.suspend()]


def key() -> list[bytes]:
    secret = (np.arange(SMALL.degree) % 3 - 1).astype(np.int8)
    return [Key(SMALL, KeyModel.SHARED_KEY, secret, np.ones((2, 1, SMALL.degree), dtype=np.uint64)).to_bytes()]


DECODERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[bytes], bytes]]] = {
    "invitation": (invitations, lambda data: Invitation.decode(data).encode()),
    "signatures": (
        lambda: [Signatures({i: bytes([i]) * 64 for i in IDS}).encode(), Signatures({}).encode()],
        lambda data: Signatures.decode(data, PARAMS).encode(),
    ),
    "signed client": (
        signed_client,
        lambda data: SignedClient.resume(PARAMS, data, IDENTITIES[IDS[0]], DIRECTORY).suspend(),
    ),
    "threshold party": (party, lambda data: SuspendedParty.decode(data, THRESHOLD).encode(THRESHOLD)),
    "key": (key, lambda data: Key.of_bytes(data).to_bytes()),
}
CORPORA = {name: make() for name, (make, _) in DECODERS.items()}


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_bytes_are_refused_or_encode_to_themselves(name: str, data: st.DataObject) -> None:
    mutant = bytearray(data.draw(st.sampled_from(CORPORA[name])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, min(400, max(0, len(mutant) - 1))))
        match data.draw(st.sampled_from(["flip", "cut", "extend", "number"])):
            case "flip" if mutant:
                mutant[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del mutant[at : at + data.draw(st.sampled_from([1, 4, 32, len(mutant)]))]
            case "extend":
                mutant += data.draw(st.binary(min_size=1, max_size=40))
            case "number":
                value = data.draw(st.sampled_from([0, 1, 2, 0xFFFF, 2**31, 2**32 - 1]))
                mutant[at : at + 4] = value.to_bytes(4, "big")
    try:
        again = DECODERS[name][1](bytes(mutant))
    except DecodeError:
        return
    assert again == bytes(mutant), "accepted, but encodes to other bytes"


@pytest.mark.parametrize("name", DECODERS)
def test_the_corpus_itself_is_accepted(name: str) -> None:
    for good in CORPORA[name]:
        assert DECODERS[name][1](good) == good
