"""Frames and fields: one encoding per value, everything else refused before it costs anything."""

import mmap
import struct

import numpy as np
import pytest
from Crypto.Cipher import AES

from securefl import wire
from securefl.errors import DecodeError
from securefl.wire import (
    CHECKSUM_BYTES,
    HEADER_BYTES,
    OVERHEAD_BYTES,
    Envelope,
    Reader,
    Writer,
    body_length,
    open_frame,
    seal_frame,
)

CONTEXT = bytes(range(32))
LIMITS = {5: 100, 6: 0}
BODY = b"the body of a message"
FRAME = seal_frame(1, 5, CONTEXT, 7, 9, BODY)


def opened(frame: bytes, **changes: object) -> Envelope:
    expected = {"protocol": 1, "context": CONTEXT, "recipient": 9, "limits": LIMITS}
    return open_frame(frame, **{**expected, **changes})


def frame_by_hand(
    *,
    protocol: int = 1,
    version: int = 1,
    kind: int = 5,
    zero: int = 0,
    sender: int = 7,
    recipient: int = 9,
    zeros: int = 0,
    length: int | None = None,
    context: bytes = CONTEXT,
    body: bytes = BODY,
) -> bytes:
    """Wire SPEC §2, with pycryptodome's GMAC (zero key, zero nonce) as checksum: a whole frame whatever is in it."""
    numbers = (protocol, version, kind, zero, sender, recipient, zeros, len(body) if length is None else length)
    frame = struct.pack(">BBBBIIIQ", *numbers) + context + body
    return frame + AES.new(bytes(16), AES.MODE_GCM, nonce=bytes(12)).update(frame).digest()


# ---- frames -------------------------------------------------------------------------------------------------


def test_sizes() -> None:
    assert (HEADER_BYTES, CHECKSUM_BYTES, OVERHEAD_BYTES) == (56, 16, 72)
    assert HEADER_BYTES % 8 == 0  # 64-bit words of a body are aligned


def test_the_checksum_of_nothing_is_gcms() -> None:
    # SP 800-38D test case 1 ("The Galois/Counter Mode", McGrew and Viega): K = 0, IV = 0, no data
    assert wire._checksum(b"").hex() == "58e2fccefa7e3061367f1d57a4e7455a"


@pytest.mark.parametrize("body", [b"", b"x", BODY, bytes(1000)])
def test_a_frame_is_the_one_of_the_specification(body: bytes) -> None:
    assert seal_frame(1, 5, CONTEXT, 7, 9, body) == frame_by_hand(body=body)
    assert len(frame_by_hand(body=body)) == len(body) + OVERHEAD_BYTES


def test_an_envelope_says_what_went_in() -> None:
    envelope = opened(FRAME)
    assert (envelope.protocol, envelope.kind, envelope.context) == (1, 5, CONTEXT)
    assert (envelope.sender, envelope.recipient, bytes(envelope.body)) == (7, 9, BODY)
    assert envelope.checksum == FRAME[-16:]


def test_parts_are_joined_and_any_buffer_is_taken() -> None:
    words = np.arange(3, dtype="<u8")
    frame = seal_frame(1, 5, CONTEXT, 7, 9, b"ab", bytearray(b"cd"), memoryview(b"ef"), words.view(np.uint8).data)
    assert frame == frame_by_hand(body=b"abcdef" + words.tobytes())


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_body_is_a_view_and_not_a_copy(kind: type) -> None:
    frame = kind(FRAME)
    body = opened(frame).body
    assert isinstance(body, memoryview)
    assert body.obj is (frame.obj if isinstance(frame, memoryview) else frame)


def test_nothing_of_the_body_prints() -> None:
    text = repr(opened(FRAME))
    assert "body" not in text
    assert FRAME[-16:].hex() not in text


def test_every_flipped_bit_is_found() -> None:
    for bit in range(8 * len(FRAME)):
        damaged = bytearray(FRAME)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(DecodeError):
            opened(bytes(damaged))


@pytest.mark.parametrize("bit", [0, 7, 128 * 8, 4095 * 8 + 3, 4096 * 8 - 1])
def test_damage_within_one_block_is_found_in_long_bodies(bit: int) -> None:
    frame = bytearray(seal_frame(1, 5, CONTEXT, 7, 9, bytes(4096)))
    at = HEADER_BYTES + bit // 8
    for pattern in (1 << bit % 8, 0xFF):
        frame[at] ^= pattern
        with pytest.raises(DecodeError, match="checksum"):
            opened(bytes(frame), limits={5: 5000})
        frame[at] ^= pattern
    opened(bytes(frame), limits={5: 5000})


def test_every_truncation_and_extension_is_refused() -> None:
    for length in range(len(FRAME)):
        with pytest.raises(DecodeError):
            opened(FRAME[:length])
    for extra in (b"\0", FRAME[:1], FRAME):
        with pytest.raises(DecodeError):
            opened(FRAME + extra)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"protocol": 2}, "protocol 1 version 1"),
        ({"protocol": 0}, "protocol 1 version 1"),
        ({"version": 0}, "protocol 1 version 1"),
        ({"version": 2}, "protocol 1 version 1"),
        ({"zero": 1}, "protocol 1 version 1"),
        ({"zeros": 1}, "protocol 1 version 1"),
        ({"kind": 4}, "kind 4"),
        ({"kind": 6}, "at most 0"),
        ({"recipient": 8}, "addressed to party 8"),
        ({"context": CONTEXT[::-1]}, "another session"),
        ({"length": len(BODY) - 1}, "announces 20 body bytes and carries 21"),
        ({"length": len(BODY) + 1}, "announces 22 body bytes and carries 21"),
        ({"length": 2**64 - 1}, "at most 100"),
        ({"body": bytes(101)}, "at most 100"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_each_field_is_checked_even_when_the_checksum_is_right(changed: dict, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        opened(frame_by_hand(**changed))


def test_the_senders_number_is_the_callers_to_judge() -> None:
    assert opened(frame_by_hand(sender=2**32 - 1)).sender == 2**32 - 1


def test_the_largest_body_of_a_kind_is_taken() -> None:
    assert opened(frame_by_hand(body=bytes(100))).body.nbytes == 100
    assert opened(frame_by_hand(kind=6, body=b"")).body.nbytes == 0


def test_a_stream_reader_learns_the_length_before_the_body() -> None:
    assert body_length(FRAME[:HEADER_BYTES], limits=LIMITS) == len(BODY)
    for header in (FRAME[: HEADER_BYTES - 1], FRAME[: HEADER_BYTES + 1], b""):
        with pytest.raises(DecodeError, match="header has 56 bytes"):
            body_length(header, limits=LIMITS)
    with pytest.raises(DecodeError, match="kind 5"):
        body_length(FRAME[:HEADER_BYTES], limits={4: 100})
    with pytest.raises(DecodeError, match="at most 20"):
        body_length(FRAME[:HEADER_BYTES], limits={5: 20})
    assert body_length(FRAME[:HEADER_BYTES], limits={5: 21}) == 21


def test_a_view_of_wider_items_is_refused_and_not_misread() -> None:
    frame = seal_frame(1, 5, CONTEXT, 7, 9, bytes(16))
    with pytest.raises(DecodeError):
        opened(memoryview(frame).cast("Q"))


def test_a_body_may_exceed_two_gibibytes() -> None:
    """Lanes allows vectors of 2**36 bytes. The pages are never written, so they cost no memory."""
    with mmap.mmap(-1, 2**31, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        view = memoryview(pages)
        try:
            assert len(wire._checksum(view)) == CHECKSUM_BYTES
        finally:
            view.release()


# ---- fields -------------------------------------------------------------------------------------------------


def test_integers_are_big_endian_and_blobs_carry_their_length() -> None:
    data = Writer().u8(1).u32(2).u64(3).raw(b"raw", 3).blob(b"blob").u8(True).done()
    assert data.hex() == "01" + "00000002" + "0000000000000003" + b"raw".hex() + "00000004" + b"blob".hex() + "01"
    reader = Reader(data)
    assert (reader.u8(), reader.u32(), reader.u64()) == (1, 2, 3)
    assert (bytes(reader.raw(3)), bytes(reader.blob(limit=4)), reader.u8()) == (b"raw", b"blob", 1)
    assert reader.remaining == 0
    reader.end()


@pytest.mark.parametrize(("method", "bits"), [("u8", 8), ("u32", 32), ("u64", 64)])
def test_integers_at_their_bounds(method: str, bits: int) -> None:
    for value in (0, 2**bits - 1):
        data = getattr(Writer(), method)(value).done()
        assert len(data) == bits // 8
        assert getattr(Reader(data), method)() == value
    for value in (-1, 2**bits):
        with pytest.raises(ValueError, match=f"does not fit {bits} bits"):
            getattr(Writer(), method)(value)
    with pytest.raises(DecodeError, match="1 bytes too early"):
        getattr(Reader(bytes(bits // 8 - 1)), method)()


def test_a_writer_takes_exactly_the_bytes_it_was_told() -> None:
    for value in (b"ab", b"abcd"):
        with pytest.raises(ValueError, match="expected 3 bytes"):
            Writer().raw(value, 3)
    assert Writer().raw(np.arange(2, dtype="<u8").data, 16).done() == bytes([0] * 8 + [1] + [0] * 7)


def test_a_reader_refuses_what_is_not_there() -> None:
    with pytest.raises(DecodeError, match="2 bytes too early"):
        Reader(b"abc").raw(5)
    reader = Reader(b"abc")
    reader.u8()
    with pytest.raises(DecodeError, match="2 bytes are left over"):
        reader.end()
    assert bytes(reader.raw(2)) == b"bc"
    assert bytes(reader.raw(0)) == b""
    reader.end()


def test_a_blob_is_limited_before_it_is_read() -> None:
    announced = (2**32 - 1).to_bytes(4, "big")
    with pytest.raises(DecodeError, match="at most 10"):
        Reader(announced).blob(limit=10)
    with pytest.raises(DecodeError, match="too early"):
        Reader(announced + b"short").blob(limit=2**32)


@pytest.mark.parametrize(("count", "left", "fine"), [(3, 12, True), (4, 12, False), (0, 0, True), (3, 11, False)])
def test_a_count_is_limited_by_the_bytes_that_are_left(count: int, left: int, fine: bool) -> None:
    reader = Reader(count.to_bytes(4, "big") + bytes(left))
    if fine:
        assert reader.count(limit=100, item_bytes=4) == count
    else:
        with pytest.raises(DecodeError, match=f"at most {left // 4} can be right"):
            reader.count(limit=100, item_bytes=4)


def test_a_count_is_limited_by_its_bound() -> None:
    reader = Reader((3).to_bytes(4, "big") + bytes(100))
    with pytest.raises(DecodeError, match="a list of 3 items; at most 2"):
        reader.count(limit=2, item_bytes=4)
