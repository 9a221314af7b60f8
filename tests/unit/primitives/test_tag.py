"""Tags of messages, against an independent implementation."""

import pytest
from Crypto.Cipher import AES

from securefl.primitives.tag import TAG_BYTES, gmac


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 4096, 100_001])
def test_tags_are_those_of_another_implementation(size: int) -> None:
    key, message = bytes(range(16)), bytes(i % 251 for i in range(size))
    expected = AES.new(key, AES.MODE_GCM, nonce=bytes(12)).update(message).digest()
    assert gmac(key, message) == expected
    assert len(expected) == TAG_BYTES


def test_parts_are_one_message() -> None:
    message = bytes(range(200))
    assert gmac(b"k" * 16, message[:7], memoryview(message)[7:100], bytearray(message[100:])) == gmac(
        b"k" * 16, message
    )


def test_another_key_or_message_has_another_tag() -> None:
    message = bytes(64)
    tags = {gmac(b"k" * 16, message), gmac(b"l" * 16, message), gmac(b"k" * 16, message + b"\0"), gmac(b"k" * 16)}
    assert len(tags) == 4
