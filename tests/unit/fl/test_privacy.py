import math

import numpy as np
import pytest

from securefl.dp.accountant import event_epsilon
from securefl.dp.events import SelfComposed
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError, InvalidInputError, PrivacyBudgetExceededError, TooFewClientsError
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.config import PrivacyConfig
from securefl.fl.interfaces import Contribution, LostRoundError
from securefl.fl.privacy import UserPrivacy
from securefl.plain import PlainSum
from securefl.secagg import MaskedSum, Suite

DIMENSION = 50
MODEL = bytes(32)


def privacy(folder, rounds=4, **options):
    clients = options.pop("clients", 20)
    least = options.pop("minimum_survivors", 14)
    made = UserPrivacy(
        PrivacyConfig(**options),
        dimension=DIMENSION,
        population=clients,
        minimum_survivors=least,
        rounds=rounds,
        value_bits=22,
    )
    made.open(folder / "ledger.sqlite", "test")
    return made


def aggregator(private, protection=None):
    return ProtectedAggregator(
        protection or PlainSum(), threshold=14, grid=FixedPoint(1.0, 16), max_weight=64, privacy=private
    )


def contributions(clients=20, norm=0.5, seed=0):
    rng = np.random.default_rng(seed)
    made = {}
    for i in range(1, clients + 1):
        x = rng.normal(0, 1, DIMENSION)
        made[i] = Contribution({"w": (norm * x / np.linalg.norm(x)).astype(np.float32)}, 7, bytes([i]) * 32)
    return made


@pytest.mark.parametrize("noise", ["distributed", "central", "local"])
def test_the_mean_carries_the_noise_that_the_budget_asks_for(tmp_path, noise):
    private = privacy(tmp_path, noise=noise, epsilon=8.0)
    given = contributions()
    true = np.mean([each.tensors["w"] for each in given.values()], axis=0)
    aggregate = aggregator(private).aggregate(1, MODEL, given)
    # the sum's noise is sized for 14 survivors; 20 add theirs under distributed, one share each under local noise
    scale = {"distributed": math.sqrt(20 / 14), "central": 1.0, "local": math.sqrt(20)}[noise]
    expected = private.noise_multiplier * private.clip_norm * scale / 20
    measured = float(np.std(aggregate.mean["w"] - true))
    assert 0.7 * expected < measured < 1.4 * expected
    assert aggregate.total_weight == 20, "every client counts as one"
    assert aggregate.privacy.epsilon == private.epsilon_spent


@pytest.mark.parametrize("noise", ["distributed", "central", "local"])
def test_the_planned_rounds_fit_the_budget_and_no_more_than_it_is_spent(tmp_path, noise):
    private = privacy(tmp_path, rounds=3, noise=noise, epsilon=6.0)
    for round in (1, 2, 3):
        aggregator(private).aggregate(round, MODEL, contributions())
    assert 0 < private.epsilon_spent <= 6.0
    stopped = 0
    for round in range(4, 30):
        try:
            aggregator(private).aggregate(round, MODEL, contributions())
        except PrivacyBudgetExceededError:
            stopped = round
            break
    assert stopped
    assert private.epsilon_spent <= 6.0


def test_realised_survivors_are_what_is_charged(tmp_path):
    private = privacy(tmp_path, epsilon=6.0)
    aggregator(private).aggregate(1, MODEL, contributions(20))
    many = private.epsilon_spent
    (tmp_path / "few").mkdir()
    other = privacy(tmp_path / "few", epsilon=6.0)
    aggregator(other).aggregate(1, MODEL, contributions(14))
    assert many < other.epsilon_spent


def test_masked_sums_carry_the_same_noise_arithmetic(tmp_path):
    private = privacy(tmp_path, epsilon=8.0)
    given = contributions()
    true = np.mean([each.tensors["w"] for each in given.values()], axis=0)
    mean = aggregator(private, MaskedSum(Suite.X25519)).aggregate(1, MODEL, given).mean["w"]
    expected = private.noise_multiplier * private.clip_norm * math.sqrt(20 / 14) / 20
    assert 0.7 * expected < float(np.std(mean - true)) < 1.4 * expected


def test_noise_does_not_follow_the_seed(tmp_path):
    private = privacy(tmp_path)
    first, second = (aggregator(private).aggregate(r, MODEL, contributions()).mean["w"] for r in (1, 2))
    assert (first != second).any()


def test_an_update_is_clipped_to_the_norm_whatever_its_length(tmp_path):
    private = privacy(tmp_path, clip_norm=0.5)
    coder = private.coder(Layout.of({"w": np.zeros(DIMENSION, dtype=np.float32)}))
    for norm in (0.4, 0.5, 5.0, 1e6):
        encoded = coder.encode(contributions(1, norm=norm)[1])
        assert int(encoded.values.max()) <= coder.max_value
        assert (encoded.clipped > 0) == (norm > 0.5)


def test_a_round_is_charged_before_it_is_decoded(tmp_path):
    private = privacy(tmp_path)
    made = aggregator(private)
    seen = []
    original = private.charge

    def charge(round, coder, result):
        decode = coder.decode
        coder.decode = lambda result: (seen.append(private.ledger.state(round).value), decode(result))[1]
        original(round, coder, result)

    private.charge = charge
    made.aggregate(1, MODEL, contributions())
    assert seen == ["charged"]


def test_a_round_that_was_charged_is_never_run_again(tmp_path):
    private = privacy(tmp_path)
    aggregator(private).aggregate(1, MODEL, contributions())
    with pytest.raises(LostRoundError, match="round 1"):
        aggregator(private).aggregate(1, MODEL, contributions())
    aggregator(private).aggregate(2, MODEL, contributions())


def test_too_few_survivors_for_the_noise_are_refused_and_not_charged(tmp_path):
    private = privacy(tmp_path)
    with pytest.raises(TooFewClientsError, match="14"):
        aggregator(private).aggregate(1, MODEL, contributions(13))
    assert private.epsilon_spent == 0


def test_a_bad_update_is_not_charged(tmp_path):
    private = privacy(tmp_path)
    given = contributions()
    given[4].tensors["w"][3] = np.nan
    with pytest.raises(InvalidInputError, match="client 4"):
        aggregator(private).aggregate(1, MODEL, given)
    assert private.epsilon_spent == 0


@pytest.mark.parametrize("noise", ["distributed", "central"])
def test_the_adaptive_clip_norm_moves_towards_the_norms(tmp_path, noise):
    private = privacy(
        tmp_path, rounds=12, noise=noise, adaptive=True, clip_norm=4.0, epsilon=50.0, clients=60, minimum_survivors=50
    )
    norms = [private.clip_norm]
    for round in range(1, 9):
        aggregate = ProtectedAggregator(
            PlainSum(), threshold=50, grid=FixedPoint(1.0, 16), max_weight=64, privacy=private
        ).aggregate(round, MODEL, contributions(60, norm=1.0, seed=round))
        norms.append(aggregate.privacy.clip_norm)
    assert norms[-1] < norms[0]
    assert private.epsilon_spent <= 50.0


def test_the_clip_norm_is_restored(tmp_path):
    private = privacy(tmp_path, adaptive=True, epsilon=50.0)
    aggregate = aggregator(private).aggregate(1, MODEL, contributions())
    private.ledger.close()
    again = privacy(tmp_path, adaptive=True, epsilon=50.0)
    again.restore([aggregate.privacy, None])
    assert again.clip_norm == pytest.approx(aggregate.privacy.clip_norm)


def test_sampling_amplifies_and_says_against_whom(tmp_path):
    private = privacy(tmp_path, sampling_probability=0.5, clients=40, minimum_survivors=14, epsilon=4.0)
    aggregator(private).aggregate(1, MODEL, contributions(18))
    told = " ".join(private.assumptions())
    assert "its own coin" in told
    unsampled = event_epsilon(SelfComposed(private.mechanism.event(), 1), private.config.delta)
    assert private.epsilon_spent < unsampled
    assert f"{unsampled:.2f}" in told


def test_assumptions_name_who_must_be_honest(tmp_path):
    private = privacy(tmp_path, colluders=3)
    assert any("at least 11 of the survivors" in line and "3 may collude" in line for line in private.assumptions())


def test_colluders_raise_the_noise(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    honest, wary = privacy(tmp_path / "a"), privacy(tmp_path / "b", colluders=6)
    assert float(wary.mechanism.client_variance) / wary.mechanism.scale**2 > 1.5 * (
        float(honest.mechanism.client_variance) / honest.mechanism.scale**2
    )


def test_a_ring_too_small_says_which_bits_would_do():
    with pytest.raises(ConfigurationError, match="value_bits"):
        UserPrivacy(
            PrivacyConfig(epsilon=0.5),
            dimension=100_000,
            population=20,
            minimum_survivors=14,
            rounds=50,
            value_bits=4,
        )
