"""The accountant against exact values, its own closed forms, and the pitfalls that other accountants fell into."""

from __future__ import annotations

import math

import pytest

import securefl.dp as dp
from securefl.dp import events as ev
from securefl.dp.accountant import assumptions, event_delta, event_epsilon
from securefl.dp.composition import compose
from securefl.dp.gaussian import gaussian_delta, gaussian_epsilon, gaussian_mu
from securefl.dp.pld import Direction, Step
from securefl.errors import ConfigurationError, DecodeError, UnsupportedEventError

#: (sigma, q, T, ε at δ = 1e-5): 1e-5-grid PLD values measured once with dp-accounting 0.6.0.
EXACT = [
    (1.1, 0.0042667, 14062, 2.381686),
    (1.0, 0.01, 1000, 1.828237),
    (1.0, 0.1, 100, 7.046603),
    (1.0, 0.1, 1000, 25.204555),
    (0.5, 0.01, 100, 6.476210),
    (0.8, 0.05, 500, 12.035248),
    (4.0, 0.3, 300, 6.138658),
    (10.0, 0.5, 1000, 7.545174),
    (0.4, 0.001, 1600, 7.721998),
]


@pytest.mark.parametrize(("sigma", "q", "rounds", "exact"), EXACT)
def test_sampled_gaussian_is_tight_from_above(sigma: float, q: float, rounds: int, exact: float) -> None:
    found = dp.epsilon(noise_multiplier=sigma, sampling_probability=q, rounds=rounds, delta=1e-5)
    assert exact * (1 - 1e-6) <= found <= exact * 1.002


@pytest.mark.parametrize(
    ("sigma", "rounds", "exact"), [(1.0, 1, 4.377178), (5.0, 100, 9.997256), (10.0, 1000, 17.856587)]
)
def test_gaussian_is_the_closed_form(sigma: float, rounds: int, exact: float) -> None:
    assert dp.epsilon(noise_multiplier=sigma, rounds=rounds, delta=1e-5) == pytest.approx(exact, abs=1e-6)


def test_replacement_doubles_the_sensitivity() -> None:
    # the bug that RDP accountants have: replace-one treated as add-remove gives 4.3772 here
    assert dp.epsilon(noise_multiplier=1, delta=1e-5, neighboring="replace-one") == pytest.approx(9.997256, abs=1e-6)
    sampled = dp.epsilon(
        noise_multiplier=1, sampling_probability=0.01, rounds=1000, delta=1e-5, neighboring="replace-one"
    )
    assert 2.8430 <= sampled <= 2.8430 * 1.002


def test_both_directions_are_taken() -> None:
    steps = {Step(1.0, 0.01): 1000}
    remove = compose(steps, Direction.REMOVE, delta=1e-5).epsilon(1e-5)
    add = compose(steps, Direction.ADD, delta=1e-5).epsilon(1e-5)
    assert remove == pytest.approx(1.829, abs=1e-3)
    assert add == pytest.approx(1.418, abs=2e-3)
    both = dp.epsilon(noise_multiplier=1, sampling_probability=0.01, rounds=1000, delta=1e-5)
    assert both == max(remove, add)


def test_full_participation_on_the_grid_agrees_with_the_closed_form() -> None:
    # the same numerical path that sampling takes, where the answer is known
    for rounds, delta in ((1, 1e-5), (50, 1e-9), (50, 1e-30)):
        exact = gaussian_epsilon(math.sqrt(rounds) / 3, delta)
        found = compose({Step(3.0, 1.0): rounds}, Direction.REMOVE, delta=delta).epsilon(delta)
        assert exact * (1 - 1e-9) <= found <= exact * 1.001


def test_delta_and_epsilon_are_inverse() -> None:
    parameters = {"noise_multiplier": 0.9, "sampling_probability": 0.05, "rounds": 200}
    epsilon = dp.epsilon(delta=1e-6, **parameters)
    assert dp.delta(epsilon=epsilon, **parameters) == pytest.approx(1e-6, rel=0.02)
    assert dp.delta(epsilon=epsilon * 1.01, **parameters) < 1e-6


def test_heterogeneous_rounds_compose() -> None:
    # 50 rounds with 100, 30 with 90 and 20 with 70 of 100 survivors at planned z = 5: μ = 2.1157009
    parts = tuple(
        ev.SelfComposed(ev.Gaussian(5 * math.sqrt(share)), n) for n, share in ((50, 1.0), (30, 0.9), (20, 0.7))
    )
    assert event_epsilon(ev.Composed(parts), 1e-5) == pytest.approx(10.716683, abs=1e-5)
    mixed = ev.Composed((ev.SelfComposed(ev.PoissonSampled(ev.Gaussian(1.0), 0.01), 500), ev.Gaussian(2.0)))
    alone = dp.epsilon(noise_multiplier=1, sampling_probability=0.01, rounds=500, delta=1e-5)
    assert max(alone, gaussian_epsilon(0.5, 1e-5)) < event_epsilon(mixed, 1e-5) < alone + gaussian_epsilon(0.5, 1e-5)


def test_replacement_composes_sampled_and_unsampled_rounds() -> None:
    many = ev.SelfComposed(ev.PoissonSampled(ev.Gaussian(50.0), 0.01), 10)  # next to nothing
    alone = event_epsilon(ev.Gaussian(1.0), 1e-5, "replace-one")
    assert alone * 0.999 <= event_epsilon(ev.Composed((many, ev.Gaussian(1.0))), 1e-5, "replace-one") <= alone * 1.002


def test_renyi_bounds_are_not_amplified_under_replacement() -> None:
    coarse = ev.Skellam(16.0, 256.0, 900.0, 256)
    sampled = event_epsilon(ev.PoissonSampled(coarse, 0.01), 1e-5, "replace-one")
    assert sampled == event_epsilon(coarse, 1e-5, "replace-one")
    assert sampled > 2 * event_epsilon(ev.PoissonSampled(coarse, 0.01), 1e-5)


def test_fixed_cohorts_and_shuffling_are_not_amplified() -> None:
    fixed = ev.FixedSizeSampled(ev.Gaussian(1.0), population=1000, cohort=10)
    for relation in ("add-remove", "replace-one"):
        assert event_epsilon(fixed, 1e-5, relation) == pytest.approx(9.997256, abs=1e-6)
    assert any("not amplified" in note for note in assumptions(fixed, "add-remove"))
    # σ = 0.5, one epoch, δ = 1e-6: shuffling is at least 10.9948 (Chua et al. 2024); Poisson would claim 1.95
    assert event_epsilon(ev.Shuffled(ev.Gaussian(0.5)), 1e-6) >= 10.9948


def test_skellam_costs_what_a_gaussian_does_when_the_grid_is_fine() -> None:
    fine = ev.Skellam(1e5, 1e5 * 16, 1e10, 256)
    gaussian = dp.epsilon(noise_multiplier=1, delta=1e-5)
    assert gaussian <= event_epsilon(fine, 1e-5) <= gaussian * 1.001
    sampled = event_epsilon(ev.SelfComposed(ev.PoissonSampled(fine, 0.01), 1000), 1e-5)
    exact = dp.epsilon(noise_multiplier=1, sampling_probability=0.01, rounds=1000, delta=1e-5)
    assert exact <= sampled <= exact * 1.002


def test_coarse_skellam_falls_back_to_renyi() -> None:
    coarse = ev.Skellam(16.0, 256.0, 256.0, 256)  # variance below what the certificate is proven for
    assert 4.377 < event_epsilon(coarse, 1e-5) < 8.0
    # subsampled, factor 1: between the Gaussian's tight value and the factor-3 bound
    fine = ev.Skellam(2.0**14, 2.0**24, 2.0**28, 2**20)
    assert 1.8282 < event_epsilon(ev.SelfComposed(ev.PoissonSampled(fine, 0.01), 1000), 1e-5) <= 2.1087


def test_distance_of_the_sampler_is_charged() -> None:
    base = ev.Skellam(1e5, 1e6, 1e10, 256)
    off = ev.Skellam(1e5, 1e6, 1e10, 256, statistical_distance=1e-8)
    assert event_epsilon(off, 1e-5) > event_epsilon(base, 1e-5)
    assert event_delta(off, 1.0) >= event_delta(base, 1.0) + 1e-8
    hopeless = ev.Skellam(1e5, 1e6, 1e10, 256, statistical_distance=1e-4)
    assert event_epsilon(hopeless, 1e-5) == math.inf


def test_nothing_released_costs_nothing() -> None:
    assert dp.epsilon(noise_multiplier=1, sampling_probability=0, rounds=10, delta=1e-5) == 0.0
    assert dp.epsilon(noise_multiplier=1, rounds=0, delta=1e-5) == 0.0
    assert dp.delta(noise_multiplier=1, rounds=0, epsilon=0.0) == 0.0


def test_tiny_deltas_are_accurate() -> None:
    # the tilt keeps the FFT's rounding relative to δ; without it 1e-20 drowns in 1e-16
    value = dp.epsilon(noise_multiplier=1, sampling_probability=0.1, rounds=100, delta=1e-20)
    assert 7.05 < value < dp.epsilon(noise_multiplier=1, rounds=100, delta=1e-20)
    assert dp.delta(noise_multiplier=1, sampling_probability=0.1, rounds=100, epsilon=value) == pytest.approx(
        1e-20, rel=0.1
    )


def test_gaussian_inverses() -> None:
    for epsilon, delta in ((0.1, 1e-3), (1.0, 1e-5), (20.0, 1e-12)):
        mu = gaussian_mu(epsilon, delta)
        assert gaussian_delta(mu, epsilon) <= delta <= gaussian_delta(mu * 1.0001, epsilon)
    assert gaussian_delta(0.0, 1.0) == 0.0
    assert gaussian_epsilon(0.0, 1e-5) == 0.0


BAD = [
    {"noise_multiplier": 0},
    {"noise_multiplier": -1.0},
    {"noise_multiplier": math.nan},
    {"noise_multiplier": math.inf},
    {"noise_multiplier": "1"},
    {"sampling_probability": 1.5},
    {"sampling_probability": -0.1},
    {"sampling_probability": math.nan},
    {"delta": 0.0},
    {"delta": 1.0},
    {"delta": 1.5},
    {"delta": math.nan},
    {"rounds": -1},
    {"rounds": 2.5},
    {"neighboring": "both"},
]


@pytest.mark.parametrize("bad", BAD)
def test_bad_input_is_named(bad: dict[str, object]) -> None:
    good: dict[str, object] = {"noise_multiplier": 1.0, "sampling_probability": 0.1, "rounds": 10, "delta": 1e-5}
    with pytest.raises(ConfigurationError):
        dp.epsilon(**(good | bad))  # type: ignore[arg-type]


def test_infinite_sensitivity_is_refused() -> None:
    with pytest.raises(ConfigurationError):
        ev.Skellam(math.inf, math.inf, 1.0, 1)
    with pytest.raises(ConfigurationError):
        ev.DiscreteGaussian(math.inf, 1.0, 1)


def test_unknown_events_are_refused() -> None:
    class Laplace:
        pass

    with pytest.raises(UnsupportedEventError):
        event_epsilon(Laplace(), 1e-5)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedEventError):
        ev.PoissonSampled(ev.FixedSizeSampled(ev.Gaussian(1.0), 10, 2), 0.1)  # type: ignore[arg-type]
    with pytest.raises(UnsupportedEventError):
        ev.event_to_json(Laplace())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "1",
        '{"type":"Laplace"}',
        '{"type":"Gaussian"}',
        '{"type":"Gaussian","x":1}',
        '{"type":"Gaussian","noise_multiplier":-1}',
        "[" * 10000,
    ],
)
def test_stored_events_that_are_not_ours(text: str) -> None:
    with pytest.raises((DecodeError, ConfigurationError)):
        ev.event_from_json(text)
