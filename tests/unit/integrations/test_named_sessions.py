"""Sums whose parties have names: ckks under its three key models and shared, everybody suspended between messages."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securefl.encoding.chain import Chain
from securefl.encoding.layout import Layout
from securefl.encoding.public import PublicRandomness
from securefl.encoding.sparsify import RandomK
from securefl.errors import (
    AuthenticationError,
    ConfigurationError,
    FaultyClientError,
    FaultyServerError,
    LocalProtocolError,
    ProtocolError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.integrations.coordinator import Coordinator
from securefl.integrations.helper import Helper
from securefl.integrations.invitation import Invitation
from securefl.integrations.keyfile import charge, make_key, read_key
from securefl.integrations.participant import Participant
from securefl.integrations.peers import HELPER, Peers, make_identity
from securefl.integrations.policy import Policy
from securefl.integrations.roll import Names
from securefl.integrations.settings import Settings
from securefl.integrations.terms import CompressionTerms
from securefl.primitives.identity import Identity
from securefl.types import PartyId
from securefl.wire import HEADER_BYTES, seal_frame

pytest.importorskip("tenseal")

N = 5
SHAPES = {"a": (30, 20), "b": (4,)}
UPDATES = {
    i: {n: np.random.default_rng([i, len(n)]).uniform(-0.4, 0.4, s).astype(np.float32) for n, s in SHAPES.items()}
    for i in range(1, N + 1)
}
IDENTITIES = {PartyId(i): Identity(bytes([i]) * 32) for i in range(1, N + 1)}
HELPERS, SERVERS = Identity(bytes([77]) * 32), Identity(bytes([88]) * 32)
NAMES = Names(tuple(identity.public for identity in IDENTITIES.values()), HELPERS.public, SERVERS.public)
CASES = [("ckks", "threshold"), ("ckks", "key_holder"), ("ckks", "shared_key"), ("shared", ""), ("masked", "")]
EXCHANGES = {"threshold": 5, "masked": 5}
HELPED = CASES[1:4]


def pinned(identity: Identity, **changes: Any) -> Peers:
    known = Peers(identity, True, frozenset(NAMES.clients), NAMES.helper, NAMES.server)
    return dataclasses.replace(known, **changes)


def invitation(protect: str, key_model: str, **changes: Any) -> Invitation:
    settings = Settings(
        protect=protect,
        key_model=key_model or "key_holder",
        identities=True,
        suite="x25519",
        threshold=3,
        clip_range=0.5,
        max_weight=64,
        metrics={"m": 2.0},
    )
    names = NAMES if (protect, key_model) in HELPED else dataclasses.replace(NAMES, helper=b"")
    made = settings.invitation(
        "train",
        b"session",
        1,
        N,
        weight_key="n",
        layout=Layout.of(UPDATES[1]).tensors,
        model_hash=bytes(32),
        arguments_hash=bytes(32),
        names=names,
    )
    return dataclasses.replace(made, **changes)


class Sum:
    """A session. ``silent``: client → how many messages it answers. ``tamper``: sees every delivery."""

    def __init__(self, proposal: Invitation, key_file: Path | None = None, policy: Policy | None = None) -> None:
        self.proposal, self.policy = proposal, policy or Policy()
        self.peers = {i: pinned(identity, key_file=key_file) for i, identity in IDENTITIES.items()}
        self.peers[HELPER] = pinned(HELPERS, key_file=key_file)
        self.server = Coordinator(proposal, SERVERS)
        self.asleep: dict[int, bytes] = {}
        self.answers: dict[int, int] = {}
        self.silent: dict[int, int] = {}
        self.errors: dict[int, Exception] = {}
        self.tamper: Callable[[int, list[Any]], list[Any]] = lambda party, frames: frames

    def run(self) -> Coordinator:
        deliveries = self.server.begin()
        while not self.server.over:
            for party, frames in deliveries.items():
                if party not in self.server.failures:
                    self.deliver(party, self.tamper(party, [bytes(f) for f in frames]))
            deliveries = self.server.close()
        return self.server

    def deliver(self, party: PartyId, frames: list[Any]) -> None:
        self.answers[party] = self.answers.get(party, 0) + 1
        if self.answers[party] > self.silent.get(party, 99):
            return
        try:
            answer = self.help(frames) if party == HELPER else self.act(party, frames)
        except SecureFLError as error:
            self.errors[party] = error
            self.server.failed(party, str(error))
            return
        self.server.receive(party, answer)

    def help(self, frames: list[Any]) -> list[Any]:
        if self.server.first_contact(HELPER):
            helper, answer = Helper.invited(self.proposal.encode(), self.policy, self.peers[HELPER])
        else:
            helper = Helper.resume(self.asleep[HELPER], self.peers[HELPER])
            answer = helper.receive(frames)
        self.asleep[HELPER] = b"" if helper.over else helper.suspend()
        return answer

    def act(self, me: PartyId, frames: list[Any]) -> list[Any]:
        known, answer = self.peers[me], []
        if self.server.first_contact(me):
            participant, answer = Participant.invited(self.proposal.encode(), me, self.policy, known)
        else:
            participant = Participant.resume(self.asleep[me], known)
        answer += participant.receive(frames)
        if self.server.takes_model(me):
            answer += participant.provide(participant.coder.encode(UPDATES[me], me, {"m": 1 / me}))
        self.asleep[me] = b"" if participant.over else participant.suspend()
        return answer


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "ckks.key"
    make_key(path)
    return path


def check(server: Coordinator, alive: tuple[int, ...]) -> None:
    assert server.result is not None, server.error
    assert server.result.survivors == alive
    means, total = server.coder.decode(server.result), sum(alive)
    assert means.total_weight == total
    for name in SHAPES:
        assert np.abs(means.update[name] - sum(i * UPDATES[i][name] for i in alive) / total).max() < 1e-3
    assert means.metrics == pytest.approx({"m": len(alive) / total}, abs=1e-3)


@pytest.mark.parametrize(("protect", "key_model"), CASES)
def test_the_weighted_means_over_everybody(protect: str, key_model: str, key_file: Path) -> None:
    session = Sum(invitation(protect, key_model), key_file)
    check(session.run(), (1, 2, 3, 4, 5))
    assert session.server.exchange == EXCHANGES.get(key_model or protect, 3)
    assert not session.errors
    assert set(session.asleep.values()) == {b""}  # nothing is left to be opened a second time


@pytest.mark.parametrize(("protect", "key_model"), HELPED)
def test_without_those_who_leave_at_their_vector(protect: str, key_model: str, key_file: Path) -> None:
    session = Sum(invitation(protect, key_model), key_file)
    session.silent = {2: 0, 5: 0}
    check(session.run(), (1, 3, 4))
    session = Sum(invitation(protect, key_model), key_file)
    session.silent = {1: 0, 2: 0, 5: 0}
    assert isinstance(session.run().error, TooFewClientsError)


@pytest.mark.parametrize("answers", [0, 1, 2, 3, 4])
def test_the_threshold_key_is_made_again_without_those_who_leave(answers: int) -> None:
    session = Sum(invitation("ckks", "threshold"))
    session.silent = {2: answers}
    server = session.run()
    if answers < 4:
        check(server, (1, 3, 4, 5))
        assert server.exchange == 5 + answers + (answers > 0)
    else:  # shares are out: the same vectors are not summed again without it
        assert isinstance(server.error, TooFewClientsError)


@pytest.mark.parametrize(("protect", "key_model"), HELPED)
@pytest.mark.parametrize("answers", [0, 1])
def test_a_helper_that_leaves_ends_the_sum_with_a_name(
    protect: str, key_model: str, answers: int, key_file: Path
) -> None:
    session = Sum(invitation(protect, key_model), key_file)
    session.silent = {HELPER: answers}
    server = session.run()
    assert isinstance(server.error, ProtocolError)
    assert "key holder" in str(server.error) or "second server" in str(server.error)


@pytest.mark.parametrize(("protect", "key_model"), CASES)
def test_a_key_that_is_not_pinned_is_refused_before_anything_is_sent(protect: str, key_model: str) -> None:
    stranger = Identity(bytes([99]) * 32)
    proposal = invitation(protect, key_model, identities=(*NAMES.clients[:4], stranger.public))
    with pytest.raises(AuthenticationError, match="client 5"):
        Participant.invited(proposal.encode(), PartyId(1), Policy(), pinned(IDENTITIES[PartyId(1)]))
    with pytest.raises(AuthenticationError, match="own"):
        Participant.invited(proposal.encode(), PartyId(2), Policy(), pinned(IDENTITIES[PartyId(1)]))
    if (protect, key_model) in HELPED:
        proposal = invitation(protect, key_model, helper=stranger.public)
        with pytest.raises(AuthenticationError, match="helper"):
            Participant.invited(proposal.encode(), PartyId(1), Policy(), pinned(IDENTITIES[PartyId(1)]))
        proposal = invitation(protect, key_model, server=stranger.public)
        with pytest.raises(AuthenticationError, match="server"):
            Helper.invited(proposal.encode(), Policy(), pinned(HELPERS))


@pytest.mark.parametrize(("protect", "key_model"), [("ckks", "threshold"), ("shared", "")])
def test_without_pins_a_client_must_have_been_told_to_trust_the_server(protect: str, key_model: str) -> None:
    proposal, alone = invitation(protect, key_model).encode(), Peers(IDENTITIES[PartyId(1)])
    with pytest.raises(AuthenticationError, match="allow_unpinned"):
        Participant.invited(proposal, PartyId(1), Policy(), alone)
    Participant.invited(proposal, PartyId(1), Policy(allow_unpinned=True), alone)


def test_seeds_are_sealed_to_the_second_server_and_no_other() -> None:
    honest, false = Sum(invitation("shared", "")), Sum(invitation("shared", ""))
    taken: dict[int, list[bytes]] = {}

    def swap(party: int, frames: list[Any]) -> list[Any]:
        """What a first server with a key of its own would deliver: the signature of another key."""
        if party != HELPER and frames:
            return [taken[party][0], frames[1]]
        return frames

    def note(party: int, frames: list[Any]) -> list[Any]:
        taken.setdefault(party, frames)
        return frames

    honest.tamper, false.tamper = note, swap
    honest.run()
    assert isinstance(false.run().error, TooFewClientsError)
    assert all(isinstance(error, AuthenticationError) for error in false.errors.values())
    assert len(false.errors) == N
    bare = Sum(invitation("shared", ""))
    bare.tamper = lambda party, frames: frames if party == HELPER else frames[1:]
    bare.run()
    assert all("without its signature" in str(error) for error in bare.errors.values())


def test_a_second_server_sums_no_seed_that_its_client_did_not_sign() -> None:
    """A first server that puts clients of its own making beside one would learn that one's vector."""
    for change in ("none", "swapped"):
        session = Sum(invitation("shared", ""))

        def tamper(party: int, frames: list[Any], change: str = change) -> list[Any]:
            if party != HELPER or not frames:
                return frames
            signed, request = frames[:-1], frames[-1]
            if change == "none":
                return [*signed[1:], request]
            context, bodies = bytes(signed[0][24:56]), [frame[HEADER_BYTES:-16] for frame in signed[:2]]
            ids = [int.from_bytes(frame[4:8], "big") for frame in signed[:2]]
            mixed = [seal_frame(9, 2, context, PartyId(ids[at]), HELPER, bodies[1 - at]) for at in (0, 1)]
            return [*mixed, *signed[2:], request]

        session.tamper = tamper
        server = session.run()
        assert isinstance(session.errors[HELPER], AuthenticationError)
        assert isinstance(server.error, ProtocolError)


def test_a_helper_opens_one_sum_and_keeps_to_its_floor() -> None:
    session = Sum(invitation("ckks", "key_holder"))
    kept: list[bytes] = []

    def keep(party: int, frames: list[Any]) -> list[Any]:
        if party == HELPER and frames:
            kept.extend(frames)
        return frames

    session.tamper = keep
    session.run()
    helper, _ = Helper.invited(invitation("ckks", "key_holder").encode(), Policy(), session.peers[HELPER])
    helper.receive(kept)  # a fresh key, which the sum is not under: an abort notice, and it is over
    with pytest.raises(LocalProtocolError):
        helper.suspend()
    with pytest.raises(TooFewClientsError, match="may be opened over 3"):
        Helper.invited(invitation("shared", "").encode(), Policy(minimum_survivors=4), session.peers[HELPER])
    proposal = invitation("ckks", "key_holder").encode()
    with pytest.raises(TooFewClientsError, match="may be opened over 3"):
        Participant.invited(proposal, PartyId(1), Policy(minimum_survivors=4), session.peers[PartyId(1)])


@pytest.mark.parametrize(("protect", "key_model"), CASES)
@pytest.mark.parametrize("levels", [0, 63])
def test_compressed_sums_under_every_protection(protect: str, key_model: str, levels: int, key_file: Path) -> None:
    """Half of the values on 63 levels or the fixed grid, metrics apart: what comes out is the coder's own estimate."""
    mean_square = float(np.mean([(i / 64 * UPDATES[i]["a"]) ** 2 for i in UPDATES]))
    scale = (mean_square, 5 * mean_square) if levels else (0.0, 0.0)
    terms = CompressionTerms("random_k", 0.5, levels, 4.0, True, 1.0, bytes(range(32)), *scale)
    proposal = invitation(protect, key_model, compression=terms)
    server = Sum(proposal, key_file).run()
    means = server.coder.decode(server.result)
    assert (means.total_weight, means.survivors) == (15, 5)
    assert means.metrics == pytest.approx({"m": 5 / 15}, abs=1e-2)
    layout = Layout.of(UPDATES[1])
    coder = Chain((RandomK(0.5),)).at(tuple(s.shape for s in layout.tensors), PublicRandomness(bytes(range(32)), 1))
    wanted = coder.expand(coder.project(sum(i * layout.flatten(UPDATES[i]) for i in UPDATES) / np.float32(15), 0))
    found = layout.flatten({name: value.astype(np.float32) for name, value in means.update.items()})
    step = 8 * np.sqrt(mean_square) / 62 if levels else 0.5 / (2**15 - 1)
    off = np.abs(found - wanted) * 15 / (64 * step)  # in steps of a client's grid
    if levels:
        # A rotation mixes the roundings, five of width 1 to a value: no bound below the root of their number holds for
        # every draw. Variance <= 5/4 and Hoeffding: P(any of 604 > 8.3) < 604 * 2 exp(-8.3² / 2.5) < 2e-9.
        assert off.max() < 8.3
        assert np.sqrt(np.mean(off[off > 0] ** 2)) < 1.25 * np.sqrt(5 / 4)
    else:
        assert off.max() < 5 + 1e-6 * 15 / (64 * step)
    assert means.update["a"].any()
    assert server.coder.scale.mean_square > 0


def test_who_may_speak_to_whom() -> None:
    server = Coordinator(invitation("shared", ""), SERVERS)
    _, frames = Helper.invited(invitation("shared", "").encode(), Policy(), pinned(HELPERS))
    server.receive(PartyId(2), frames[1:2])
    assert "speaks for another" in server.failures[PartyId(2)]
    server.receive(HELPER, frames)
    server.close()
    server.receive(HELPER, frames[1:2])  # a helper has nothing to say to clients later
    assert "nothing to say" in server.failures[HELPER]
    to_helper = seal_frame(9, 2, bytes(32), PartyId(1), PartyId(3), b"")
    server.receive(PartyId(1), [to_helper])
    assert "nothing to say" in server.failures[PartyId(1)]


@pytest.mark.parametrize(("protect", "key_model"), HELPED)
def test_what_a_helper_cannot_read_costs_its_sender_alone(protect: str, key_model: str, key_file: Path) -> None:
    """The server relays only what the helper can take: else one client ends every sum, and nobody knows which one."""
    session = Sum(invitation(protect, key_model), key_file)
    act = session.act

    def spoil(me: PartyId, frames: list[Any]) -> list[Any]:
        answer = act(me, frames)
        if me == 2 and answer:
            context = bytes(memoryview(answer[0])[24:56])
            answer.insert(0, seal_frame(9, 2, context, me, HELPER, bytes(63)))
        return answer

    session.act = spoil  # type: ignore[method-assign]
    check(session.run(), (1, 3, 4, 5))
    assert (
        "DecodeError" in session.server.failures[PartyId(2)] or "nothing to say" in session.server.failures[PartyId(2)]
    )


def signature_of(frame: bytes) -> bytes:
    return frame[HEADER_BYTES:-16]


def signed_seed(frames: list[bytes], sender: int, signature: bytes) -> bytes:
    """A SIGNED_SEED of the session that ``frames`` are of."""
    return seal_frame(9, 2, bytes(frames[0][24:56]), PartyId(sender), HELPER, signature)


WRONG_SIGNATURES: dict[str, tuple[Callable[[Any, list[bytes]], list[bytes]], str]] = {
    "missing": (lambda seen, own: own[1:], "without its signature"),
    "damaged": (
        lambda seen, own: [signed_seed(own, 2, bytes([own[0][HEADER_BYTES] ^ 1]) + signature_of(own[0])[1:]), *own[1:]],
        "does not verify",
    ),
    "of client 1": (lambda seen, own: [signed_seed(own, 2, signature_of(seen[1][0])), *own[1:]], "does not verify"),
    "by client 1's key": (
        lambda seen, own: [
            signed_seed(own, 2, IDENTITIES[1].sign(bytes(own[0][24:56]), 2, 2, HELPER, signature_of(own[1]))),
            *own[1:],
        ],
        "does not verify",
    ),
    "of an earlier session": (
        lambda seen, own: [signed_seed(own, 2, signature_of(seen["earlier"][0])), *own[1:]],
        "does not verify",
    ),
    "behind the seed": (lambda seen, own: [own[1], own[0], own[2]], "without its signature"),
}


def spoiling(
    change: Callable[[Any, list[bytes]], list[bytes]], who: tuple[int, ...], seen: dict[Any, Any], **changes: Any
) -> Sum:
    """A shared sum in which the clients ``who`` send what ``change`` makes of their three frames."""
    session = Sum(invitation("shared", "", **changes))
    act = session.act

    def spoil(me: PartyId, frames: list[Any]) -> list[Any]:
        answer = act(me, frames)
        if answer:
            seen[int(me)] = answer
        return change(seen, answer) if answer and me in who else answer

    session.act = spoil  # type: ignore[method-assign]
    return session


@pytest.mark.parametrize("wrong", WRONG_SIGNATURES)
def test_a_seed_that_its_client_did_not_sign_costs_that_client_alone(wrong: str) -> None:
    """The second server would sum nothing at all; the first one looks before it names anybody."""
    before: dict[Any, Any] = {}
    check(spoiling(lambda seen, own: own, (), before, session=b"earlier").run(), (1, 2, 3, 4, 5))
    change, says = WRONG_SIGNATURES[wrong]
    session = spoiling(change, (2,), {"earlier": before[2]})
    to_helper: list[bytes] = []

    def note(party: int, frames: list[Any]) -> list[Any]:
        to_helper.extend(frames if party == HELPER else [])
        return frames

    session.tamper = note
    check(session.run(), (1, 3, 4, 5))
    assert [int.from_bytes(frame[4:8], "big") for frame in to_helper] == [1, 3, 4, 5, 0]  # signatures, the request
    why = session.server.dropped()
    assert list(why) == [2]
    assert why[PartyId(2)].startswith("AuthenticationError: ")
    assert says in why[PartyId(2)]
    assert not session.errors


def test_too_few_signed_seeds_are_too_few_clients() -> None:
    session = spoiling(WRONG_SIGNATURES["missing"][0], (2, 4, 5), {})
    server = session.run()
    assert isinstance(server.error, TooFewClientsError)
    assert "2 clients are left; the threshold is 3" in str(server.error)
    assert all("without its signature" in server.dropped()[PartyId(client)] for client in (2, 4, 5))
    assert session.answers[HELPER] == 1  # it was not asked for a sum


def test_a_false_signature_behind_the_seed_does_not_reach_the_second_server() -> None:
    """There the last one would count."""
    session = spoiling(lambda seen, own: [*own, signed_seed(own, 2, bytes(64))], (2,), {})
    check(session.run(), (1, 2, 3, 4, 5))
    assert "another signature behind its seed" in session.server.failures[PartyId(2)]
    assert not session.errors


def test_a_box_that_does_not_open_is_for_the_second_server_to_say() -> None:
    """Its client signed it: the sum ends, and the error names that client."""
    session = Sum(invitation("shared", ""))
    act = session.act

    def spoil(me: PartyId, frames: list[Any]) -> list[Any]:
        answer = act(me, frames)
        if me != 2 or not answer:
            return answer
        context, box = bytes(answer[0][24:56]), bytes(len(signature_of(answer[1])))
        signature = IDENTITIES[me].sign(context, 2, me, HELPER, box)
        return [signed_seed(answer, 2, signature), seal_frame(4, 3, context, me, PartyId(0), box), answer[2]]

    session.act = spoil  # type: ignore[method-assign]
    server = session.run()
    assert isinstance(server.error, FaultyClientError)
    assert server.blamed == server.error.clients == (2,)
    why = server.dropped()[PartyId(2)]
    assert why.startswith("FaultyClientError: ")
    assert "do not open" in why


def test_the_key_file_is_private_and_counts(tmp_path: Path) -> None:
    path = tmp_path / "key"
    key = make_key(path)
    assert read_key(path).id == key.id
    assert (read_key(path).secret == key.secret).all()
    with pytest.raises(ConfigurationError, match="cannot be made"):
        make_key(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_key(path)
    with pytest.raises(ConfigurationError, match="securefl-ckks-key"):
        read_key(None)
    path.chmod(0o600)
    data = path.read_bytes()
    for wrong in (data[:-1], b"\x07" + data[1:], data[:1] + b"\x09" + data[2:], data[:20] + b"\x03" + data[21:], b""):
        path.write_bytes(wrong)
        with pytest.raises(ConfigurationError, match="cannot be used"):
            read_key(path)
    charge(path, 7, 10)
    charge(path, 3, 10)
    with pytest.raises(ConfigurationError, match="make a new one"):
        charge(path, 1, 10)
    (tmp_path / "key.opened").write_text("many")
    with pytest.raises(ConfigurationError, match="damaged"):
        charge(path, 1, 10)
    with pytest.raises(ConfigurationError, match="cannot be counted"):
        charge(tmp_path / "gone" / "key", 1, 10)  # no such folder: nothing may be opened uncounted


def test_lists_of_peers(tmp_path: Path) -> None:
    mine, other = make_identity(tmp_path / "me"), Identity(bytes([5]) * 32)
    listed, own = tmp_path / "peers.toml", str(tmp_path / "me")
    settings = {"securefl-identity": own, "securefl-peers": str(listed)}

    def write(*clients: str, rest: str = "") -> None:
        listed.write_text(f"clients = {list(clients)!r}\n{rest}".replace("'", '"'))

    write(mine.public.hex(), other.public.hex(), rest=f'helper = "{HELPERS.public.hex()}"')
    found = Peers.of(settings, bytes(32))
    assert (found.pinned, found.clients, found.helper) == (True, {mine.public, other.public}, HELPERS.public)
    assert found.identity.public == mine.public
    assert not Peers.of({}, bytes(32)).pinned
    for says, content in {
        "not 32 bytes": [mine.public.hex(), "abc"],
        "at least two": [mine.public.hex()],
        "to two parties": [mine.public.hex(), mine.public.hex()],
        "does not list": [other.public.hex(), HELPERS.public.hex()],
    }.items():
        write(*content)
        with pytest.raises(ConfigurationError, match=says):
            Peers.of(settings, bytes(32))
    write(mine.public.hex(), other.public.hex(), rest="color = 1")
    with pytest.raises(ConfigurationError, match="color"):
        Peers.of(settings, bytes(32))
    with pytest.raises(ConfigurationError, match="without securefl-identity"):
        Peers.of({"securefl-peers": str(listed)}, bytes(32))
    (tmp_path / "me").chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        Peers.of(settings, bytes(32))


def test_a_client_with_pins_takes_no_part_in_sums_without_names() -> None:
    proposal = dataclasses.replace(invitation("shared", ""), protect="masked", identities=(), helper=b"", server=b"")
    with pytest.raises(AuthenticationError, match="names no public keys"):
        Participant.invited(proposal.encode(), PartyId(1), Policy(), pinned(IDENTITIES[PartyId(1)]))


def test_what_one_session_suspended_no_other_resumes() -> None:
    session = Sum(invitation("ckks", "threshold"))
    known = session.peers[PartyId(1)]
    participant, _ = Participant.invited(session.proposal.encode(), PartyId(1), Policy(), known)
    data = participant.suspend()
    other = invitation("ckks", "threshold", session=b"other").encode()
    changed = data.replace(session.proposal.encode(), other)[:0] or data
    assert changed == data
    head = len(session.proposal.encode()) + 4
    mixed = len(other).to_bytes(4, "big") + other + data[head:]
    with pytest.raises(SecureFLError, match="another session"):
        Participant.resume(mixed, known)
    with pytest.raises(SecureFLError):
        Participant.resume(data[:-1], known)
    with pytest.raises((FaultyServerError, SecureFLError)):
        Participant.resume(data + b"\0", known)
