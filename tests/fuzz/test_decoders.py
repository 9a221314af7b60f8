"""Decoders accept bytes that encode to themselves, or raise DecodeError: no other error, no big allocation.

The corpus is every frame of real sessions in both suites; mutants are bit flips, cuts, extensions, changed lengths and
counts, and splices of two frames. Each run of hypothesis draws new ones; what fails is printed as bytes.
"""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from securefl.errors import DecodeError
from securefl.machine import RoundContext
from securefl.plain import PlainSum
from securefl.primitives.kem import Suite, public_key
from securefl.primitives.shamir import share_from_bytes
from securefl.secagg import MaskedSum, Params
from securefl.secagg.messages import (
    Abort,
    AdvertiseKeys,
    EncryptedShares,
    Kind,
    MaskedInput,
    Roster,
    UnmaskRequest,
    UnmaskShares,
    client_limits,
    server_limits,
)
from securefl.transport.memory import Faults, run_session
from securefl.transport.transcript import Transcript
from securefl.wire import HEADER_BYTES, OVERHEAD_BYTES, body_length, open_frame, seal_frame

IDS = (1, 2, 5, 9)
CONTEXT = RoundContext(b"fuzz", 0, IDS, 11, 100, 3, bytes(32))
ME = 5
suites = st.sampled_from(Suite)
quick = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True)
class Recorded:
    """One session's frames and what both sides agreed on."""

    params: Params
    transcript: Transcript

    @property
    def limits(self) -> dict[int, int]:
        return {**client_limits(self.params), **server_limits(self.params)}

    def bodies(self, kind: Kind) -> list[bytes]:
        return [e.frame[HEADER_BYTES:-16] for e in self.transcript if e.kind == kind]


@cache
def recorded(suite: Suite) -> Recorded:
    """With a client that drops after sharing, and the server's farewell from a session that failed."""
    transcript = Transcript()
    values = np.arange(11, dtype=np.uint64)
    for faults in (Faults(drop_after={9: 2}), Faults(drop_after={9: 2, 1: 2})):
        run_session(MaskedSum(suite), CONTEXT, lambda _client: values, faults=faults, observe=transcript)
    return Recorded(Params.of(CONTEXT, suite), transcript)


@cache
def mixed_corpus() -> tuple[bytes, ...]:
    plain = Transcript()
    run_session(PlainSum(), CONTEXT, lambda _client: np.arange(11, dtype=np.uint64), observe=plain)
    sessions = (recorded(Suite.X25519).transcript, recorded(Suite.MLKEM768_X25519).transcript, plain)
    return tuple(entry.frame for transcript in sessions for entry in transcript)


# ---- mutants ------------------------------------------------------------------------------------------------

INTERESTING = (0, 1, 2, 3, 4, 5, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


@st.composite
def mutants(draw: st.DrawFn, corpus: tuple[bytes, ...]) -> bytes:
    """One to three changes of a member of the corpus; sometimes none."""
    data = bytearray(draw(st.sampled_from(corpus)))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["flip", "byte", "cut", "extend", "number", "early number", "splice", "repeat"])):
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "byte" if data:
                data[at] = draw(st.integers(0, 255))
            case "cut":
                del data[at : at + draw(st.sampled_from([1, 4, 33, 34, len(data)]))]
            case "extend":
                data += draw(st.binary(min_size=1, max_size=40))
            case "number":
                size = draw(st.sampled_from([1, 4, 8]))
                value = draw(st.sampled_from(INTERESTING)) % 256**size
                data[at : at + size] = value.to_bytes(size, "big")
            case "early number":  # where counts and lengths stand
                place = draw(st.sampled_from([0, 4, 8, 12, 16, 20]))
                data[place : place + 4] = (draw(st.sampled_from(INTERESTING)) % 2**32).to_bytes(4, "big")
            case "splice":
                other = draw(st.sampled_from(corpus))
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case "repeat":
                data[at:at] = data[at : at + draw(st.sampled_from([1, 4, 34, 100]))]
    return bytes(data)


def hold(decode: Callable[[bytes], bytes], data: bytes) -> bool:
    """The invariant, for one input. True when it was accepted."""
    tracemalloc.start()
    try:
        again = decode(data)
    except DecodeError:
        accepted = False
    else:
        accepted = True
        assert again == data, "accepted, but encodes to other bytes"
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 100_000 + 20 * len(data), "allocated more than the input can justify"
    return accepted


# ---- the messages of the masked sum -------------------------------------------------------------------------

DECODERS: dict[str, tuple[Kind, Callable[[bytes, Params], bytes]]] = {
    "AdvertiseKeys": (Kind.ADVERTISE_KEYS, lambda body, params: AdvertiseKeys.decode(body, params).encode()),
    "Roster": (Kind.ROSTER, lambda body, params: Roster.decode(body, params).encode()),
    "EncryptedShares from": (
        Kind.SHARE_KEYS,
        lambda body, params: EncryptedShares.decode(body, params, owner=ME, owner_sends=True).encode(),
    ),
    "EncryptedShares to": (
        Kind.DELIVER_SHARES,
        lambda body, params: EncryptedShares.decode(body, params, owner=ME, owner_sends=False).encode(),
    ),
    "MaskedInput": (Kind.MASKED_INPUT, lambda body, params: bytes(MaskedInput.decode(body, params).encode())),
    "UnmaskRequest": (Kind.UNMASK_REQUEST, lambda body, params: UnmaskRequest.decode(body, params).encode()),
    "UnmaskShares": (Kind.UNMASK_SHARES, lambda body, params: UnmaskShares.decode(body, params).encode()),
    "Abort": (Kind.ABORT, lambda body, params: Abort.decode(body).encode()),
}


def test_every_kind_of_message_is_in_the_corpus_and_has_a_decoder() -> None:
    assert {kind for kind, _ in DECODERS.values()} == set(Kind)
    for suite in Suite:
        assert {entry.kind for entry in recorded(suite).transcript} == set(Kind)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("suite", Suite)
def test_the_corpus_itself_is_accepted(name: str, suite: Suite) -> None:
    kind, decode = DECODERS[name]
    session = recorded(suite)
    accepted = [hold(lambda body: decode(body, session.params), body) for body in session.bodies(kind)]
    # boxes are decoded as those of ME; those of others have other lengths
    assert any(accepted) if kind in (Kind.SHARE_KEYS, Kind.DELIVER_SHARES) else all(accepted)


@pytest.mark.parametrize("name", DECODERS)
@quick
@given(data=st.data())
def test_message_decoders(name: str, data: st.DataObject) -> None:
    kind, decode = DECODERS[name]
    session = recorded(data.draw(suites))
    own, others = tuple(session.bodies(kind)), tuple(f[HEADER_BYTES:-16] for f in mixed_corpus())
    body = data.draw(mutants(own if data.draw(st.integers(0, 9)) else others))
    hold(lambda found: decode(found, session.params), body)


@pytest.mark.parametrize("name", DECODERS)
@quick
@given(body=st.binary(max_size=300))
def test_message_decoders_on_any_bytes(name: str, body: bytes) -> None:
    hold(lambda found: DECODERS[name][1](found, recorded(Suite.X25519).params), body)


# ---- frames -------------------------------------------------------------------------------------------------


def opened(data: bytes, session: Recorded) -> bytes:
    to = int.from_bytes(data[8:12], "big") if len(data) >= 12 else 0
    context = session.params.context_hash
    envelope = open_frame(data, protocol=1, context=context, recipient=to, limits=session.limits)
    return seal_frame(
        envelope.protocol, envelope.kind, envelope.context, envelope.sender, envelope.recipient, envelope.body
    )


@settings(quick, max_examples=500)
@given(st.data())
def test_open_frame(data: st.DataObject) -> None:
    frame = data.draw(mutants(mixed_corpus()))
    accepted = hold(lambda found: opened(found, recorded(data.draw(suites))), frame)
    assert not accepted or frame in mixed_corpus()  # a checksum does not match by chance


@settings(quick, max_examples=500)
@given(st.data())
def test_open_frame_when_the_checksum_is_right(data: st.DataObject) -> None:
    """As a party that breaks the protocol would send it: mutants are sealed before they go out."""
    session = recorded(Suite.X25519)
    frame = bytearray(data.draw(mutants(tuple(e.frame for e in session.transcript))))
    if len(frame) < OVERHEAD_BYTES:
        return
    limit_of_length = len(frame) - OVERHEAD_BYTES
    if data.draw(st.booleans()):
        frame[16:24] = limit_of_length.to_bytes(8, "big")
    context, body = bytes(frame[24:56]), bytes(frame[56:-16])
    sealed = seal_frame(
        frame[0], frame[2], context, int.from_bytes(frame[4:8], "big"), int.from_bytes(frame[8:12], "big"), body
    )
    hold(lambda found: opened(found, session), sealed)
    hold(lambda found: opened(found, session), bytes(frame[:56]) + sealed[56:])


@settings(quick, max_examples=400)
@given(st.data())
def test_body_length(data: st.DataObject) -> None:
    """What a stream reader trusts before it allocates: never more than the largest message of that kind."""
    session = recorded(Suite.X25519)
    header = data.draw(mutants(tuple(frame[:HEADER_BYTES] for frame in mixed_corpus())))
    try:
        length = body_length(header, limits=session.limits)
    except DecodeError:
        return
    assert 0 <= length <= session.limits[header[2]]
    assert length == int.from_bytes(header[16:24], "big")


# ---- keys and shares ----------------------------------------------------------------------------------------


@quick
@given(st.data())
def test_public_keys(data: st.DataObject) -> None:
    suite = data.draw(suites)
    session = recorded(suite)
    keys = [AdvertiseKeys.decode(body, session.params) for body in session.bodies(Kind.ADVERTISE_KEYS)]
    raw = data.draw(mutants(tuple(key for entry in keys for key in (entry.channel_key, entry.mask_key))))
    hold(lambda found: public_key(suite, found).raw, raw)


@quick
@given(st.data())
def test_shares(data: st.DataObject) -> None:
    bodies = recorded(Suite.X25519).bodies(Kind.UNMASK_SHARES)
    raw = data.draw(mutants(tuple(body[at + 1 : at + 34] for body in bodies for at in range(4, len(body), 34))))
    hold(lambda found: share_from_bytes(found).to_bytes(33, "big"), raw)


# ---- transcripts --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transcripts") / "session.jsonl"


@cache
def lines() -> tuple[bytes, ...]:
    written = [
        f'{{"from": {e.sender}, "to": {e.recipient}, "kind": {e.kind}, "frame": "{e.frame[:80].hex()}"}}\n'
        for e in recorded(Suite.X25519).transcript
    ]
    return tuple("".join(written[at : at + 2]).encode() for at in range(0, len(written), 2))


def test_the_corpus_of_transcripts_is_accepted(path: Path) -> None:
    for data in lines():
        path.write_bytes(data)
        assert Transcript.read(path).entries


@settings(quick, max_examples=500)
@given(st.data())
def test_the_transcript_reader(path: Path, data: st.DataObject) -> None:
    text = data.draw(mutants(lines()))
    path.write_bytes(text)
    again = path.with_suffix(".again")
    try:
        transcript = Transcript.read(path)
    except DecodeError:
        return
    transcript.write(again)
    assert again.read_bytes().splitlines() == text.splitlines()  # how lines end is the file's affair
