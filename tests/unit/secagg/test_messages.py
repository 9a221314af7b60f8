"""The eight messages: their lengths are the formulas of the specification, and each has exactly one encoding."""

from collections.abc import Callable

import numpy as np
import pytest

from securefl.errors import DecodeError
from securefl.primitives.kem import Suite
from securefl.secagg import Params
from securefl.secagg.messages import (
    Abort,
    AdvertiseKeys,
    EncryptedShares,
    Kind,
    MaskedInput,
    Roster,
    Sealed,
    UnmaskRequest,
    UnmaskShares,
    client_limits,
    server_limits,
)

IDS = (2, 5, 7, 9)
both_suites = pytest.mark.parametrize("suite", Suite)
#: K and S(x) of the specification, written out.
KEY = {Suite.X25519: 32, Suite.MLKEM768_X25519: 1184 + 32}
ENCAPSULATION = {Suite.X25519: 32, Suite.MLKEM768_X25519: 1088 + 32}


def params_of(suite: Suite = Suite.X25519, **changes: int) -> Params:
    return Params(IDS, **{"dimension": 10, "max_value": 100, **changes}, suite=suite)


def seal_length(suite: Suite, plaintext: int) -> int:
    return ENCAPSULATION[suite] + plaintext + 16


def keys_of(suite: Suite, fill: int = 1) -> AdvertiseKeys:
    return AdvertiseKeys(bytes([fill]) * KEY[suite], bytes([fill + 1]) * KEY[suite], bytes([fill + 2]) * 32)


def boxes_of(suite: Suite, owner: int, others: tuple[int, ...], *, owner_sends: bool) -> EncryptedShares:
    def pair(other: int) -> bytes | None:
        low_to_high = owner < other if owner_sends else other < owner
        return bytes([other]) * seal_length(suite, 32) if low_to_high else None

    return EncryptedShares({other: Sealed(bytes([other]) * seal_length(suite, 66), pair(other)) for other in others})


def u32(value: int) -> bytes:
    return value.to_bytes(4, "big")


# ---- lengths and layouts ------------------------------------------------------------------------------------


def test_numbers_on_the_wire() -> None:
    assert [(kind.value, kind.name) for kind in Kind] == [
        (1, "ADVERTISE_KEYS"),
        (2, "ROSTER"),
        (3, "SHARE_KEYS"),
        (4, "DELIVER_SHARES"),
        (5, "MASKED_INPUT"),
        (6, "UNMASK_REQUEST"),
        (7, "UNMASK_SHARES"),
        (8, "ABORT"),
    ]


@both_suites
def test_advertise_keys(suite: Suite) -> None:
    params, message = params_of(suite), keys_of(suite)
    body = message.encode()
    assert len(body) == AdvertiseKeys.length(params) == 2 * KEY[suite] + 32
    assert body == message.channel_key + message.mask_key + message.commitment
    assert AdvertiseKeys.decode(body, params) == message
    refuse_other_lengths(body, lambda data: AdvertiseKeys.decode(data, params))


@both_suites
@pytest.mark.parametrize("ids", [(), (5,), (2, 9), IDS], ids=str)
def test_roster(suite: Suite, ids: tuple[int, ...]) -> None:
    params = params_of(suite)
    message = Roster({client: keys_of(suite, client) for client in ids})
    body = message.encode()
    assert len(body) == 4 + len(ids) * (2 * KEY[suite] + 36)
    assert len(body) <= Roster.limit(params) == 4 + 4 * (2 * KEY[suite] + 36)
    assert body == u32(len(ids)) + b"".join(u32(i) + keys_of(suite, i).encode() for i in ids)
    assert Roster.decode(body, params) == message
    refuse_other_lengths(body, lambda data: Roster.decode(data, params))


@both_suites
@pytest.mark.parametrize(("owner", "higher"), [(2, 3), (5, 2), (7, 1), (9, 0)])
def test_encrypted_shares_to_the_server(suite: Suite, owner: int, higher: int) -> None:
    params, others = params_of(suite), tuple(i for i in IDS if i != owner)
    message = boxes_of(suite, owner, others, owner_sends=True)
    body = message.encode()
    assert len(body) == 4 + 3 * (4 + seal_length(suite, 66)) + higher * seal_length(suite, 32)
    assert len(body) <= EncryptedShares.limit(params)
    assert EncryptedShares.decode(body, params, owner=owner, owner_sends=True) == message
    refuse_other_lengths(body, lambda data: EncryptedShares.decode(data, params, owner=owner, owner_sends=True))


@both_suites
@pytest.mark.parametrize(("owner", "lower"), [(2, 0), (5, 1), (7, 2), (9, 3)])
def test_encrypted_shares_to_a_client(suite: Suite, owner: int, lower: int) -> None:
    params, others = params_of(suite), tuple(i for i in IDS if i != owner)
    message = boxes_of(suite, owner, others, owner_sends=False)
    body = message.encode()
    assert len(body) == 4 + 3 * (4 + seal_length(suite, 66)) + lower * seal_length(suite, 32)
    assert EncryptedShares.decode(body, params, owner=owner, owner_sends=False) == message
    refuse_other_lengths(body, lambda data: EncryptedShares.decode(data, params, owner=owner, owner_sends=False))


def test_a_box_is_laid_out_as_specified() -> None:
    body = boxes_of(Suite.X25519, 5, (2, 7), owner_sends=True).encode()
    two = u32(2) + b"\2" * 114
    seven = u32(7) + b"\7" * 114 + b"\7" * 80
    assert body == u32(2) + two + seven


@pytest.mark.parametrize(("dimension", "words"), [(1, 1), (7, 1), (8, 2), (1000, 143)])
def test_masked_input(dimension: int, words: int) -> None:
    params = params_of(dimension=dimension)
    message = MaskedInput(np.arange(words, dtype=np.uint64) + np.uint64(2**63))
    body = bytes(message.encode())
    assert len(body) == MaskedInput.length(params) == 8 * words == 8 * params.lanes.words
    assert body == b"".join((2**63 + i).to_bytes(8, "little") for i in range(words))
    assert np.array_equal(MaskedInput.decode(body, params).words, message.words)
    refuse_other_lengths(body, lambda data: MaskedInput.decode(data, params))


def test_a_masked_input_is_not_copied() -> None:
    params = params_of()
    words = np.arange(params.lanes.words, dtype=np.uint64)
    assert np.shares_memory(np.frombuffer(MaskedInput(words).encode(), dtype=np.uint64), words)
    body = bytearray(words.tobytes())
    assert np.shares_memory(MaskedInput.decode(memoryview(body), params).words, np.frombuffer(body, dtype=np.uint8))


@pytest.mark.parametrize(("survivors", "dropped"), [(IDS, ()), ((2, 9), (5, 7)), ((), ()), ((2,), (2,)), (IDS, IDS)])
def test_unmask_request(survivors: tuple[int, ...], dropped: tuple[int, ...]) -> None:
    """Overlapping lists decode: the client refuses them for what they are."""
    params, message = params_of(), UnmaskRequest(survivors, dropped)
    body = message.encode()
    assert len(body) == 8 + 4 * (len(survivors) + len(dropped)) <= UnmaskRequest.limit(params)
    lists = [u32(len(ids)) + b"".join(u32(i) for i in ids) for ids in (survivors, dropped)]
    assert body == b"".join(lists)
    assert UnmaskRequest.decode(body, params) == message
    refuse_other_lengths(body, lambda data: UnmaskRequest.decode(data, params))


@pytest.mark.parametrize("shares", [(), (b"\1" * 33,), (None, b"\0" * 33, b"\xff" * 33, None)], ids=["0", "1", "4"])
def test_unmask_shares(shares: tuple[bytes | None, ...]) -> None:
    params, message = params_of(), UnmaskShares(shares)
    body = message.encode()
    assert len(body) == 4 + 34 * len(shares) <= UnmaskShares.limit(params) == 4 + 34 * 4
    assert body == u32(len(shares)) + b"".join(bytes(34) if s is None else b"\1" + s for s in shares)
    assert UnmaskShares.decode(body, params) == message
    refuse_other_lengths(body, lambda data: UnmaskShares.decode(data, params))


@pytest.mark.parametrize("reason", [Abort.TOO_FEW_CLIENTS, Abort.FAULTY_CLIENTS])
def test_abort(reason: int) -> None:
    assert Abort(reason).encode() == bytes([reason])
    assert Abort.decode(bytes([reason])) == Abort(reason)
    assert Abort.LENGTH == 1
    refuse_other_lengths(bytes([reason]), Abort.decode)


@both_suites
def test_the_limits_are_the_largest_lengths(suite: Suite) -> None:
    params = params_of(suite)
    assert client_limits(params) == {
        Kind.ROSTER: 4 + 4 * (2 * KEY[suite] + 36),
        Kind.DELIVER_SHARES: 4 + 4 * (4 + seal_length(suite, 66) + seal_length(suite, 32)),
        Kind.UNMASK_REQUEST: 8 + 8 * 4,
        Kind.ABORT: 1,
    }
    assert server_limits(params) == {
        Kind.ADVERTISE_KEYS: 2 * KEY[suite] + 32,
        Kind.SHARE_KEYS: 4 + 4 * (4 + seal_length(suite, 66) + seal_length(suite, 32)),
        Kind.MASKED_INPUT: 8 * params.lanes.words,
        Kind.UNMASK_SHARES: 4 + 4 * 34,
    }


# ---- refusals -----------------------------------------------------------------------------------------------


def refuse_other_lengths(body: bytes, decode: Callable[[bytes], object]) -> None:
    """Every truncation (sampled for long bodies) and every extension is a DecodeError."""
    step = max(1, len(body) // 60)
    for length in {*range(0, len(body), step), *range(max(0, len(body) - 40), len(body))}:
        with pytest.raises(DecodeError):
            decode(body[:length])
    for extra in (b"\0", b"\1", body or b"\2"):
        with pytest.raises(DecodeError):
            decode(body + extra)


def lists_of_ids(ids: tuple[int, ...]) -> list[tuple[bytes, Callable[[bytes], object]]]:
    """The same list of ids in every message that carries one."""
    params, suite = params_of(), Suite.X25519
    roster = u32(len(ids)) + b"".join(u32(i) + keys_of(suite).encode() for i in ids)
    sent = u32(len(ids)) + b"".join(u32(i) + bytes(114 + 80 * (i > 5)) for i in ids)
    delivered = u32(len(ids)) + b"".join(u32(i) + bytes(114 + 80 * (i < 5)) for i in ids)
    plain = u32(len(ids)) + b"".join(u32(i) for i in ids)
    return [
        (roster, lambda body: Roster.decode(body, params)),
        (sent, lambda body: EncryptedShares.decode(body, params, owner=5, owner_sends=True)),
        (delivered, lambda body: EncryptedShares.decode(body, params, owner=5, owner_sends=False)),
        (plain + u32(0), lambda body: UnmaskRequest.decode(body, params)),
        (u32(0) + plain, lambda body: UnmaskRequest.decode(body, params)),
    ]


def test_the_lists_below_are_refused_for_their_ids_and_nothing_else() -> None:
    for body, decode in lists_of_ids((2, 7)):
        decode(body)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((7, 2), "not ascending"),
        ((2, 2), "repeats"),
        ((2, 7, 7), "repeats"),
        ((3,), "not invited"),
        ((2, 8), "not invited"),
        ((0, 2), "not invited"),
        ((2, 2**32 - 1), "not invited"),
        ((2, 7, 9, 10, 11), "at most 4"),
    ],
    ids=str,
)
def test_unknown_repeated_and_unordered_ids_are_refused(ids: tuple[int, ...], message: str) -> None:
    for body, decode in lists_of_ids(ids):
        with pytest.raises(DecodeError, match=message):
            decode(body)


def test_counts_are_checked_before_anything_is_allocated() -> None:
    params = params_of()
    decoders: list[Callable[[bytes], object]] = [
        *(decode for _, decode in lists_of_ids(())),
        lambda body: UnmaskShares.decode(body, params),
    ]
    for count in (2, 4, 5, 2**31, 2**32 - 1):
        for decode in decoders:
            with pytest.raises(DecodeError):
                decode(u32(count) + u32(0))


def test_boxes_of_a_client_to_itself_are_refused() -> None:
    for owner_sends in (True, False):
        body = u32(1) + u32(5) + bytes(114)
        with pytest.raises(DecodeError, match="addressed to itself"):
            EncryptedShares.decode(body, params_of(), owner=5, owner_sends=owner_sends)


@pytest.mark.parametrize(
    ("flag", "share"),
    [(2, bytes(33)), (255, bytes(33)), (0, bytes(32) + b"\1"), (0, b"\1" + bytes(32)), (2, b"\1" * 33)],
)
def test_a_share_is_present_or_absent(flag: int, share: bytes) -> None:
    with pytest.raises(DecodeError, match="neither present nor absent"):
        UnmaskShares.decode(u32(1) + bytes([flag]) + share, params_of())


@pytest.mark.parametrize("reason", [0, 3, 255])
def test_unknown_reasons_are_refused(reason: int) -> None:
    with pytest.raises(DecodeError, match=f"reason {reason}"):
        Abort.decode(bytes([reason]))


# ---- what is printed ----------------------------------------------------------------------------------------


def test_shares_and_vectors_do_not_print() -> None:
    assert repr(UnmaskShares((b"\xab" * 33,))) == "UnmaskShares()"
    assert repr(MaskedInput(np.array([48879], dtype=np.uint64))) == "MaskedInput()"
