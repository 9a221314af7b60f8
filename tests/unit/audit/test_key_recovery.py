"""The attack on decrypted CKKS sums gets the key of the usual path, not ours, and would if noise were released."""

import pytest

from securefl.audit.key_recovery import attack_ours, attack_usual

pytest.importorskip("tenseal")


def test_the_usual_path_loses_its_key_and_with_it_every_update():
    found = attack_usual(3)
    assert found.recovered
    assert found.ternary == 1
    assert found.error is not None
    assert found.error < 1e-6


@pytest.mark.parametrize("seed", [0, 1])
def test_integers_on_the_lattice_do_not_give_it(seed):
    found = attack_ours(3, seed=seed)
    assert not found.recovered
    assert found.ternary < 0.01  # random residues: 3 of 2^60 are ternary


def test_the_same_solver_succeeds_when_the_noise_is_released():
    found = attack_ours(3, rounding=False)
    assert found.recovered
    assert found.ternary == 1
