"""What every compressor promises: linear, unbiased, error within the formula, the same in every process."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.encoding.chain import Chain
from securefl.encoding.compressor import Scale
from securefl.encoding.lowrank import PowerSGD
from securefl.encoding.project import RandomProjection
from securefl.encoding.public import PublicRandomness
from securefl.encoding.rotate import RotatedQuantizer
from securefl.encoding.sparsify import PrunedSupport, RandomK

SHAPES = ((16, 40), (16,))
SIZE = 656
CODERS = {
    "random_k": RandomK(0.1),
    "random_k unbiased": RandomK(0.1, unbiased=True),
    "projection": RandomProjection(0.1),
    "projection unbiased": RandomProjection(0.1, unbiased=True),
    "pruned": PrunedSupport(np.arange(SIZE) % 3 == 0),
    "powersgd": PowerSGD(2),
    "chain": Chain((PrunedSupport(np.arange(SIZE) % 2 == 0), RandomK(0.3, unbiased=True))),
    "none": Chain(),
}


def spiky(seed):
    """Layers of different magnitude and a few large values: what real updates look like."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=SIZE) * np.where(np.arange(SIZE) < 300, 1.0, 0.05)
    x[rng.integers(0, SIZE, 5)] *= 20
    return x.astype(np.float32)


def coded(coder, xs, round):
    """The estimate of the sum, and the sum of estimates' inputs."""
    stage = coder.at(SHAPES, PublicRandomness(b"c" * 32, round))
    for at in range(coder.sums):
        mean = np.sum([stage.project(x, at) for x in xs], axis=0)
        stage.observe(at, mean)
    return stage, stage.expand(mean)


@pytest.mark.parametrize("name", CODERS)
@given(seed=st.integers(0, 2**32), factor=st.floats(-3, 3))
@settings(max_examples=15, deadline=None)
def test_linear(name, seed, factor):
    """Coding the sum is the sum of codings, given what was observed."""
    coder, x, y = CODERS[name], spiky(seed), spiky(seed + 1)
    stage, _ = coded(coder, [x, y], seed % 100)
    last = coder.sums - 1
    left = stage.project(x + np.float32(factor) * y, last)
    right = stage.project(x, last) + np.float32(factor) * stage.project(y, last)
    assert np.allclose(left, right, atol=1e-3)
    left = stage.expand(right)
    parts = stage.expand(stage.project(x, last)) + np.float32(factor) * stage.expand(stage.project(y, last))
    assert np.allclose(left, parts, atol=1e-2)


@pytest.mark.parametrize("name", ["random_k unbiased", "projection unbiased"])
def test_unbiased_coders_are_unbiased_with_the_error_of_the_formula(name):
    x, rounds = spiky(0), 1500
    estimates = np.array([coded(CODERS[name], [x], round)[1] for round in range(rounds)])
    norm = float(x @ x)
    errors = ((estimates - x) ** 2).sum(axis=1)
    expected = (1 / 0.1 - 1) * norm
    assert errors.mean() == pytest.approx(expected, rel=0.1)
    # the mean of many estimates errs by 1/rounds of one; a few large values dominate, so the spread is wide
    assert ((estimates.mean(axis=0) - x) ** 2).sum() < 3 * expected / rounds


@pytest.mark.parametrize("levels", [2, 3, 7, 16])
def test_the_rotated_grid_is_unbiased_within_its_variance(levels):
    x, draws = spiky(1), 1500
    scale = Scale(float(x @ x) / SIZE, 1.0)
    grid = RotatedQuantizer(levels, "exact", clip_multiple=8.0).at(SIZE, 5, scale, PublicRandomness(b"c" * 32, 1))
    out = np.empty(grid.segment.size, dtype=np.uint64)
    total, square = np.zeros(SIZE), 0.0
    for draw in range(draws):
        assert grid.encode(x, seed=draw.to_bytes(32, "big"), out=out) == 0
        decoded = grid.decode(out, 1)
        total += decoded
        square += float(((decoded - x) ** 2).sum())
    variance = square / draws
    assert variance <= grid.rotation.padded * grid.step**2 / 4 * 1.02
    assert variance <= grid.rotation.padded * grid.noise(scale) * 1.05
    assert ((total / draws - x) ** 2).sum() == pytest.approx(variance / draws, rel=0.35)


@pytest.mark.parametrize("clients", [1, 5, 40])
def test_the_error_of_the_mean_falls_with_the_clients(clients):
    xs = [spiky(seed) for seed in range(clients)]
    scale = Scale(float(np.mean([x @ x for x in xs])) / SIZE, 1.0)
    grid = RotatedQuantizer(5, "exact", clip_multiple=8.0).at(SIZE, clients, scale, PublicRandomness(b"c" * 32, 1))
    out = np.empty(grid.segment.size, dtype=np.uint64)
    total = np.zeros_like(out)
    for at, x in enumerate(xs):
        grid.encode(x, seed=at.to_bytes(32, "big"), out=out)
        total += out
    error = grid.decode(total, clients) / clients - np.mean(xs, axis=0)
    assert error @ error <= 1.2 * grid.rotation.padded * grid.step**2 / (4 * clients)


def digest():
    """A hash over the integers and decoded values of all coders: equal in every process."""
    hasher = hashlib.sha256()
    x = np.round(spiky(3) * 64)
    for name, coder in CODERS.items():
        stage, estimate = coded(coder, [x], 5)
        if name != "powersgd":  # its products are not of small integers
            hasher.update(estimate.tobytes() + stage.project(x, coder.sums - 1).tobytes())
    grid = RotatedQuantizer(7).at(SIZE, 5, Scale(1e4, 5e4), PublicRandomness(b"c" * 32, 5))
    out = np.empty(grid.segment.size, dtype=np.uint64)
    grid.encode(x, seed=b"r" * 32, out=out)
    hasher.update(out.tobytes() + grid.decode(out, 1).tobytes())
    return hasher.hexdigest()


def test_another_process_encodes_and_decodes_the_same():
    code = "import json, sys, importlib.util as u; s = u.spec_from_file_location('m', sys.argv[1]); "
    code += "m = u.module_from_spec(s); s.loader.exec_module(m); print(json.dumps(m.digest()))"
    result = subprocess.run([sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == digest()
