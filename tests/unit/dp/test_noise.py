"""Samplers against exact mass functions; distributed, central, local and adaptive noise."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import ive
from scipy.stats import chisquare

from securefl.dp import sampler as sampler_module
from securefl.dp.accountant import event_epsilon
from securefl.dp.adaptive import AdaptiveClip
from securefl.dp.central import CentralNoise
from securefl.dp.certificate import divergence_bound, equivalent_stddev
from securefl.dp.cohort import cohort_capacity, poisson_cohort
from securefl.dp.distributed import DistributedSkellam
from securefl.dp.gaussian import gaussian_mu
from securefl.dp.local import LocalNoise
from securefl.dp.rounding import l2_bound, round_update
from securefl.dp.sampler import NoiseTable, noise_table, wide_gaussian
from securefl.dp.weights import discrete_gaussian_weights, skellam_weights
from securefl.encoding.ring import Lanes
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError

SECRET = bytes(range(32))
DRAWS = 1_000_000


class Replay:
    """An entropy that counts up: two tokens are never equal, and runs repeat."""

    def __init__(self, start: int = 0) -> None:
        self.count = start

    def token(self, length: int) -> bytes:
        self.count += 1
        return np.random.default_rng(self.count).bytes(length)

    def seal(self, recipient: object, plaintext: bytes, info: bytes) -> bytes:
        raise NotImplementedError


def exact_mass(kind: str, stddev: float, bound: int) -> np.ndarray:
    k = np.arange(-bound, bound + 1)
    mass = ive(np.abs(k), stddev**2) if kind == "skellam" else np.exp(-(k**2) / (2 * stddev**2))
    return mass / mass.sum()


@pytest.mark.parametrize("kind", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("stddev", [0.5, 1.0, 3.0, 20.0])
def test_chi_square(kind: str, stddev: float) -> None:
    table = noise_table(kind, Fraction(stddev) ** 2)  # type: ignore[arg-type]
    counts = np.bincount(table.draw(SECRET, DRAWS) + table.bound, minlength=2 * table.bound + 1)
    expected = exact_mass(kind, stddev, table.bound) * DRAWS
    common = expected >= 20
    observed = np.append(counts[common], counts[~common].sum())
    wanted = np.append(expected[common], expected[~common].sum())
    if wanted[-1] < 5:
        observed, wanted = observed[:-1], wanted[:-1] * observed[:-1].sum() / wanted[:-1].sum()
    assert chisquare(observed, wanted).pvalue > 1e-3  # the draws are fixed: this either holds or does not


@pytest.mark.parametrize("kind", ["skellam", "discrete-gaussian"])
@pytest.mark.parametrize("stddev", [0.5, 3.0, 300.0])
def test_table_holds_the_law_exactly(kind: str, stddev: float) -> None:
    """Sum the table's own probabilities, in integers, and compare with the weights."""
    variance = Fraction(stddev) ** 2
    half = skellam_weights(variance) if kind == "skellam" else discrete_gaussian_weights(variance)
    total = half[0] + 2 * sum(half[1:])
    table = noise_table(kind, variance)  # type: ignore[arg-type]
    bits = 64 - table.slot_bits
    mass: dict[int, int] = {}
    for slot in range(1 << table.slot_bits):
        prefix = int(table._thresholds[slot]) & ((1 << bits) - 1)
        threshold = (prefix << 128) | (int(table._rest[slot, 0]) << 64) | int(table._rest[slot, 1])
        own, alias = int(table._values[2 * slot]), int(table._values[2 * slot + 1])
        mass[own] = mass.get(own, 0) + threshold
        mass[alias] = mass.get(alias, 0) + (1 << (bits + 128)) - threshold
    distance = sum(
        abs(Fraction(mass.get(k, 0), 1 << 192) - Fraction(half[abs(k)], total))
        for k in range(-len(half) + 1, len(half))
    )
    assert distance / 2 < Fraction(1, 1 << 170)
    assert sum(mass.values()) == 1 << 192
    assert max(abs(k) for k, w in mass.items() if w) <= table.bound
    reference = exact_mass(kind, stddev, table.bound)
    ours = np.array([mass.get(k, 0) / 2**192 for k in range(-table.bound, table.bound + 1)])
    assert np.abs(ours - reference).sum() < 1e-12


def test_ties_are_settled_by_fresh_bits() -> None:
    """A table whose every prefix ties: the rest decides, with probability one quarter for the own value."""
    slots = np.arange(16, dtype=np.uint64) << np.uint64(60)
    table = NoiseTable(
        Fraction(1), 8, 4, slots, np.tile(np.array([1, 0], np.int32), 16), np.full((16, 2), [1 << 62, 0], np.uint64)
    )
    original = sampler_module.stream_words

    def words(key: bytes, start: int, out: np.ndarray) -> None:
        original(key, start, out)
        if out.size > 2:
            out &= np.uint64(0xF000000000000000)  # only the slot is left: every draw ties

    sampler_module.stream_words = words  # type: ignore[assignment]
    try:
        drawn = table.draw(SECRET, 4000)
    finally:
        sampler_module.stream_words = original
    assert abs(drawn.mean() - 0.25) < 0.03


def test_draws_depend_on_the_secret_and_only_on_it() -> None:
    table = noise_table("skellam", Fraction(100))
    assert np.array_equal(table.draw(SECRET, 50_000), table.draw(SECRET, 50_000))
    assert np.array_equal(table.draw(SECRET, 50_000)[:999], table.draw(SECRET, 999))
    assert not np.array_equal(table.draw(SECRET, 999), table.draw(bytes(32), 999))


def test_wide_gaussian() -> None:
    drawn = wide_gaussian(SECRET, 400_000)
    assert drawn.std() == pytest.approx(sampler_module.WIDE_STDDEV, rel=0.01)
    assert abs(np.bincount(drawn % 8, minlength=8) / drawn.size - 1 / 8).max() < 0.003  # every residue is reached
    assert abs((np.abs(drawn) < sampler_module.WIDE_STDDEV).mean() - 0.6827) < 0.003


def test_bad_variances() -> None:
    for bad in (Fraction(0), Fraction(-1), Fraction(2**40)):
        with pytest.raises(ConfigurationError):
            noise_table("skellam", bad)


def test_certificate_holds_where_it_is_proven() -> None:
    """KL(Skellam ‖ rounded Gaussian) in double precision, by its stable form Σ g φ(p/g), at the least proven μ."""
    for mu in (1000.0, 4000.0):
        table_half = skellam_weights(Fraction(int(mu)))
        total = table_half[0] + 2 * sum(table_half[1:])
        k = np.arange(int(8 * math.sqrt(mu)))
        p = np.array([float(Fraction(table_half[int(i)], total)) for i in k])
        s = equivalent_stddev(mu)
        # mass of N(0, s²) in [k − ½, k + ½] by 9-point Gauss–Legendre: exact to double precision
        nodes, weights = np.polynomial.legendre.leggauss(9)
        g = (np.exp(-((k[:, None] + nodes / 2) ** 2) / (2 * s * s)) @ weights) / 2 / math.sqrt(2 * math.pi) / s
        ratio = p / g
        terms = g * (ratio * np.log(ratio) - ratio + 1)
        kl = terms[0] + 2 * terms[1:].sum()
        assert 0.9 / (48 * mu**2) < kl < divergence_bound(mu, 1, skellam=True)
    assert divergence_bound(999.0, 1, skellam=True) == math.inf


# -- distributed noise


def plan(**changes: object) -> DistributedSkellam:
    values: dict[str, object] = {
        "clip_norm": 1.0, "dimension": 64, "noise_multiplier": 1.0, "clients": 10, "minimum_survivors": 8,
        "colluders": 1, "value_bits": 18,
    }  # fmt: skip
    return DistributedSkellam(**(values | changes))  # type: ignore[arg-type]


def test_integers_fit_their_lanes_whatever_the_update() -> None:
    p = plan(dimension=2000)
    assert p.max_value <= 2**18 - 2
    lanes = Lanes(p.dimension, p.max_value, p.clients)
    for seed, extreme in enumerate((np.zeros(2000), np.full(2000, 1e9), np.eye(1, 2000)[0] * -5)):
        lanes.check(p.encode(extreme, Replay(seed)))


def test_the_sum_is_right_and_its_noise_has_the_planned_size() -> None:
    p = plan(dimension=4096, colluders=0)
    rng = np.random.default_rng(3)
    updates = [rng.normal(size=4096) * 0.005 for _ in range(8)]
    total = np.sum([p.encode(u, Replay(100 * i)) for i, u in enumerate(updates)], axis=0, dtype=np.uint64)
    error = p.decode(total, 8) - np.sum(updates, axis=0)
    assert error.std() == pytest.approx(p.noise_stddev, rel=0.05)
    assert p.noise_stddev == pytest.approx(1.0, rel=0.02)


def test_shares_are_sized_for_survivors_and_colluders() -> None:
    p = plan()
    least, all_there = p.event(), p.event(10)
    assert least.noise_multiplier == pytest.approx(1.0, rel=1e-3)
    assert least.noise_multiplier >= 1.0
    assert all_there.variance / least.variance == pytest.approx(9 / 7)  # type: ignore[union-attr]
    assert event_epsilon(all_there, 1e-5) < event_epsilon(least, 1e-5)
    with pytest.raises(TooFewClientsError):
        p.event(7)
    with pytest.raises(ConfigurationError):
        p.event(11)


def test_noise_is_never_the_same_twice() -> None:
    p = plan()
    assert not np.array_equal(p.client_noise(), p.client_noise())


def test_ring_too_small_says_which_bits_would_do() -> None:
    with pytest.raises(ConfigurationError, match=r"value_bits = (\d+) would do") as caught:
        plan(dimension=2**20, value_bits=8)
    bits = int(str(caught.value).split("value_bits = ")[1].split()[0])
    plan(dimension=2**20, value_bits=bits)
    with pytest.raises(ConfigurationError):
        plan(dimension=2**20, value_bits=bits - 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"clip_norm": math.inf},
        {"clip_norm": 0.0},
        {"noise_multiplier": math.nan},
        {"colluders": 8},
        {"minimum_survivors": 11},
        {"value_bits": 32},
        {"dimension": 0},
        {"coordinate_range": -1.0},
    ],
)
def test_bad_plans(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        plan(**bad)


def test_bad_updates() -> None:
    for bad in (np.full(64, np.nan), np.zeros(63), np.zeros((8, 8)), np.zeros(64, dtype=int)):
        with pytest.raises(InvalidInputError):
            plan().encode(bad)


@pytest.mark.parametrize("bits", [20, 24])
@pytest.mark.parametrize("epsilon", [1.0, 6.0])
def test_error_close_to_the_central_gaussian(bits: int, epsilon: float) -> None:
    p = DistributedSkellam(10.0, 256, 1.0, 100, 100, 0, bits).calibrated(epsilon=epsilon, delta=1e-5, rounds=1)
    assert event_epsilon(p.event(), 1e-5) <= epsilon
    rounding = 100 / 4 / p.scale**2
    ratio = (p.noise_stddev**2 + rounding) / (10.0 / gaussian_mu(epsilon, 1e-5)) ** 2
    assert 1.0 <= ratio <= 1.2


def test_rounding_bounds_the_norm_for_certain() -> None:
    rng = np.random.default_rng(0)
    for scale in (0.5, 3.0, 1000.0):
        bound = l2_bound(scale, 1.0, 400, beta=0.9)  # so tight that shortening must happen
        for i in range(20):
            x = rng.normal(size=400) * 100
            z = round_update(x, scale=scale, clip_norm=1.0, coordinate_bound=10**6, l2=bound, seed=bytes([i] * 32))
            assert math.sqrt(int((z.astype(object) ** 2).sum())) <= bound


def test_rounding_is_unbiased() -> None:
    x = np.full(100_000, 0.3 / math.sqrt(100_000))
    z = round_update(x, scale=1000.0, clip_norm=1.0, coordinate_bound=100, l2=1e9, seed=SECRET)
    assert z.mean() / 1000 == pytest.approx(x[0], rel=0.01)


# -- central, local, adaptive, cohorts


def test_central_noise() -> None:
    c = CentralNoise(1.0, 4096, 2.0)
    total = np.sum([c.encode(np.zeros(4096), Replay(i)) for i in range(3)], axis=0, dtype=np.uint64)
    released = c.release(total, 3, Replay(9))
    assert released.std() == pytest.approx(2.0, rel=0.05)
    assert abs(released.mean()) < 0.1
    assert event_epsilon(c.event(), 1e-5) == pytest.approx(
        event_epsilon(plan(noise_multiplier=2.0).event(), 1e-5), rel=0.2
    )
    with pytest.raises(ConfigurationError, match="raise value_bits"):
        CentralNoise(1.0, 2**20, 1.0, value_bits=8)


def test_local_noise_meets_its_target_under_replacement() -> None:
    local = LocalNoise(2.0, 1e-5, 1.0, 500)
    assert 1.99 < event_epsilon(local.event(), 1e-5, local.relation) <= 2.0
    assert local.noise_multiplier == pytest.approx(2 / gaussian_mu(2.0, 1e-5), rel=1e-3)
    assert local.privatize(np.zeros(500), Replay()).std() == pytest.approx(local.noise_multiplier, rel=0.15)


@pytest.mark.parametrize(("z", "count", "expected"), [(1.0, 5.0, 1.00503782), (1.5, 2.5, 1.57242726)])
def test_adaptive_split(z: float, count: float, expected: float) -> None:
    a = AdaptiveClip(2.0, z, count)
    assert a.update_noise_multiplier == pytest.approx(expected, abs=1e-8)
    # one noise z · joint norm serves both: z_Δ C on the update, z_b on the count
    assert z * a.joint_norm == pytest.approx(a.update_noise_multiplier * 2.0)
    assert z * a.joint_norm / a.bit_weight == pytest.approx(count)


def test_adaptive_clip_finds_the_median() -> None:
    norms = np.random.default_rng(1).lognormal(size=1000)
    state = AdaptiveClip(100.0, 1.0, 20.0)
    for _ in range(200):
        state = state.update(sum(state.bit(float(n)) for n in norms), norms.size)
    assert state.clip_norm == pytest.approx(np.median(norms), rel=0.1)
    with pytest.raises(ConfigurationError, match="count_stddev"):
        replace(state, count_stddev=0.4)


def test_poisson_cohorts() -> None:
    sizes = [len(poisson_cohort(range(1000), 0.1, Replay(i))) for i in range(200)]
    assert abs(np.mean(sizes) - 100) < 4
    assert np.std(sizes) == pytest.approx(math.sqrt(90), rel=0.25)
    assert poisson_cohort([], 0.5) == ()
    assert poisson_cohort([1, 2], 0.0) == ()
    assert poisson_cohort([1, 2], 1.0) == (1, 2)
    assert max(sizes) < cohort_capacity(1000, 0.1) <= 300
    assert cohort_capacity(10, 1.0) == 10
