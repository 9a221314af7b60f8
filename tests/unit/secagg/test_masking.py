"""Keys and masks, recomputed from a session's recorded seeds with other implementations only."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from Crypto.Cipher import AES
from Crypto.Hash import TupleHash256
from Crypto.PublicKey import ECC, MLKEM

from securefl.machine import RoundContext, Send
from securefl.primitives.kem import Suite
from securefl.secagg import Client, Params, Server, masking
from securefl.secagg.messages import AdvertiseKeys, MaskedInput, server_limits
from securefl.secagg.params import PROTOCOL
from securefl.testing import RecordingEntropy, SeededEntropy
from securefl.types import SERVER
from securefl.wire import open_frame

IDS = (3, 4, 70000)
PARAMS = Params(IDS, 20, 1000, session=b"masks", round=2, model_hash=b"\1" * 32, suite=Suite.X25519)
SEED = bytes(range(32))


def fields(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def hkdf(secret: bytes, *parts: bytes, length: int = 32) -> bytes:
    """RFC 5869 with a salt of zeros, at most one block."""
    prk = hmac.new(bytes(32), secret, hashlib.sha256).digest()
    return hmac.new(prk, fields(*parts) + b"\1", hashlib.sha256).digest()[:length]


def tuple_hash(custom: bytes, *parts: bytes) -> bytes:
    hasher = TupleHash256.new(digest_bytes=32, custom=custom)
    hasher.update(*parts)
    return hasher.digest()


def stream(key: bytes, words: int) -> np.ndarray:
    cipher = AES.new(key, AES.MODE_CTR, nonce=b"", initial_value=0)
    return np.frombuffer(cipher.encrypt(bytes(8 * words)), dtype="<u8")


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


def public_of(suite: Suite, seed: bytes) -> bytes:
    if suite is Suite.X25519:
        return ECC.construct(curve="Curve25519", seed=seed).public_key().export_key(format="raw")
    expanded = hashlib.shake_256(seed).digest(96)
    ml_kem = MLKEM.construct(param_set=MLKEM.ML_KEM_768, seed=expanded[:64])
    return ml_kem.ek + public_of(Suite.X25519, expanded[64:])


class Session:
    """A session to the end, recorded: who drew what, and what each client sent. ``dropped`` vanish before masking."""

    def __init__(self, params: Params, dropped: tuple[int, ...] = ()) -> None:
        self.drawn = {i: RecordingEntropy(SeededEntropy(i)) for i in params.clients}
        self.sent: dict[int, list[bytes]] = {i: [] for i in params.clients}
        ramp = np.arange(params.dimension, dtype=np.uint64)
        self.inputs = {i: ramp * np.uint64(i % 7) % np.uint64(params.max_value + 1) for i in params.clients}
        clients = {i: Client(params, i, entropy=self.drawn[i]) for i in params.clients}
        server = Server(params)
        server.start()
        for i, client in clients.items():
            self.sent[i].append(client.start()[0].frame)
            client.provide(self.inputs[i])
        for place in range(4):
            for i in params.clients:
                if len(self.sent[i]) > place and not (place == 2 and i in dropped):
                    server.receive(self.sent[i][place])
            for event in server.close_round():
                if isinstance(event, Send):
                    answers = clients[event.to].receive(event.frame)
                    self.sent[event.to] += [answer.frame for answer in answers if isinstance(answer, Send)]
                else:
                    self.result = event.result

    def body(self, params: Params, client: int, place: int) -> memoryview:
        limits = server_limits(params)
        frame = self.sent[client][place]
        return open_frame(frame, protocol=PROTOCOL, context=params.context_hash, recipient=SERVER, limits=limits).body


# ---- each derivation ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", Suite)
def test_key_pairs_come_from_seeds_as_specified(suite: Suite) -> None:
    params = replace(PARAMS, suite=suite)
    for make, label in (
        (masking.mask_key_pair, b"securefl/v1/secagg/mask-key"),
        (masking.channel_key_pair, b"securefl/v1/secagg/channel-key"),
    ):
        derived = hkdf(SEED, label, params.context_hash, u32(4))
        private, public = make(params, 4, SEED)
        assert public.raw == public_of(suite, derived)
        assert private.suite is public.suite is suite


def test_secrets_come_from_seeds_as_specified() -> None:
    context = PARAMS.context_hash
    ends = (u32(3), u32(70000))
    assert masking.pair_secret(PARAMS, SEED, 3, 70000) == hkdf(SEED, b"securefl/v1/secagg/pair-secret", context, *ends)
    assert masking.pair_stream_key(PARAMS, SEED, 3, 70000) == hkdf(
        SEED, b"securefl/v1/secagg/pair-stream", context, *ends, length=16
    )
    assert masking.self_stream_key(PARAMS, 4, SEED) == hkdf(
        SEED, b"securefl/v1/secagg/self-stream", context, u32(4), length=16
    )
    assert masking.self_commitment(PARAMS, 4, SEED) == tuple_hash(
        b"securefl/v1/secagg/self-commitment", SEED, context, u32(4)
    )


def test_seals_are_bound_as_specified() -> None:
    context, roster = PARAMS.context_hash, bytes(32)
    assert masking.roster_hash(PARAMS, memoryview(b"body")) == tuple_hash(
        b"securefl/v1/secagg/roster", context, b"body"
    )
    assert masking.shares_box_info(PARAMS, roster, 3, 4) == fields(
        b"securefl/v1/secagg/shares-box", context, roster, u32(3), u32(4)
    )
    assert masking.pair_box_info(PARAMS, roster, 3, 4) == fields(
        b"securefl/v1/secagg/pair-box", context, roster, u32(3), u32(4)
    )


DERIVATIONS: list[Callable[[Params], bytes]] = [
    lambda p: masking.mask_key_pair(p, 4, SEED)[1].raw,
    lambda p: masking.channel_key_pair(p, 4, SEED)[1].raw,
    lambda p: masking.self_commitment(p, 4, SEED),
    lambda p: masking.self_stream_key(p, 4, SEED),
    lambda p: masking.pair_secret(p, SEED, 3, 4),
    lambda p: masking.pair_stream_key(p, SEED, 3, 4),
    lambda p: masking.roster_hash(p, b"body"),
    lambda p: masking.shares_box_info(p, bytes(32), 3, 4),
    lambda p: masking.pair_box_info(p, bytes(32), 3, 4),
]


@pytest.mark.parametrize("place", range(len(DERIVATIONS)))
def test_the_whole_context_enters_everything(place: int) -> None:
    """Other model, round, session or cohort: other keys, so masks never cancel across them."""
    changes = [{}, {"model_hash": b"\2" * 32}, {"round": 3}, {"session": b"mask"}, {"threshold": 3}, {"dimension": 21}]
    assert len({DERIVATIONS[place](replace(PARAMS, **change)) for change in changes}) == len(changes)


def test_no_two_derivations_from_one_seed_agree() -> None:
    results = [derive(PARAMS) for derive in DERIVATIONS]
    assert len({result[:16] for result in results if len(result) <= 32}) == 7


def test_who_is_who_enters_every_secret() -> None:
    assert masking.pair_secret(PARAMS, SEED, 3, 4) != masking.pair_secret(PARAMS, SEED, 4, 3)
    assert masking.pair_stream_key(PARAMS, SEED, 3, 4) != masking.pair_stream_key(PARAMS, SEED, 3, 70000)
    assert masking.self_stream_key(PARAMS, 3, SEED) != masking.self_stream_key(PARAMS, 4, SEED)
    assert masking.self_commitment(PARAMS, 3, SEED) != masking.self_commitment(PARAMS, 4, SEED)
    assert masking.mask_key_pair(PARAMS, 3, SEED)[1] != masking.mask_key_pair(PARAMS, 4, SEED)[1]
    for info in (masking.shares_box_info, masking.pair_box_info):
        variants = {info(PARAMS, r, a, b) for r in (bytes(32), SEED) for a, b in ((3, 4), (4, 3), (3, 70000))}
        assert len(variants) == 6


def test_every_bit_of_a_seed_reaches_the_masks() -> None:
    """A seed folded to 28 bits passes every statistical test of its masks."""
    seen = set()
    for bit in range(-1, 256):
        seed = bytearray(SEED)
        if bit >= 0:
            seed[bit // 8] ^= 1 << bit % 8
        low = masking.pair_stream_key(PARAMS, masking.pair_secret(PARAMS, bytes(seed), 3, 4), 3, 4)
        seen |= {low, masking.self_stream_key(PARAMS, 3, bytes(seed))}
    assert len(seen) == 2 * 257


# ---- whole masked inputs ------------------------------------------------------------------------------------


def masked_by_hand(params: Params, client: int, values: np.ndarray, seeds: dict[int, list[bytes]]) -> np.ndarray:
    """y_i = pack(x_i) + stream(b_i) + Σ_{j>i} stream(m_ij) − Σ_{j<i} stream(m_ij). ``seeds``: (s_i, b_i, …) drawn."""
    context, lanes = params.context_hash, params.lanes
    words = [0] * lanes.words
    for at, value in enumerate(values):
        words[at % lanes.words] += int(value) << lanes.bits * (at // lanes.words)
    total = np.array(words, dtype=np.uint64)
    own = hkdf(seeds[client][1], b"securefl/v1/secagg/self-stream", context, u32(client), length=16)
    total += stream(own, lanes.words)
    for other in seeds:
        if other == client:
            continue
        low, high = min(client, other), max(client, other)
        secret = hkdf(seeds[low][0], b"securefl/v1/secagg/pair-secret", context, u32(low), u32(high))
        key = hkdf(secret, b"securefl/v1/secagg/pair-stream", context, u32(low), u32(high), length=16)
        mask = stream(key, lanes.words)
        total = total + mask if other > client else total - mask
    return total


@pytest.mark.parametrize("suite", Suite)
@pytest.mark.parametrize("dimension", [1, 20, 3000])
def test_a_masked_input_is_the_one_of_the_specification(suite: Suite, dimension: int) -> None:
    params = replace(PARAMS, suite=suite, dimension=dimension)
    session = Session(params)
    seeds = {i: session.drawn[i].tokens for i in IDS}
    for client in IDS:
        words = MaskedInput.decode(session.body(params, client, 2), params).words
        assert np.array_equal(words, masked_by_hand(params, client, session.inputs[client], seeds))
    assert session.result.values.tolist() == sum(session.inputs.values()).tolist()


def test_advertised_keys_are_the_ones_of_the_specification() -> None:
    session = Session(PARAMS)
    for client in IDS:
        mask_seed, self_seed, channel_seed = session.drawn[client].tokens[:3]
        keys = AdvertiseKeys.decode(session.body(PARAMS, client, 0), PARAMS)
        context, me = PARAMS.context_hash, u32(client)
        for key, seed, name in ((keys.mask_key, mask_seed, b"mask"), (keys.channel_key, channel_seed, b"channel")):
            derived = hkdf(seed, b"securefl/v1/secagg/" + name + b"-key", context, me)
            assert key == public_of(Suite.X25519, derived)
        assert keys.commitment == tuple_hash(b"securefl/v1/secagg/self-commitment", self_seed, context, me)


@pytest.mark.parametrize("gone", IDS)
def test_the_sum_opens_when_either_end_of_a_pair_drops(gone: int) -> None:
    session = Session(PARAMS, dropped=(gone,))
    left = [i for i in IDS if i != gone]
    assert session.result.survivors == tuple(left)
    assert session.result.values.tolist() == sum(session.inputs[i] for i in left).tolist()


def test_masked_inputs_of_equal_updates_are_unrelated() -> None:
    """Not a proof of secrecy, only a check that no client's vector leaves as it is."""
    params = replace(PARAMS, dimension=3000)
    session = Session(params)
    for client in IDS:
        words = MaskedInput.decode(session.body(params, client, 2), params).words
        bits = np.unpackbits(words.view(np.uint8))
        assert abs(float(bits.mean()) - 0.5) < 5 * 0.5 / bits.size**0.5


def test_a_second_round_with_the_same_seeds_has_other_masks() -> None:
    one, other = Session(PARAMS), Session(replace(PARAMS, round=3))
    assert one.drawn[3].tokens[:3] == other.drawn[3].tokens[:3]
    a = MaskedInput.decode(one.body(PARAMS, 3, 2), PARAMS).words
    b = MaskedInput.decode(other.body(replace(PARAMS, round=3), 3, 2), replace(PARAMS, round=3)).words
    assert not np.any(a == b)


def test_the_protections_context_is_what_the_masks_are_bound_to() -> None:
    context = RoundContext(b"masks", 2, IDS, 20, 1000, PARAMS.threshold, b"\1" * 32)
    assert Params.of(context, Suite.X25519).context_hash == PARAMS.context_hash
