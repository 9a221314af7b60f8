"""The ring of the n-of-n CKKS sum against Microsoft SEAL: the same products over the integers, modulo SEAL's primes."""

import numpy as np
import pytest

from securefl.ckks.params import parameter_set
from securefl.ckks.threshold import sampling, wide

pytest.importorskip("tenseal")


def test_products_are_those_of_seal() -> None:
    from securefl.ckks.backend import engine

    parameters = parameter_set("n8192-q112")
    assert parameters.degree == wide.DEGREE
    a, t = sampling.reference(b"interop".ljust(32)), sampling.ternary(b"interop-ternary!")
    half, q = 1 << (wide.MODULUS_BITS - 1), 1 << wide.MODULUS_BITS
    centred = [x - q if x >= half else x for x in integers(a)]
    residues = np.array([[x % p for x in centred] for p in parameters.primes], dtype=np.uint64)
    theirs = engine(parameters).decrypt(t, np.stack((np.zeros_like(residues), residues)))  # 0 + a·t
    mine = integers(wide.product(wide.image(a), wide.ternary_image(t)))  # over the integers: not reduced
    for row, p in zip(theirs, parameters.primes, strict=True):
        assert row.tolist() == [x % p for x in mine]


def integers(limbs: wide.Limbs) -> list[int]:
    return [sum(int(x) << (wide.LIMB_BITS * at) for at, x in enumerate(column)) for column in limbs.T]
