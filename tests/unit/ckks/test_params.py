"""Parameter sets stand in the published table; bounds hold; what cannot work is refused before anything is sent."""

import dataclasses

import numpy as np
import pytest

from securefl.ckks.params import KEY_HOLDER, PARAMETER_SETS, KeyModel, Params, Release, parameter_set
from securefl.errors import ConfigurationError
from securefl.machine import RoundContext, Segment, Shells
from securefl.types import PartyId

#: HomomorphicEncryption.org security standard (2018), table 1, ternary secrets, classical: degree → largest log q.
TABLE_128 = {2048: 54, 4096: 109, 8192: 218, 16384: 438}
TABLE_192 = {2048: 37, 4096: 75, 8192: 152, 16384: 305}


def _context(count=10, **changes):
    fields = {
        "session": b"s",
        "round": 1,
        "clients": tuple(PartyId(i) for i in range(1, count + 1)),
        "dimension": 1000,
        "max_value": 65534,
        "threshold": 2,
        "model_hash": bytes(32),
    }
    return RoundContext(**(fields | changes))


@pytest.mark.parametrize("name", PARAMETER_SETS)
def test_sets_stand_in_the_published_table(name):
    chosen = PARAMETER_SETS[name]
    bits = np.prod([float(p) for p in chosen.primes + chosen.special])
    table = TABLE_192 if "192-bit" in chosen.security else TABLE_128
    assert np.log2(bits) <= table[chosen.degree]
    for prime in chosen.primes + chosen.special:
        assert prime % (2 * chosen.degree) == 1
        assert pow(3, prime - 1, prime) == 1
        assert prime.bit_length() % 4 == 0  # the wire form packs whole half bytes
        assert prime < 2**60


def test_codes_and_names_are_distinct():
    assert len({s.code for s in PARAMETER_SETS.values()}) == len(PARAMETER_SETS)
    assert all(parameter_set(name).name == name for name in PARAMETER_SETS)
    with pytest.raises(ConfigurationError, match="n4096-q60"):
        parameter_set("n2048-q54")


def test_every_field_enters_the_context_hash():
    chosen = parameter_set("n8192-q112")
    base = Params.of(_context(), chosen)
    others = [
        Params.of(_context(session=b"t"), chosen),
        Params.of(_context(round=2), chosen),
        Params.of(_context(count=9), chosen),
        Params.of(_context(dimension=1001), chosen),
        Params.of(_context(max_value=65533), chosen),
        Params.of(_context(threshold=3), chosen),
        Params.of(_context(model_hash=b"m" * 32), chosen),
        Params.of(_context(encoding=b"e"), chosen),
        Params.of(_context(segments=(Segment(999, 65534), Segment(1, 5))), chosen),
        Params.of(_context(), parameter_set("n4096-q60")),
        Params.of(_context(), chosen, KeyModel.SHARED_KEY),
        Params.of(_context(), chosen, flooded=True),
        Params.of(_context(), chosen, release=Release.KEY_HOLDER),
    ]
    hashes = {p.context_hash for p in [base, *others]}
    assert len(hashes) == len(others) + 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"clients": (PartyId(1), KEY_HOLDER)}, "key holder's"),
        ({"clients": (PartyId(1),)}, "2 to"),
        ({"threshold": 1}, "threshold"),
        ({"threshold": 11}, "threshold"),
        ({"max_value": 2**50}, "do not fit"),
        ({"segments": (Segment(5, 65534),)}, "sum of the segments"),
    ],
)
def test_what_cannot_work_is_refused(changes, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        Params.of(_context(**changes), parameter_set("n4096-q60"))


def test_every_shell_begins_a_ciphertext_and_is_opened_by_its_own_rule():
    shells = Shells((600, 400), (1,) * 4 + (2,) * 6, 2)
    params = Params.of(_context(shells=shells), parameter_set("n4096-q60"))
    assert [run.first for run in params.lattice.runs] == [0, 4096]
    assert [params.ciphertexts_of(tier) for tier in (1, 2)] == [1, 2]
    assert params.used(0) == params.lattice.runs[0].coefficients  # even already
    assert params.used(1) == params.lattice.runs[1].coefficients
    assert params.opened(params.clients) == (0, 1)
    assert params.opened(params.clients[:5]) == (0,)
    assert params.counts(params.clients[:6]) == [6, 2]
    assert params.context_hash != Params.of(_context(), parameter_set("n4096-q60")).context_hash
    with pytest.raises(ConfigurationError, match="minimum_holders"):
        Params.of(_context(shells=Shells((600, 400), (1,) * 10, 9)), parameter_set("n4096-q60"))


def test_the_ceiling_of_clients_is_the_sets():
    chosen = dataclasses.replace(parameter_set("n4096-q60"), max_clients=9)
    with pytest.raises(ConfigurationError, match="2 to 9 clients"):
        Params.of(_context(), chosen)


def test_flooding_without_room_is_refused_and_with_room_leaves_sums_exact():
    with pytest.raises(ConfigurationError, match="no room"):
        Params.of(_context(), parameter_set("n4096-q60"), flooded=True)
    flooded = Params.of(_context(), parameter_set("n8192-q112"), flooded=True)
    chosen = flooded.parameters
    # σ >= sqrt(12 τ)·2^(s/2)·B with s >= 30 and τ every coefficient a key may release.
    least = np.sqrt(12 * chosen.decryptions * chosen.degree) * 2**15 * chosen.noise_bound(KeyModel.KEY_HOLDER, 10)
    assert chosen.flood_deviation(KeyModel.KEY_HOLDER, 10) >= least
    assert flooded.lattice.scale > 2 * flooded.noise_bound


def test_ten_clients_with_sixteen_bits_take_less_than_eight_bytes_per_parameter():
    params = Params.of(_context(dimension=1_000_000), parameter_set("n4096-q60"))
    assert params.lattice.runs[0].digits == 2
    assert 2 * params.ciphertexts * params.parameters.polynomial_bytes / 1e6 < 8
