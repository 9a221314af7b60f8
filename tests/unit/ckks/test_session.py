"""Whole sessions of the CKKS sum: the same integers as plain, and every fault a named error."""

import dataclasses
import gc

import numpy as np
import pytest

from securefl.ckks import (
    KEY_HOLDER,
    CKKSSum,
    Client,
    Directory,
    Identity,
    KeyHolder,
    KeyModel,
    KeyRing,
    Release,
    Server,
)
from securefl.ckks.messages import EncryptedInput, EncryptedSum, Kind, seal_signed
from securefl.ckks.params import Params, parameter_set
from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    InvalidInputError,
    LocalProtocolError,
    ProtocolError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.machine import Aborted, Completed, NeedInput, RoundContext, Segment, Send, Shells
from securefl.plain import PlainSum
from securefl.primitives.identity import SIGNATURE_BYTES
from securefl.testing import SeededEntropy
from securefl.transport.memory import Faults, run_session
from securefl.types import SERVER, PartyId

pytest.importorskip("tenseal")

N = 5
SEGMENTS = (Segment(300, 14, 40), Segment(90, 65534), Segment(7, 2**16 - 1))


def _context(**changes):
    fields = {
        "session": b"s",
        "round": 1,
        "clients": tuple(PartyId(i) for i in range(1, N + 1)),
        "dimension": 500,
        "max_value": 65534,
        "threshold": 2,
        "model_hash": bytes(32),
    }
    return RoundContext(**(fields | changes))


def _inputs(context, seed=0):
    rng = np.random.default_rng(seed)
    segments = context.segments or (Segment(context.dimension, context.max_value),)
    parts = [
        rng.integers(part.max_value // 3, part.max_value // 2 if part.window else part.max_value + 1, (N, part.size))
        for part in segments
    ]
    return np.concatenate(parts, axis=1).astype(np.uint64)


class Cast:
    """All roles of one session, started, and the key delivered."""

    def __init__(self, context=None, protection=None):
        self.protection = protection or CKKSSum()
        self.context = context or _context()
        self.inputs = _inputs(self.context)
        self.params = self.protection.params(self.context)
        self.server = self.protection.server(self.context)
        self.clients = {i: self.protection.client(self.context, i) for i in self.context.clients}
        self.holder = self.protection.others(self.context)[KEY_HOLDER]
        self.server.start()
        for client in self.clients.values():
            client.start()
        self.notices = {event.to: event.frame for event in self.holder.start()}

    def announce(self):
        self.server.receive(self.notices[SERVER])
        for me, client in self.clients.items():
            assert client.receive(self.notices[me]) == [NeedInput()]
        return self

    def vector(self, me):
        send, done = self.clients[me].provide(self.inputs[me - 1])
        assert (send.to, done) == (SERVER, Completed())
        return send.frame

    def sum_frame(self):
        (send,) = self.server.close_round()
        assert send.to == KEY_HOLDER
        return send.frame


# ---- nested shells


SHELLS = Shells((5000, 9000, 300), (3, 1, 3, 2, 3), 2)


def _nested(shells=SHELLS):
    context = _context(dimension=sum(shells.sizes), shells=shells, max_value=1000)
    whole = _inputs(context)
    return context, {i: whole[i - 1][: sum(shells.sizes[:tier])] for i, tier in enumerate(shells.tiers, start=1)}


@pytest.mark.parametrize(
    "arguments",
    [{}, {"key_model": KeyModel.SHARED_KEY}, {"flooding": True}],
    ids=["key_holder", "shared_key", "flooding"],
)
def test_shells_are_those_of_the_plain_sum(arguments):
    protection = CKKSSum(**arguments)
    context, values = _nested()
    for round, dropped in enumerate([(), (2, 4), (1, 3), (5,), (1, 2, 3)], start=1):
        context = dataclasses.replace(context, round=round)
        faults = Faults(drop_after=dict.fromkeys(dropped, 0))
        plain, found = (
            run_session(each, context, lambda client: values[client].copy(), faults=faults).unwrap()
            for each in (PlainSum(), protection)
        )
        assert found.survivors == plain.survivors
        assert np.array_equal(found.values, plain.values)
        assert found.values[:5000].any()


def test_ciphertexts_of_a_closed_shell_never_reach_the_key_holder():
    context, values = _nested()
    made = Cast(context).announce()
    for me in (1, 2, 4):  # one holder of shell 3, two of shell 2, one of shell 1 alone: 2 and 3 stay closed
        (send, _) = made.clients[me].provide(values[me])
        made.server.receive(send.frame)
    frame = made.sum_frame()
    body = memoryview(frame)[56:-80]
    message = EncryptedSum.decode(body, made.params)
    assert len(message.ciphertexts) == made.params.vector_bytes(whole=True, numbers=(0,))
    (result, _) = made.holder.receive(frame)
    (done,) = made.server.receive(result.frame)
    assert done.result.values[:5000].tolist() == sum(values[me][:5000] for me in (1, 2, 4)).tolist()
    assert not done.result.values[5000:].any()


def test_a_vector_or_sum_of_other_shells_is_refused():
    context, values = _nested()
    made = Cast(context).announce()
    with pytest.raises(InvalidInputError, match="tier 1"):
        made.clients[2].provide(values[1])
    whole = EncryptedInput.length(made.params)
    assert EncryptedInput.length(made.params, 1) < EncryptedInput.length(made.params, 2) < whole
    identity = made.protection._identity(2)
    body = made.holder._key.id + bytes(whole - 32)
    with pytest.raises(DecodeError, match="bytes"):
        made.server.receive(seal_signed(made.params, identity, Kind.ENCRYPTED_INPUT, 2, SERVER, body))
    head = EncryptedSum.head(made.holder._key.id, (1, 2, 4))
    more = bytes(made.params.vector_bytes(whole=True))  # as if shells 2 and 3 were to be opened, too
    server = made.protection._identity(SERVER)
    with pytest.raises(DecodeError):
        made.holder.receive(seal_signed(made.params, server, Kind.ENCRYPTED_SUM, SERVER, KEY_HOLDER, head, more))


def test_a_spoilt_vector_of_a_lower_tier_is_taken_off_again():
    context, values = _nested()
    made = Cast(context).announce()
    frames = {me: made.clients[me].provide(values[me])[0].frame for me in context.clients}
    body = bytearray(memoryview(frames[4])[56:-80])
    size = made.params.parameters.polynomial_bytes
    body[-size:] = b"\xff" * size  # residues beyond the prime in the last ciphertext of client 4
    spoilt = seal_signed(made.params, made.protection._identity(4), Kind.ENCRYPTED_INPUT, 4, SERVER, bytes(body))
    made.server.receive(frames[1])
    with pytest.raises(FaultyClientError):
        made.server.receive(spoilt)
    for me in (2, 3, 5):
        made.server.receive(frames[me])
    (result, _) = made.holder.receive(made.sum_frame())
    (done,) = made.server.receive(result.frame)
    assert done.result.survivors == (1, 2, 3, 5)
    assert done.result.values[:5000].tolist() == sum(values[me][:5000] for me in (1, 2, 3, 5)).tolist()


@pytest.fixture(scope="module")
def cast():
    """A session under key_holder with every vector on its way and the sum not yet opened: for tests that only read."""
    made = Cast().announce()
    made.frames = {me: made.vector(me) for me in made.clients}
    return made


def _fresh_server(cast, *clients):
    server = cast.protection.server(cast.context)
    server.start()
    server.receive(cast.notices[SERVER])
    for me in clients:
        server.receive(cast.frames[me])
    return server


# ---- the same integers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", KeyModel)
@pytest.mark.parametrize("flooding", [False, True])
@pytest.mark.parametrize("segments", [(), SEGMENTS])
def test_the_sum_is_plains_bit_for_bit(model, flooding, segments):
    changes = {"segments": segments, "dimension": 397, "max_value": 2**16 - 1, "encoding": b"e"} if segments else {}
    context = _context(**changes)
    inputs, faults = _inputs(context), Faults(drop_after={PartyId(4): 0})
    ours = run_session(CKKSSum(model, flooding=flooding), context, lambda c: inputs[c - 1], faults=faults)
    plain = run_session(PlainSum(), context, lambda c: inputs[c - 1], faults=faults).unwrap()
    assert ours.failures == []
    assert ours.unwrap().survivors == plain.survivors == (1, 2, 3, 5)
    assert ours.unwrap().values.tolist() == plain.values.tolist()
    assert ours.unwrap().values.tolist() == inputs[[0, 1, 2, 4]].sum(axis=0).tolist()


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_delivery_and_repeated_frames_change_nothing(seed):
    context = _context()
    inputs = _inputs(context)
    again = frozenset({(PartyId(1), 0), (KEY_HOLDER, 0), (KEY_HOLDER, 1), (PartyId(3), 0)})
    outcome = run_session(CKKSSum(), context, lambda c: inputs[c - 1], faults=Faults(reorder=seed, repeat=again))
    assert outcome.unwrap().values.tolist() == inputs.sum(axis=0).tolist()
    assert outcome.unwrap().survivors == context.clients


def test_extreme_vectors_are_exact():
    context = _context(dimension=9000)
    inputs = np.full((N, 9000), 65534, dtype=np.uint64)
    inputs[:, ::2] = 0
    outcome = run_session(CKKSSum(), context, lambda c: inputs[c - 1])
    assert outcome.unwrap().values.tolist() == inputs.sum(axis=0).tolist()


def test_where_the_sum_stays_with_the_key_holder_the_server_gets_a_receipt():
    cast = Cast(protection=CKKSSum(release=Release.KEY_HOLDER)).announce()
    for me in cast.clients:
        cast.server.receive(cast.vector(me))
    receipt, done = cast.holder.receive(cast.sum_frame())
    assert done.result.values.tolist() == cast.inputs.sum(axis=0).tolist()
    assert cast.server.receive(receipt.frame) == [Completed()]
    assert len(receipt.frame) < 200


def test_a_driver_finds_the_sum_that_stayed_with_the_key_holder():
    context = _context()
    inputs = _inputs(context)
    outcome = run_session(CKKSSum(release=Release.KEY_HOLDER), context, lambda c: inputs[c - 1])
    assert outcome.kept[KEY_HOLDER].values.tolist() == inputs.sum(axis=0).tolist()
    with pytest.raises(LocalProtocolError, match="stays with party"):
        outcome.unwrap()


def test_a_session_without_a_key_ends_in_a_named_error():
    server = CKKSSum().server(_context())
    server.start()
    (aborted,) = server.close_round()
    assert "announced no key" in str(aborted.reason)


def test_flooding_is_refused_without_room_unless_the_sum_stays_with_the_key_holder():
    with pytest.raises(ConfigurationError, match="no room for noise flooding"):
        CKKSSum(flooding=True, parameters="n4096-q60")
    assert not CKKSSum(flooding=True, parameters="n4096-q60", release=Release.KEY_HOLDER).flooded
    assert CKKSSum(flooding=True).flooded


def test_flooding_drowns_the_noise_that_the_key_would_show(monkeypatch):
    from securefl.ckks import cipher

    seen = []
    real = cipher._divided
    monkeypatch.setattr(cipher, "_divided", lambda row, primes: seen.append(row.copy()) or real(row, primes))
    for flooding in (False, True):
        cast = Cast(protection=CKKSSum(flooding=flooding, parameters="n8192-q112")).announce()
        for me in cast.clients:
            cast.server.receive(cast.vector(me))
        cast.holder.receive(cast.sum_frame())
    quiet, drowned = (
        np.abs(cipher.centered(rows[1], 4503599627124737)[:166]).astype(float) for rows in seen
    )  # modulo the second prime the message is 0: what is left is noise
    assert quiet.max() < 2**13
    assert np.median(drowned) > 2**40


# ---- faults ---------------------------------------------------------------------------------------------------------


def test_too_few_clients_end_the_session_before_anything_is_opened():
    cast = Cast().announce()
    cast.server.receive(cast.vector(1))
    (aborted,) = cast.server.close_round()
    assert isinstance(aborted.reason, TooFewClientsError)


def test_a_key_holder_that_does_not_answer_ends_in_a_named_error():
    cast = Cast().announce()
    for me in (1, 2):
        cast.server.receive(cast.vector(me))
    cast.sum_frame()
    assert list(cast.server.waiting_for) == [KEY_HOLDER]
    (aborted,) = cast.server.close_round()
    assert isinstance(aborted.reason, ProtocolError)
    assert "did not answer" in str(aborted.reason)


def test_the_key_holder_opens_no_sum_of_fewer_than_the_threshold(cast):
    server = _fresh_server(cast, 1, 2)
    server._params = dataclasses.replace(cast.params, threshold=2)
    del server._answered[PartyId(2)]  # a server that asks for one client
    server._params = cast.params
    head = EncryptedSum.head(server._key_id, (PartyId(1),))
    frame = seal_signed(cast.params, server._identity, Kind.ENCRYPTED_SUM, SERVER, KEY_HOLDER, head, server._packed())
    holder = cast.protection.others(cast.context)[KEY_HOLDER]
    holder.start()
    abort, aborted = holder.receive(frame)
    assert isinstance(aborted, Aborted)
    assert "threshold" in str(aborted.reason)
    (end,) = _fresh_waiting_server(cast).receive(abort.frame)
    assert isinstance(end.reason, ProtocolError)


def _fresh_waiting_server(cast):
    server = _fresh_server(cast, *cast.clients)
    server.close_round()
    return server


def test_a_sum_is_opened_once_per_session_and_key():
    cast = Cast().announce()
    for me in cast.clients:
        cast.server.receive(cast.vector(me))
    frame = cast.sum_frame()
    assert isinstance(cast.holder.receive(frame)[1], Completed)
    with pytest.raises(LocalProtocolError):
        cast.holder.receive(frame)
    again = cast.protection.others(cast.context)[KEY_HOLDER]  # a new role does not help: the key remembers
    again.start()
    abort, aborted = again.receive(frame)
    assert "already" in str(aborted.reason)
    assert isinstance(abort, Send)


def test_keys_count_what_they_open_and_rotate():
    protection = CKKSSum(decryptions=2)
    ids, contexts = [], [_context(round=at, dimension=5) for at in range(5)]
    for context in contexts:
        cast = Cast(context, protection).announce()
        for me in cast.clients:
            cast.server.receive(cast.vector(me))
        cast.holder.receive(cast.sum_frame())
        ids.append(cast.holder._key.id)
    assert ids[0] == ids[1] != ids[2] == ids[3] != ids[4]
    with pytest.raises(ConfigurationError, match="a key may open 2"):
        Cast(_context(dimension=2**16), protection)
    with pytest.raises(ConfigurationError, match="may open 1 to"):
        KeyRing(parameter_set("n4096-q60"), KeyModel.KEY_HOLDER, decryptions=2**21)


def test_a_vector_under_another_key_is_refused_by_name(cast):
    other = Cast(protection=CKKSSum())
    other.protection._identities = cast.protection._identities  # the same people, another key
    other = Cast(protection=other.protection).announce()
    with pytest.raises(FaultyClientError, match="another key") as caught:
        _fresh_server(cast).receive(other.vector(1))
    assert caught.value.clients == (1,)


def test_a_sum_under_another_key_is_refused_by_the_key_holder(cast):
    server = _fresh_server(cast, 1, 2, 3)
    server._key_id = b"k" * 32
    holder = cast.protection.others(cast.context)[KEY_HOLDER]
    holder.start()
    _abort, aborted = holder.receive(server.close_round()[0].frame)
    assert "another key" in str(aborted.reason)


def test_ciphertexts_that_do_not_decrypt_to_a_sum_are_no_result(cast):
    server = _fresh_server(cast, 1, 2, 3)
    middle = np.uint64(cast.params.lattice.scale // 2)  # between two points of the lattice
    server._total[0, 0, 0, 5] = (server._total[0, 0, 0, 5] + middle) % np.uint64(cast.params.parameters.primes[0])
    holder = KeyHolder(
        cast.params, _ring_of(cast), cast.protection._identity(KEY_HOLDER), cast.protection.directory(cast.context)
    )
    holder.start()
    abort, aborted = holder.receive(server.close_round()[0].frame)
    assert isinstance(aborted.reason, DecodeError)
    (end,) = server.receive(abort.frame)
    assert isinstance(end.reason, FaultyClientError)
    assert end.blamed == (1, 2, 3)


def _ring_of(cast):
    cast.protection.ring.key_for(cast.params)._done.clear()  # each test opens the shared session anew
    return cast.protection.ring


def test_the_same_ciphertexts_untouched_are_a_result(cast):
    server = _fresh_server(cast, 1, 2, 3)
    holder = KeyHolder(
        cast.params, _ring_of(cast), cast.protection._identity(KEY_HOLDER), cast.protection.directory(cast.context)
    )
    holder.start()
    result, _done = holder.receive(server.close_round()[0].frame)
    (end,) = server.receive(result.frame)
    assert end.result.values.tolist() == cast.inputs[:3].sum(axis=0).tolist()


def test_more_than_the_invited_and_second_vectors_are_refused(cast):
    server = _fresh_server(cast, 1)
    assert server.receive(cast.frames[1]) == ()
    frame = Cast(protection=cast.protection).announce().vector(1)
    with pytest.raises(FaultyClientError, match="two different"):
        server.receive(frame)
    stranger = Identity(b"x" * 32)
    body = bytes(EncryptedInput.length(cast.params))
    frame = seal_signed(cast.params, stranger, Kind.ENCRYPTED_INPUT, PartyId(99), SERVER, body)
    with pytest.raises(AuthenticationError, match="not in the directory"):
        server.receive(frame)


def test_a_signed_vector_with_residues_out_of_range_leaves_no_trace():
    cast = Cast(_context(dimension=9000)).announce()
    assert cast.params.ciphertexts == 2
    cast.server.receive(cast.vector(2))
    before, frame = cast.server._total.copy(), cast.vector(1)
    spoilt = bytearray(frame[56 : -16 - SIGNATURE_BYTES])
    half = cast.params.parameters.polynomial_bytes
    spoilt[-half:] = b"\xff" * half  # the last polynomial of the second ciphertext
    identity = cast.protection._identity(PartyId(1))
    bad = seal_signed(cast.params, identity, Kind.ENCRYPTED_INPUT, PartyId(1), SERVER, bytes(spoilt))
    with pytest.raises(FaultyClientError, match="client 1 signed") as caught:
        cast.server.receive(bad)
    assert caught.value.clients == (1,)
    assert (cast.server._total == before).all()
    assert cast.server.receive(frame) == ()


@pytest.mark.parametrize("role", ["server", "holder", "client"])
def test_frames_signed_by_someone_else_are_refused(cast, role):
    forger = Identity(b"f" * 32)
    if role == "server":
        body = cast.frames[1][56 : -16 - SIGNATURE_BYTES]
        frame = seal_signed(cast.params, forger, Kind.ENCRYPTED_INPUT, PartyId(1), SERVER, body)
        target = _fresh_server(cast)
    elif role == "holder":
        server = _fresh_server(cast, 1, 2)
        server._identity = forger
        frame = server.close_round()[0].frame
        target = cast.protection.others(cast.context)[KEY_HOLDER]
        target.start()
    else:
        body = cast.notices[PartyId(1)][56 : -16 - SIGNATURE_BYTES]
        frame = seal_signed(cast.params, forger, Kind.PUBLIC_KEY, KEY_HOLDER, PartyId(1), body)
        target = cast.protection.client(cast.context, PartyId(1))
        target.start()
    with pytest.raises(AuthenticationError, match="does not verify"):
        target.receive(frame)


def test_a_public_key_that_is_not_its_id_is_refused(cast):
    body = bytearray(cast.notices[PartyId(1)][56 : -16 - SIGNATURE_BYTES])
    body[40] ^= 1
    signer = cast.protection._identity(KEY_HOLDER)
    frame = seal_signed(cast.params, signer, Kind.PUBLIC_KEY, KEY_HOLDER, PartyId(1), bytes(body))
    client = cast.protection.client(cast.context, PartyId(1))
    client.start()
    with pytest.raises(FaultyServerError, match="does not match its id"):
        client.receive(frame)


def test_a_frame_of_another_session_or_round_is_refused(cast):
    for other in (_context(session=b"t"), _context(round=2), _context(encoding=b"x")):
        server = cast.protection.server(other)
        server.start()
        with pytest.raises(DecodeError, match="another session"):
            server.receive(cast.frames[1])


def test_2400_mutated_vectors_end_in_named_errors_and_leave_no_trace(cast):
    """Bits flipped, cut, stretched, overwritten, and with the outer checksum made right again."""
    from securefl.wire import HEADER_BYTES, seal_frame

    server = _fresh_server(cast, 2)
    before, rng, good = server._total.copy(), np.random.default_rng(5), cast.frames[1]
    small = np.concatenate((rng.integers(0, 8 * 200, 400), rng.integers(8 * (len(good) - 200), 8 * len(good), 400)))
    mutants = []
    for bit in [*small, *rng.integers(0, 8 * len(good), 400)]:
        frame = bytearray(good)
        frame[bit // 8] ^= 1 << bit % 8
        mutants.append(bytes(frame))
    for _ in range(600):  # the checksum authenticates nothing: anybody can make it right
        body = bytearray(good[HEADER_BYTES:-16])
        at = int(rng.integers(0, len(body)))
        body[at] ^= int(rng.integers(1, 256))
        mutants.append(seal_frame(3, Kind.ENCRYPTED_INPUT, cast.params.context_hash, PartyId(1), SERVER, body))
    mutants += [good[: int(cut)] for cut in rng.integers(0, len(good), 200)]
    mutants += [good + bytes(int(more)) for more in rng.integers(1, 100, 100)]
    mutants += [rng.bytes(int(size)) for size in rng.integers(0, 500, 300)]
    assert len(mutants) == 2400
    for frame in mutants:
        with pytest.raises((DecodeError, AuthenticationError, ProtocolError)):
            server.receive(frame)
    assert (server._total == before).all()
    assert server.receive(good) == ()


def test_native_code_sees_no_byte_of_a_frame_that_was_refused(cast, monkeypatch):
    from securefl.ckks import backend

    server = _fresh_server(cast)
    monkeypatch.setattr(backend, "engine", lambda _: pytest.fail("SEAL was called"))
    monkeypatch.setattr("securefl.ckks.server.unpack_residues", lambda *_: pytest.fail("residues were read"))
    frame = bytearray(cast.frames[1])
    frame[1000] ^= 1
    with pytest.raises(DecodeError):
        server.receive(frame)


# ---- secrets and inputs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", KeyModel)
def test_nothing_the_aggregator_holds_or_sees_contains_the_secret_key(model):
    cast = Cast(protection=CKKSSum(model)).announce()
    frames = [cast.notices[SERVER], *(cast.vector(me) for me in cast.clients)]
    for frame in frames[1:]:
        cast.server.receive(frame)
    frames.append(cast.sum_frame())
    frames.append(cast.holder.receive(frames[-1])[0].frame)
    secret = cast.protection.ring.key_for(cast.params).secret
    q = cast.params.parameters.primes[0]
    forms = [
        secret.tobytes()[:64],
        secret.astype(np.int64)[:16].tobytes(),
        (secret.astype(np.int64) % q)[:16].tobytes(),
        secret.astype("<f8")[:16].tobytes(),
    ]
    seen = b"".join(map(bytes, frames)) + b"".join(_bytes_of(cast.server))
    assert len(seen) > 10_000
    assert not any(form in seen for form in forms)
    # The search itself can find one: the key holder's own artefacts contain it.
    assert any(form in b"".join(_bytes_of(cast.holder)) for form in forms)


def _bytes_of(root):
    """The bytes of every array and byte string reachable from an object's own fields."""
    found, todo, seen = [], [root], set()
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type):
            continue
        seen.add(id(item))
        if isinstance(item, np.ndarray):
            found.append(item.tobytes())
        elif isinstance(item, bytes | bytearray | memoryview):
            found.append(bytes(item))
        elif type(item).__module__.startswith("securefl") or isinstance(item, dict | list | tuple | set | frozenset):
            todo += [x for x in gc.get_referents(item) if not callable(x) or hasattr(x, "__dict__")]
    return found


def test_secrets_do_not_print(cast):
    for item in (cast.holder, cast.protection, cast.protection.ring, cast.protection.ring.key_for(cast.params)):
        text = repr(item)
        assert str(cast.protection.ring.key_for(cast.params).secret[:4].tolist()) not in text
        assert len(text) < 80


def test_inputs_beyond_the_grid_are_refused_before_anything_is_encrypted(cast):
    client = cast.protection.client(cast.context, PartyId(1))
    client.start()
    client.receive(cast.notices[PartyId(1)])
    for bad in (np.full(500, 65535, np.uint64), np.zeros(499, np.uint64), np.zeros(500, np.float64)):
        with pytest.raises(InvalidInputError):
            client.provide(bad)
    assert isinstance(client.provide(np.zeros(500, np.uint64))[0], Send)


def test_sums_that_overflow_the_modulus_are_refused_before_anything_is_sent():
    with pytest.raises(ConfigurationError, match="do not fit"):
        CKKSSum().server(_context(max_value=2**44))


def test_clients_without_the_shared_key_cannot_take_part_in_its_model():
    context = _context()
    params = Params.of(context, parameter_set("n4096-q60"), KeyModel.SHARED_KEY)
    with pytest.raises(ConfigurationError, match="hold the secret key"):
        Client(params, PartyId(1), Identity(b"1" * 32), Directory({}))


def test_shared_key_ciphertexts_are_fresh_and_replayable_only_from_the_same_entropy():
    frames = []
    for entropy in (SeededEntropy(1), SeededEntropy(1), None):
        protection = CKKSSum(KeyModel.SHARED_KEY, entropy=entropy)
        cast = Cast(protection=protection).announce()
        frames.append([bytes(cast.vector(me)) for me in (1, 2)])
    assert frames[0][0][88:120] == frames[1][0][88:120]  # the seeds of a replayed source
    assert frames[0][0][88:120] != frames[2][0][88:120]
    assert frames[0][0][88:120] != frames[0][1][88:120]


def test_errors_are_of_the_tree_and_the_server_takes_no_key(cast):
    assert not any("secret" in name or "ring" in name for name in vars(_fresh_server(cast)))
    assert issubclass(AuthenticationError, SecureFLError)
    with pytest.raises(TypeError):
        Server(cast.params, cast.protection._identity(SERVER), cast.protection.directory(cast.context), secret=1)
