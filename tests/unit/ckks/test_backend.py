"""SEAL's keys, encryption and decryption, compared with exact ring arithmetic."""

import builtins
import gc

import numpy as np
import pytest

from securefl.ckks import backend, ring
from securefl.ckks.params import PARAMETER_SETS, KeyModel
from securefl.errors import MissingExtraError

pytest.importorskip("tenseal")


@pytest.fixture(scope="module", params=PARAMETER_SETS)
def keyed(request):
    chosen = PARAMETER_SETS[request.param]
    made = backend.engine(chosen)
    return chosen, made, made.generate()


def _phase(chosen, times, ciphertext):
    rows = []
    for at, q in enumerate(chosen.primes):
        row = ciphertext[0, at].copy()
        ring.add_into(row, times.times(ciphertext[1, at], q), q)
        rows.append(row)
    return np.stack(rows)


def test_the_public_key_is_an_encryption_of_zero_over_every_prime(keyed):
    chosen, _made, pair = keyed
    assert pair.secret.dtype == np.int8
    assert set(np.unique(pair.secret)) == {-1, 0, 1}
    times = ring.Multiplier(pair.secret)
    rows = []
    for at, q in enumerate(chosen.primes + chosen.special):
        row = pair.public[0, at].copy()
        ring.add_into(row, times.times(pair.public[1, at], q), q)
        rows.append(ring.centered(row, q))
    assert all((row == rows[0]).all() for row in rows)
    assert 0 < int(np.abs(rows[0]).max()) <= ring.NOISE_LIMIT


def test_fresh_encryptions_are_small_under_the_key_and_below_the_bound(keyed):
    chosen, made, pair = keyed
    times, encryptor = ring.Multiplier(pair.secret), made.encryptor(pair.public)
    first, second = encryptor.zero(), encryptor.zero()
    assert (first != second).mean() > 0.99
    bound = chosen.noise_bound(KeyModel.KEY_HOLDER, 1)
    phase = _phase(chosen, times, first)
    noise = ring.centered(phase[0], chosen.primes[0])
    assert 0 < int(np.abs(noise).max()) <= bound
    for at, q in enumerate(chosen.primes):
        assert (ring.centered(phase[at], q) == noise).all()


def test_seals_decryptor_agrees_with_exact_arithmetic_to_the_last_bit(keyed):
    chosen, made, pair = keyed
    rng = np.random.default_rng(3)
    ciphertext = np.stack(
        [np.stack([rng.integers(0, q, chosen.degree, dtype=np.uint64) for q in chosen.primes]) for _ in range(2)]
    )
    expected = _phase(chosen, ring.Multiplier(pair.secret), ciphertext)
    assert (made.decrypt(pair.secret, ciphertext) == expected).all()


def test_no_file_and_no_open_handle_is_left_behind():
    import os

    before = len(os.listdir("/proc/self/fd"))
    made = backend.Engine(PARAMETER_SETS["n4096-q60"])
    made.generate()
    del made
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_keys_do_not_print(keyed):
    assert repr(keyed[2]) == "KeyPair(<redacted>)"


def test_without_tenseal_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.startswith("tenseal"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    backend.require.cache_clear()
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"securefl\[ckks\]"):
        backend.require()
    monkeypatch.undo()
    backend.require.cache_clear()
