"""The wire form of residues: whole bytes, exact lengths, nothing of a prime or above."""

import numpy as np
import pytest

from securefl.ckks.params import PARAMETER_SETS
from securefl.ckks.residues import pack_residues, unpack_residues
from securefl.errors import DecodeError

PRIMES = PARAMETER_SETS["n8192-q112"].primes


def _packed(rows, primes, degree):
    out = bytearray(sum(degree * p.bit_length() // 8 for p in primes))
    pack_residues(rows, primes, memoryview(out))
    return out


@pytest.mark.parametrize("primes", [PRIMES, PRIMES[:1], (2**48 - 59,), (2**56 - 5,)])
def test_residues_come_back(primes):
    rng = np.random.default_rng(0)
    rows = np.stack([rng.integers(0, p, 64, dtype=np.uint64) for p in primes])
    rows[:, 0], rows[:, 1] = 0, [p - 1 for p in primes]
    data = _packed(rows, primes, 64)
    assert len(data) == sum(8 * p.bit_length() for p in primes)
    assert (unpack_residues(data, primes, 64) == rows).all()


def test_every_bit_stands_where_the_specification_says():
    word = 0x0ABCDEF123456789 % PRIMES[0]
    rows = np.zeros((1, 4), dtype=np.uint64)
    rows[0, 2] = word
    data = _packed(rows, PRIMES[:1], 4)
    low, middle, byte, half = data[8:12], data[16 + 4 : 16 + 6], data[24 + 2], data[28 + 1] & 15
    assert int.from_bytes(low, "little") == word & 0xFFFFFFFF
    assert int.from_bytes(middle, "little") == word >> 32 & 0xFFFF
    assert byte == word >> 48 & 0xFF
    assert half == word >> 56


def test_other_lengths_and_residues_of_the_prime_and_above_are_refused():
    rows = np.zeros((1, 8), dtype=np.uint64)
    rows[0, 3] = PRIMES[0]
    with pytest.raises(DecodeError, match="not below"):
        unpack_residues(_packed(rows, PRIMES[:1], 8), PRIMES[:1], 8)
    rows[0, 3] -= 1
    data = _packed(rows, PRIMES[:1], 8)
    assert unpack_residues(data, PRIMES[:1], 8)[0, 3] == PRIMES[0] - 1
    for bad in (data[:-1], bytes(data) + b"\0", b""):
        with pytest.raises(DecodeError, match="no polynomial"):
            unpack_residues(bad, PRIMES[:1], 8)


def test_widths_without_a_wire_form_are_refused():
    with pytest.raises(ValueError, match="54 bits"):
        _packed(np.zeros((1, 8), dtype=np.uint64), (2**54 - 33,), 8)
