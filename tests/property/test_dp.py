"""What must hold for every parameter: monotonicity, domination, canonical storage."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from securefl.dp import events as ev
from securefl.dp.accountant import event_delta, event_epsilon
from securefl.dp.calibration import calibrate_noise, rounds_event
from securefl.dp.distributed import DistributedSkellam
from securefl.dp.gaussian import gaussian_epsilon, gaussian_mu
from securefl.errors import ConfigurationError

sigmas = st.floats(0.5, 8.0)
rates = st.floats(0.002, 0.999)
counts = st.integers(1, 500)
deltas = st.floats(-10.0, -3.0).map(lambda x: 10.0**x)
relations = st.sampled_from(["add-remove", "replace-one"])
relaxed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@relaxed
@given(sigmas, rates, counts, deltas, relations)
def test_sampling_never_costs_more_and_stays_above_the_lower_bound(
    sigma: float, q: float, rounds: int, delta: float, relation: str
) -> None:
    found = event_epsilon(rounds_event(sigma, q, rounds), delta, relation)
    assert 0 <= found <= event_epsilon(rounds_event(sigma, 1.0, rounds), delta, relation)
    # one set, {x > t}, in one round: its hockey-stick value is a lower bound of δ
    epsilon = found * 0.9 if found > 0 else 0.0
    t = np.linspace(-5 * sigma, 6 * sigma + 1, 400)
    above = np.array([0.5 * math.erfc(x / sigma / math.sqrt(2)) for x in t])
    moved = np.array([0.5 * math.erfc((x - 1) / sigma / math.sqrt(2)) for x in t])
    lower = float(np.max((1 - q) * above + q * moved - math.exp(min(epsilon, 700)) * above))
    assert event_delta(rounds_event(sigma, q, rounds), epsilon, relation) >= lower * (1 - 1e-9)


@relaxed
@given(sigmas, rates, counts, deltas, relations)
def test_delta_at_epsilon_is_delta(sigma: float, q: float, rounds: int, delta: float, relation: str) -> None:
    event = rounds_event(sigma, q, rounds)
    epsilon = event_epsilon(event, delta, relation)
    if epsilon > 1e-3:
        assert event_delta(event, epsilon * 1.003, relation) <= delta
        assert event_delta(event, epsilon * 0.99, relation) > delta * 0.95


@relaxed
@given(sigmas, rates, st.integers(1, 300), deltas)
def test_more_noise_costs_less_and_more_rounds_cost_more(sigma: float, q: float, rounds: int, delta: float) -> None:
    base = event_epsilon(rounds_event(sigma, q, rounds), delta)
    slack = 1 + 2e-3
    assert event_epsilon(rounds_event(sigma * 1.1, q, rounds), delta) <= base * slack
    assert event_epsilon(rounds_event(sigma, q, rounds * 2), delta) * slack >= base
    assert event_epsilon(rounds_event(sigma, q * 0.8, rounds), delta) <= base * slack


@settings(max_examples=12, deadline=None)
@given(st.floats(0.2, 10.0), deltas, st.floats(0.01, 1.0), st.integers(1, 300), relations)
def test_calibrated_noise_meets_its_target(epsilon: float, delta: float, q: float, rounds: int, relation: str) -> None:
    z = calibrate_noise(epsilon=epsilon, delta=delta, sampling_probability=q, rounds=rounds, neighboring=relation)
    assert event_epsilon(rounds_event(z, q, rounds), delta, relation) <= epsilon
    if z > 0.02:
        assert event_epsilon(rounds_event(z * 0.99, q, rounds), delta, relation) > epsilon * 0.998


@given(st.floats(1e-4, 50.0), st.floats(1e-15, 0.5))
def test_gaussian_round_trip(epsilon: float, delta: float) -> None:
    mu = gaussian_mu(epsilon, delta)
    assert gaussian_epsilon(mu, delta) <= epsilon * (1 + 1e-6) + 1e-9


leaf = st.one_of(
    sigmas.map(ev.Gaussian),
    st.builds(lambda a, b: ev.PoissonSampled(ev.Gaussian(a), b), sigmas, rates),
    st.builds(lambda a, b, d: ev.Skellam(a, a * 2, b, d), st.floats(1, 1e6), st.floats(1, 1e12), st.integers(1, 10**6)),
    st.builds(lambda a: ev.Shuffled(ev.Gaussian(a)), sigmas),
    st.builds(lambda a, n: ev.FixedSizeSampled(ev.Gaussian(a), n + 5, n), sigmas, st.integers(1, 99)),
)
trees = st.recursive(
    leaf,
    lambda tree: st.one_of(
        st.builds(ev.SelfComposed, tree, st.integers(0, 9)),
        st.lists(tree, max_size=3).map(lambda parts: ev.Composed(tuple(parts))),
    ),
)


@given(trees)
def test_events_are_stored_canonically(stored: ev.Event) -> None:
    text = ev.event_to_json(stored)
    assert ev.event_from_json(text) == stored
    assert ev.event_to_json(ev.event_from_json(text)) == text


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.01, 100.0), st.integers(1, 10**6), st.floats(0.1, 20.0), st.integers(1, 1000), st.floats(0.1, 1.0),
    st.floats(0.0, 0.9), st.integers(2, 31),
)  # fmt: skip
def test_a_plan_keeps_its_promises_or_is_refused(
    clip: float, dimension: int, z: float, clients: int, least: float, colluding: float, bits: int
) -> None:
    survivors = max(1, int(least * clients))
    colluders = min(survivors - 1, int(colluding * survivors))
    try:
        plan = DistributedSkellam(clip, dimension, z, clients, survivors, colluders, bits)
    except ConfigurationError as error:
        advice = str(error)
        event(advice)
        if "would do" not in advice and "raise minimum_survivors" not in advice:
            raise
        return
    charged = plan.event()
    assert isinstance(charged, ev.Skellam)
    assert plan.max_value <= 2**bits - 2
    assert charged.noise_multiplier >= z
    assert charged.statistical_distance <= 2**-80
    assert float(plan.client_variance) * (survivors - colluders) >= (z * plan.l2_sensitivity) ** 2
