"""Masked sums of nested shells: whole sessions against the plain sum, and what must stay closed."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.encoding.shells import ShellPacking
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError, TooFewClientsError
from securefl.machine import ClientRole, RoundContext, Segment, ServerRole, Shells
from securefl.plain import PlainSum
from securefl.primitives.kem import Suite
from securefl.secagg import Client, MaskedSum, Params, Server
from securefl.secagg.messages import AdvertiseKeys, EncryptedShares, Kind, MaskedInput, Roster, UnmaskShares
from securefl.secagg.params import PROTOCOL
from securefl.transport.memory import Faults, Outcome, run_session
from securefl.types import SERVER, ClientId, IntegerVector, PartyId
from securefl.wire import HEADER_BYTES, Buffer, seal_frame

IDS = tuple(PartyId(i) for i in (1, 2, 4, 6, 7, 9, 11, 12))
TIERS = dict(zip(IDS, (3, 1, 2, 3, 1, 3, 2, 3), strict=True))
SIZES = (7, 11, 13)
SHELLS = Shells(SIZES, tuple(TIERS.values()), 2)
CONTEXT = RoundContext(b"shells", 1, IDS, sum(SIZES), 1000, 5, b"\5" * 32, shells=SHELLS)
X25519 = MaskedSum(Suite.X25519)


def values_of(client: ClientId) -> IntegerVector:
    rng = np.random.default_rng(client)
    return rng.integers(0, 1001, sum(SIZES[: TIERS[client]]), dtype=np.uint64)


def expected(survivors: tuple[ClientId, ...]) -> tuple[list[int], tuple[int, ...]]:
    """The sums and the opened shells, computed here: the rule is written out again on purpose."""
    sums: list[int] = []
    opened: list[int] = []
    cohorts: list[set[ClientId]] = []
    for shell, size in enumerate(SIZES, start=1):
        holding = {client for client in survivors if TIERS[client] >= shell}
        apart = cohorts[-1] - holding if cohorts else set()
        if len(holding) >= 2 and len(apart) != 1:
            start = sum(SIZES[: shell - 1])
            sums += np.sum([values_of(client)[start : start + size] for client in holding], axis=0).tolist()
            opened.append(shell)
            cohorts.append(holding)
        else:
            sums += [0] * size
    return sums, tuple(opened)


class Wire:
    """All frames of a session, by sender."""

    def __init__(self) -> None:
        self.frames: dict[PartyId, list[bytes]] = {}

    def __call__(self, sender: PartyId, recipient: PartyId, frame: Buffer) -> None:
        self.frames.setdefault(sender, []).append(bytes(frame))


def run(protection: MaskedSum | PlainSum, faults: Faults | None = None, wire: Wire | None = None) -> Outcome:
    return run_session(protection, CONTEXT, values_of, faults=faults, observe=wire)


@pytest.mark.parametrize("suite", Suite)
def test_the_masked_sum_is_the_plain_sum_shell_by_shell(suite: Suite) -> None:
    masked, plain = run(MaskedSum(suite)).unwrap(), run(PlainSum()).unwrap()
    assert masked.survivors == plain.survivors == IDS
    assert masked.values.tolist() == plain.values.tolist() == expected(IDS)[0]
    assert expected(IDS)[1] == (1, 2, 3)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from(IDS), st.integers(0, 3), max_size=3))
def test_whoever_drops_the_sums_are_those_of_the_holders_left(dropped: dict[PartyId, int]) -> None:
    survivors = tuple(client for client in IDS if dropped.get(client, 4) > X25519.vector_frame)
    answering = [client for client in survivors if client not in dropped]
    outcome = run(X25519, Faults(drop_after=dropped))
    if len(answering) < CONTEXT.threshold:
        assert isinstance(outcome.error, TooFewClientsError)
        return
    result = outcome.unwrap()
    sums, opened = expected(survivors)
    assert result.survivors == survivors
    assert result.values.tolist() == sums
    assert Params.of(CONTEXT).opened(survivors) == opened
    plain = run(PlainSum(), Faults(drop_after={client: 0 for client in IDS if client not in survivors}))
    assert plain.unwrap().values.tolist() == sums


def test_uploads_are_those_of_the_tier() -> None:
    outcome = run(X25519)
    packing = ShellPacking.of_context(CONTEXT)
    for client, tier in TIERS.items():
        assert outcome.vector_bytes[client] == 72 + 8 * packing.words_of(tier)
    assert packing.words_of(1) < packing.words_of(2) < packing.words_of(3) == packing.words
    # headroom is for the holders: 4 clients of 1000 need 12 bits, 8 need 13
    assert [part.bits for part in packing.parts] == [13, 13, 12]


# ---- what stays closed ----------------------------------------------------------------------------------------------


def test_no_share_of_a_closed_shell_leaves_a_client() -> None:
    """Clients 6, 9 and 12 drop before their vectors: client 1 alone holds shell 3."""
    wire = Wire()
    outcome = run(X25519, Faults(drop_after=dict.fromkeys((6, 9, 12), 2)), wire)
    result = outcome.unwrap()
    assert result.survivors == (1, 2, 4, 7, 11)
    assert not result.values[sum(SIZES[:2]) :].any()
    assert result.values[: SIZES[0]].all()
    params = Params.of(CONTEXT, Suite.X25519)
    assert params.opened(result.survivors) == (1, 2)
    for client in result.survivors:
        body = wire.frames[client][-1][HEADER_BYTES:-16]
        shares = UnmaskShares.decode(body, params).shares
        # survivors' seeds of shells 1 and 2 (1 + 1 + 2 + 1 + 2 of them hold ≥ 2: 1, 4, 11), and three mask seeds
        assert len(shares) == 5 + 3 + 3


def test_all_that_is_opened_does_not_bare_the_lone_holder_of_a_shell() -> None:
    """The server has taken off every mask it can: what is left of shell 3 is not client 1's packed input."""
    kept: list[np.ndarray] = []

    class Keeping(Server):
        def _forget(self) -> None:
            if self._total is not None:
                kept.append(self._total.copy())
            super()._forget()

    class Protection(MaskedSum):
        def server(self, context: RoundContext) -> Server:
            return Keeping(Params.of(context, self.suite))

    run(Protection(Suite.X25519), Faults(drop_after=dict.fromkeys((6, 9, 12), 2))).unwrap()
    packing = ShellPacking.of_context(CONTEXT)
    low, high = packing.ranges[2]
    own = packing.pack(values_of(IDS[0]), 3)[low:high]
    assert len(kept) == 1
    assert not np.array_equal(kept[0][low:high], own)
    # the test can fail: of an opened shell nothing but the plain sum is left
    opened = np.zeros(packing.words_of(1), dtype=np.uint64)
    for client in (1, 2, 4, 7, 11):
        opened += packing.pack(values_of(PartyId(client))[: SIZES[0]], 1)
    assert np.array_equal(kept[0][: packing.words_of(1)], opened)


def test_a_client_has_its_own_floor_for_holders() -> None:
    params = Params.of(CONTEXT, Suite.X25519)
    Client(params, IDS[0], minimum_holders=2)
    with pytest.raises(ConfigurationError, match="demands at least 3"):
        Client(params, IDS[0], minimum_holders=3)


@given(st.integers(2, 5), st.lists(st.integers(1, 6), min_size=1, max_size=40))
def test_opened_sums_differ_by_nobody_or_by_enough(minimum: int, tiers: list[int]) -> None:
    shells = Shells((1,) * 6, tuple(tiers), minimum)
    opened = shells.opened(tiers)
    counts = {shell: sum(tier >= shell for tier in tiers) for shell in range(1, 7)}
    assert all(counts[shell] >= minimum for shell in opened)
    assert opened[:1] == ((1,) if len(tiers) >= minimum else ())
    for at, lower in enumerate(opened):
        for upper in opened[at + 1 :]:
            apart = counts[lower] - counts[upper]
            assert apart == 0 or apart >= minimum
    # nothing stays closed without a reason
    for shell in range(2, 7):
        below = [other for other in opened if other < shell]
        if shell not in opened and below:
            assert counts[shell] < minimum or 0 < counts[below[-1]] - counts[shell] < minimum


# ---- faults ---------------------------------------------------------------------------------------------------------


class WrongOuterShare(Client):
    """Returns a wrong share of every second shell."""

    def _shares_for(self, client: ClientId, shells: object) -> list[bytes | None]:
        shares = super()._shares_for(client, shells)  # type: ignore[arg-type]
        return [shares[0], *(bytes(32) + b"\7" for _ in shares[1:])]


class WithLiar(MaskedSum):
    def client(self, context: RoundContext, me: ClientId) -> Client:
        role = WrongOuterShare if me == 2 else Client
        return role(Params.of(context, self.suite), me)


def test_a_wrong_share_of_one_shell_is_found_and_named() -> None:
    result = run(WithLiar(Suite.X25519)).unwrap()
    assert result.values.tolist() == expected(IDS)[0]
    assert result.suspects == (2,)


def _at_masking() -> tuple[Server, dict[PartyId, Client], Params]:
    params = Params.of(CONTEXT, Suite.X25519)
    server, clients = Server(params), {client: Client(params, client) for client in IDS}
    server.start()
    frames = [event.frame for client in clients.values() for event in client.start()]
    for _ in range(2):
        for frame in frames:
            server.receive(frame)
        frames = []
        for event in server.close_round():
            frames += [answer.frame for answer in clients[event.to].receive(event.frame) if hasattr(answer, "frame")]
    return server, clients, params


def test_a_vector_of_another_tier_is_refused() -> None:
    server, _, params = _at_masking()
    for tier in (1, 3):
        body = bytes(8 * params.packing.words_of(tier))
        with pytest.raises(DecodeError, match="a masked input has"):
            server.receive(seal_frame(PROTOCOL, Kind.MASKED_INPUT, params.context_hash, PartyId(4), SERVER, body))
    assert MaskedInput.length(params, 2) == 8 * params.packing.words_of(2)


def test_a_client_gives_what_its_tier_holds() -> None:
    _, clients, _ = _at_masking()
    for role in (clients[PartyId(4)], PlainSum().client(CONTEXT, PartyId(4))):
        if role.state.name == "NEW":
            role.start()
        for size in (SIZES[0], sum(SIZES)):
            with pytest.raises(InvalidInputError, match=r"shape \(18,\) for tier 2"):
                role.provide(np.zeros(size, dtype=np.uint64))
        too_large = np.zeros(18, dtype=np.uint64)
        too_large[17] = 1001
        with pytest.raises(InvalidInputError, match="largest value"):
            role.provide(too_large)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dimension": 30}, "sum of the shells"),
        ({"shells": replace(SHELLS, tiers=SHELLS.tiers[1:])}, "one tier"),
        ({"shells": replace(SHELLS, minimum_holders=6)}, "more than the threshold"),
        ({"segments": (Segment(31, 1000),)}, "not both"),
        ({"max_value": 2**62}, "bits"),
    ],
)
def test_shells_that_cannot_work_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        X25519.server(replace(CONTEXT, **changes))


@pytest.mark.parametrize(
    ("sizes", "tiers", "minimum"),
    [((), (), 2), ((3, 0), (1, 2), 2), ((3,), (2,), 2), ((3,), (0,), 2), ((3,), (1,), 1), ((1,) * 256, (1,), 2)],
)
def test_shells_are_checked_when_they_are_made(sizes: tuple[int, ...], tiers: tuple[int, ...], minimum: int) -> None:
    with pytest.raises(ConfigurationError):
        Shells(sizes, tiers, minimum)


def test_parties_that_disagree_on_a_tier_refuse_each_other() -> None:
    other = replace(CONTEXT, shells=replace(SHELLS, tiers=(2, *SHELLS.tiers[1:])))

    class Disagreeing(MaskedSum):
        def client(self, context: RoundContext, me: ClientId) -> Client:
            return Client(Params.of(other if me == 7 else context, self.suite), me)

    def given_values(client: ClientId) -> IntegerVector:
        return values_of(client)

    outcome = run_session(Disagreeing(Suite.X25519), CONTEXT, given_values)
    assert 7 not in outcome.unwrap().survivors
    assert outcome.unwrap().values.tolist() == expected(outcome.unwrap().survivors)[0]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(Kind)), st.binary(max_size=400), st.sampled_from(IDS))
def test_bodies_of_any_bytes_are_refused_by_name(kind: Kind, body: bytes, client: PartyId) -> None:
    params = Params.of(CONTEXT, Suite.X25519)
    tier = params.tier(client)
    decoders = {
        Kind.ADVERTISE_KEYS: lambda: AdvertiseKeys.decode(body, params, tier),
        Kind.ROSTER: lambda: Roster.decode(body, params),
        Kind.SHARE_KEYS: lambda: EncryptedShares.decode(body, params, owner=client, owner_sends=True),
        Kind.DELIVER_SHARES: lambda: EncryptedShares.decode(body, params, owner=client, owner_sends=False),
        Kind.MASKED_INPUT: lambda: MaskedInput.decode(body, params, tier),
        Kind.UNMASK_SHARES: lambda: UnmaskShares.decode(body, params),
    }
    if kind in decoders:
        with contextlib.suppress(DecodeError):  # any other error fails the test
            decoders[kind]()


def test_messages_of_every_tier_come_back() -> None:
    params = Params.of(CONTEXT, Suite.X25519)
    server, clients = Server(params), {client: Client(params, client) for client in IDS}
    server.start()
    for client, role in clients.items():
        (event,) = role.start()
        body = bytes(event.frame)[HEADER_BYTES:-16]
        assert len(body) == AdvertiseKeys.length(params, TIERS[client])
        assert AdvertiseKeys.decode(body, params, TIERS[client]).encode() == body
        with pytest.raises(DecodeError):
            AdvertiseKeys.decode(body, params, TIERS[client] % 3 + 1)
        server.receive(event.frame)
    (first, *_) = server.close_round()
    roster = bytes(first.frame)[HEADER_BYTES:-16]
    assert Roster.decode(roster, params).encode() == roster
    shares = bytes(clients[IDS[0]].receive(first.frame)[0].frame)[HEADER_BYTES:-16]
    assert EncryptedShares.decode(shares, params, owner=IDS[0], owner_sends=True).encode() == shares


def test_roles_are_the_usual_ones() -> None:
    client: ClientRole = X25519.client(CONTEXT, IDS[0])
    server: ServerRole = X25519.server(CONTEXT)
    assert isinstance(client, Client)
    assert isinstance(server, Server)
