"""HKDF-SHA256 (RFC 5869) and TupleHash256 (NIST SP 800-185): known answers, and second implementations by hand."""

import hashlib
import hmac
from itertools import combinations

import pytest
from Crypto.Hash import SHA256, TupleHash256
from Crypto.Protocol.KDF import HKDF as OtherHKDF
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.primitives.kdf import Deriver, Label, commit, derive, info_bytes, tuple_hash

fields = st.lists(st.binary(max_size=40), max_size=5)
labels = st.sampled_from(Label)

# ---- HKDF ---------------------------------------------------------------------------------------------------

# RFC 5869, Appendix A.1, A.2, A.3: IKM, salt, info, L, OKM
RFC_5869 = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        bytes(range(0x50)).hex(),
        bytes(range(0x60, 0xB0)).hex(),
        bytes(range(0xB0, 0x100)).hex(),
        82,
        "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09"
        "da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


def hkdf_by_hand(secret: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    """RFC 5869 §2.2 and §2.3, in five lines."""
    prk = hmac.new(salt or bytes(32), secret, hashlib.sha256).digest()
    okm, block = b"", b""
    for counter in range(1, -(-length // 32) + 1):
        block = hmac.new(prk, block + info + bytes([counter]), hashlib.sha256).digest()
        okm += block
    return okm[:length]


@pytest.mark.parametrize(("ikm", "salt", "info", "length", "okm"), RFC_5869, ids=["A.1", "A.2", "A.3"])
def test_rfc_5869(ikm: str, salt: str, info: str, length: int, okm: str) -> None:
    secret, salted, context = bytes.fromhex(ikm), bytes.fromhex(salt), bytes.fromhex(info)
    used_here = HKDF(algorithm=hashes.SHA256(), length=length, salt=salted or None, info=context)
    assert used_here.derive(secret).hex() == okm
    assert hkdf_by_hand(secret, salted, context, length).hex() == okm  # the oracle of the tests below
    assert OtherHKDF(secret, length, salted, SHA256, 1, context).hex() == okm


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=16, max_size=64), labels, fields, st.sampled_from([16, 32, 33, 100]))
def test_derive_is_hkdf_with_the_label_and_fields_as_info(
    secret: bytes, label: Label, parts: list[bytes], length: int
) -> None:
    info = b"".join(len(part).to_bytes(4, "big") + part for part in (label.value, *parts))
    expected = hkdf_by_hand(secret, b"", info, length)
    assert derive(secret, label, *parts, length=length) == expected
    assert Deriver(secret).derive(label, *parts, length=length) == expected
    assert OtherHKDF(secret, length, b"", SHA256, 1, info) == expected


def test_every_bit_of_the_secret_matters() -> None:
    """A seed folded to fewer bits passes every statistical test of its masks."""
    secret = bytearray(range(32))
    seen = {derive(bytes(secret), Label.PAIR_STREAM, length=16)}
    for bit in range(256):
        secret[bit // 8] ^= 1 << bit % 8
        seen.add(derive(bytes(secret), Label.PAIR_STREAM, length=16))
        secret[bit // 8] ^= 1 << bit % 8
    assert len(seen) == 257


# ---- labels and fields ---------------------------------------------------------------------------------------


def test_labels_are_distinct_and_of_this_version() -> None:
    values = [label.value for label in Label.__members__.values()]
    assert len(set(values)) == len(Label.__members__)  # an alias would be a label used twice
    assert all(value.startswith(b"securefl/v1/") for value in values)


def test_a_label_separates_every_use() -> None:
    for one, other in combinations(Label, 2):
        assert derive(bytes(32), one) != derive(bytes(32), other)
        assert tuple_hash(one, b"x") != tuple_hash(other, b"x")


@settings(max_examples=200, deadline=None)
@given(labels, fields, labels, fields)
def test_info_bytes_never_collide(a: Label, left: list[bytes], b: Label, right: list[bytes]) -> None:
    assert (info_bytes(a, *left) == info_bytes(b, *right)) == ((a, left) == (b, right))


@settings(max_examples=50, deadline=None)
@given(labels, fields)
def test_info_bytes_can_be_taken_apart(label: Label, parts: list[bytes]) -> None:
    data, found = info_bytes(label, *parts), []
    while data:
        length = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + length])
        data = data[4 + length :]
    assert found == [label.value, *parts]


# ---- TupleHash256 --------------------------------------------------------------------------------------------


def keccak_f(lanes: list[list[int]]) -> None:
    """FIPS 202 §3.2-3.3: Keccak-f[1600] on 5 × 5 lanes ``[x][y]``, in place."""
    mask = (1 << 64) - 1

    def rotate(value: int, by: int) -> int:
        return (value << by | value >> (64 - by)) & mask if by else value

    register = 1
    for _ in range(24):
        parity = [lanes[x][0] ^ lanes[x][1] ^ lanes[x][2] ^ lanes[x][3] ^ lanes[x][4] for x in range(5)]
        for x in range(5):  # θ
            change = parity[x - 1] ^ rotate(parity[(x + 1) % 5], 1)
            for y in range(5):
                lanes[x][y] ^= change
        x, y, current = 1, 0, lanes[1][0]
        for t in range(24):  # ρ and π
            x, y = y, (2 * x + 3 * y) % 5
            current, lanes[x][y] = lanes[x][y], rotate(current, (t + 1) * (t + 2) // 2 % 64)
        for y in range(5):  # χ
            row = [lanes[x][y] for x in range(5)]
            for x in range(5):
                lanes[x][y] = row[x] ^ (~row[(x + 1) % 5] & row[(x + 2) % 5] & mask)
        for j in range(7):  # ι
            register = (register << 1 ^ (register >> 7) * 0x71) % 256
            if register & 2:
                lanes[0][0] ^= 1 << (1 << j) - 1


def tuple_hash_by_hand(parts: list[bytes], custom: bytes, length: int) -> bytes:
    """SP 800-185 §5.3.1 over a plain Keccak: no code shared with pycryptodome."""

    def left(value: int) -> bytes:
        raw = value.to_bytes(max(1, -(-value.bit_length() // 8)), "big")
        return bytes([len(raw)]) + raw

    def right(value: int) -> bytes:
        raw = left(value)
        return raw[1:] + raw[:1]

    def string(data: bytes) -> bytes:
        return left(8 * len(data)) + data

    rate = 136
    prefix = left(rate) + string(b"TupleHash") + string(custom)
    prefix += bytes(-len(prefix) % rate)
    message = prefix + b"".join(string(part) for part in parts) + right(8 * length) + b"\x04"
    message += bytes(-len(message) % rate)
    message = message[:-1] + bytes([message[-1] | 0x80])
    lanes = [[0] * 5 for _ in range(5)]
    for start in range(0, len(message), rate):
        for i in range(rate // 8):
            lanes[i % 5][i // 5] ^= int.from_bytes(message[start + 8 * i : start + 8 * i + 8], "little")
        keccak_f(lanes)
    return b"".join(lanes[i % 5][i // 5].to_bytes(8, "little") for i in range(rate // 8))[:length]


# NIST, "TupleHash_samples.pdf" (examples for SP 800-185), samples 4, 5, 6: tuple, S, 512 output bits
NIST_TUPLE_HASH_256 = [
    (
        ["000102", "101112131415"],
        b"",
        "cfb7058caca5e668f81a12a20a2195ce97a925f1dba3e7449a56f82201ec6073"
        "11ac2696b1ab5ea2352df1423bde7bd4bb78c9aed1a853c78672f9eb23bbe194",
    ),
    (
        ["000102", "101112131415"],
        b"My Tuple App",
        "147c2191d5ed7efd98dbd96d7ab5a11692576f5fe2a5065f3e33de6bba9f3aa1"
        "c4e9a068a289c61c95aab30aee1e410b0b607de3620e24a4e3bf9852a1d4367e",
    ),
    (
        ["000102", "101112131415", "202122232425262728"],
        b"My Tuple App",
        "45000be63f9b6bfd89f54717670f69a9bc763591a4f05c50d68891a744bcc6e7"
        "d6d5b5e82c018da999ed35b0bb49c9678e526abd8e85c13ed254021db9e790ce",
    ),
]


@pytest.mark.parametrize(("parts", "custom", "expected"), NIST_TUPLE_HASH_256, ids=["sample 4", "sample 5", "sample 6"])
def test_nist_samples(parts: list[str], custom: bytes, expected: str) -> None:
    data = [bytes.fromhex(part) for part in parts]
    hasher = TupleHash256.new(digest_bytes=64, custom=custom)  # the construction used here, at the samples' length
    hasher.update(*data)
    assert hasher.hexdigest() == expected
    assert tuple_hash_by_hand(data, custom, 64).hex() == expected


@settings(max_examples=25, deadline=None)
@given(labels, st.lists(st.binary(max_size=200), max_size=5))
def test_tuple_hash_agrees_with_a_plain_keccak(label: Label, parts: list[bytes]) -> None:
    assert tuple_hash(label, *parts) == tuple_hash_by_hand(parts, label.value, 32)


def test_tuple_hash_separates_fields() -> None:
    splits = [(b"abc",), (b"ab", b"c"), (b"a", b"bc"), (b"", b"abc"), (b"abc", b""), (b"a", b"b", b"c"), ()]
    assert len({tuple_hash(Label.CONTEXT, *split) for split in splits}) == len(splits)


def test_a_commitment_binds_its_secret_and_its_fields() -> None:
    secret, other = bytes(32), bytes(31) + b"\1"
    assert commit(Label.SELF_COMMITMENT, secret, b"a") == tuple_hash_by_hand(
        [secret, b"a"], b"securefl/v1/secagg/self-commitment", 32
    )
    variants = {
        commit(Label.SELF_COMMITMENT, secret, b"a"),
        commit(Label.SELF_COMMITMENT, other, b"a"),
        commit(Label.SELF_COMMITMENT, secret, b"b"),
        commit(Label.SELF_COMMITMENT, secret),
    }
    assert len(variants) == 4
