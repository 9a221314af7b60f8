"""Headers and HELLOs: limits before bytes, one encoding, nothing else accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl.errors import ConfigurationError, DecodeError
from securefl.transport.tls.frames import (
    HELLO_LIMIT,
    MAX_LENGTH,
    NOTICE_LIMIT,
    Hello,
    Kind,
    check_name,
    decode_notice,
    encode_notice,
    header,
    parse_header,
)

CONTEXT = bytes(range(32))
HELLO = Hello("server-0", "helper", CONTEXT)


def test_a_header_is_kind_and_length():
    assert header(Kind.DATA, 258) == bytes.fromhex("0400000000000102")
    assert parse_header(bytes.fromhex("0400000000000102"), {Kind.DATA: 258}) == (Kind.DATA, 258)
    assert parse_header(header(Kind.DATA, MAX_LENGTH), {Kind.DATA: MAX_LENGTH}) == (Kind.DATA, MAX_LENGTH)


@pytest.mark.parametrize("data", [header(Kind.DATA, 259), header(Kind.FAIL, 1), bytes(8), b"\xff" * 8, b"\x09" * 8])
def test_a_header_that_cannot_be_right_now_is_refused(data):
    with pytest.raises(DecodeError):
        parse_header(data, {Kind.DATA: 258, Kind.CLOSE: 0})


def test_a_hello_says_magic_version_context_and_both_names():
    body = HELLO.encode()
    assert body == b"securefl\x01" + CONTEXT + b"\0\0\0\x08server-0" + b"\0\0\0\x06helper"
    assert Hello.decode(body) == HELLO
    assert len(Hello("a" * 63, "b" * 63, CONTEXT).encode()) == HELLO_LIMIT


@pytest.mark.parametrize(
    "body",
    [
        b"",
        HELLO.encode()[:-1],
        HELLO.encode() + b"\0",
        b"Securefl" + HELLO.encode()[8:],
        HELLO.encode()[:8] + b"\x02" + HELLO.encode()[9:],
        HELLO.encode().replace(b"helper", b"Helper"),
        HELLO.encode().replace(b"helper", b"help\xc3\xa9"),
        HELLO.encode().replace(b"helper", b"helpe\n"),
    ],
)
def test_anything_but_a_whole_hello_is_refused(body):
    with pytest.raises(DecodeError):
        Hello.decode(body)


@given(st.binary(max_size=200))
def test_bytes_are_a_hello_or_a_decode_error(body):
    try:
        hello = Hello.decode(body)
    except DecodeError:
        return
    assert hello.encode() == body


@pytest.mark.parametrize("name", ["", "A", "a.b", "-a", "a-", "a" * 64, "a b", "a\n", "é"])
def test_a_name_is_one_lowercase_dns_label(name):
    with pytest.raises(ConfigurationError, match="a party's name"):
        check_name(name)
    assert check_name("s0") == "s0"


def test_notices_are_cut_and_printable():
    assert len(encode_notice("é" * 1000)) <= NOTICE_LIMIT
    assert decode_notice("\x1b[31mred\nline é".encode()) == " [31mred line é"
    assert decode_notice(encode_notice("é" * 1000)).startswith("é" * 200)
