"""Fields and frames as properties: what is written is read, and only that."""

from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import DecodeError
from securefl.wire import OVERHEAD_BYTES, Reader, Writer, body_length, open_frame, seal_frame

u8, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
fields = st.lists(
    st.one_of(
        st.tuples(st.just("u8"), u8),
        st.tuples(st.just("u32"), u32),
        st.tuples(st.just("u64"), u64),
        st.tuples(st.just("raw"), st.binary(max_size=20)),
        st.tuples(st.just("blob"), st.binary(max_size=20)),
    ),
    max_size=8,
)
contexts = st.binary(min_size=32, max_size=32)


def written(items: list[tuple[str, int | bytes]]) -> bytes:
    writer = Writer()
    for name, value in items:
        if name == "raw":
            writer.raw(value, len(value))
        else:
            getattr(writer, name)(value)
    return writer.done()


def read(data: bytes, items: list[tuple[str, int | bytes]]) -> list[tuple[str, int | bytes]]:
    reader, found = Reader(data), []
    for name, value in items:
        if name == "raw":
            found.append((name, bytes(reader.raw(len(value)))))
        elif name == "blob":
            found.append((name, bytes(reader.blob(limit=20))))
        else:
            found.append((name, getattr(reader, name)()))
    reader.end()
    return found


@settings(max_examples=200, deadline=None)
@given(fields)
def test_fields_are_read_as_they_were_written(items: list[tuple[str, int | bytes]]) -> None:
    assert read(written(items), items) == items


@settings(max_examples=150, deadline=None)
@given(fields, st.binary(min_size=1, max_size=5), st.integers(1, 5))
def test_leftovers_and_missing_bytes_are_refused(items: list[tuple[str, int | bytes]], extra: bytes, cut: int) -> None:
    data = written(items)
    for damaged in [data + extra, data[:-cut]] if data else [data + extra]:
        try:
            read(damaged, items)
        except DecodeError:
            continue
        raise AssertionError("accepted")


@settings(max_examples=150, deadline=None)
@given(u8, u8, contexts, u32, u32, st.lists(st.binary(max_size=50), max_size=4))
def test_frames_are_opened_as_they_were_sealed(
    protocol: int, kind: int, context: bytes, sender: int, recipient: int, parts: list[bytes]
) -> None:
    frame, body = seal_frame(protocol, kind, context, sender, recipient, *parts), b"".join(parts)
    limits = {kind: len(body)}
    assert len(frame) == len(body) + OVERHEAD_BYTES
    assert body_length(frame[:56], limits=limits) == len(body)
    envelope = open_frame(frame, protocol=protocol, context=context, recipient=recipient, limits=limits)
    assert (envelope.protocol, envelope.kind, envelope.context) == (protocol, kind, context)
    assert (envelope.sender, envelope.recipient, bytes(envelope.body)) == (sender, recipient, body)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.data())
def test_any_damage_to_a_frame_is_found(body: bytes, data: st.DataObject) -> None:
    """Up to four bytes changed, anywhere. Different bytes with one checksum would be 2**-128 by chance."""
    context = bytes(range(32))
    frame = seal_frame(1, 5, context, 3, 4, body)
    damaged = bytearray(frame)
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=4, unique=True)):
        damaged[at] ^= data.draw(st.integers(1, 255))
    try:
        open_frame(bytes(damaged), protocol=1, context=context, recipient=4, limits={5: 100})
    except DecodeError:
        return
    raise AssertionError("accepted")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_frame(data: bytes) -> None:
    try:
        open_frame(data, protocol=1, context=bytes(32), recipient=4, limits={5: 1000})
    except DecodeError:
        return
    raise AssertionError("accepted")
