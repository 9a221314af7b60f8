"""The linear coders: supports, projections, low rank, chains; what they refuse."""

import numpy as np
import pytest

from securefl.encoding.chain import Chain
from securefl.encoding.feedback import ErrorFeedback
from securefl.encoding.lowrank import PowerSGD
from securefl.encoding.project import RandomProjection
from securefl.encoding.public import PublicRandomness
from securefl.encoding.rules import RULES, Plan, check, require_contributors
from securefl.encoding.sparsify import PrunedSupport, RandomK, random_support
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.types import PartyId

PUBLIC = PublicRandomness(b"p" * 32, 3)
SHAPES = ((12, 30), (12,), (8, 3, 3, 3), (2, 2))
SIZE = 12 * 30 + 12 + 8 * 27 + 4
X = np.random.default_rng(0).normal(size=SIZE).astype(np.float32)


@pytest.mark.parametrize(("dimension", "kept"), [(1, 1), (10, 10), (1000, 7), (1000, 999), (100_000, 10_000)])
def test_a_support_has_one_place_in_every_stratum(dimension, kept):
    positions, sizes = random_support(dimension, kept, PUBLIC, "test")
    assert sizes.sum() == dimension
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    assert ((positions >= starts) & (positions < starts + sizes)).all()


@pytest.mark.parametrize("kept", [0, 11])
def test_k_out_of_range_is_refused(kept):
    with pytest.raises(ConfigurationError, match="k must be 1 to 10"):
        random_support(10, kept, PUBLIC, "test")


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5, float("nan")])
def test_fractions_out_of_range_are_refused(fraction):
    for coder in (RandomK, RandomProjection):
        with pytest.raises(ConfigurationError):
            coder(fraction)


def test_supports_change_with_seed_round_and_purpose():
    draws = [
        random_support(1000, 100, PublicRandomness(seed, round), purpose)[0]
        for seed, round, purpose in (
            (b"p" * 32, 1, "a"),
            (b"q" * 32, 1, "a"),
            (b"p" * 32, 2, "a"),
            (b"p" * 32, 1, "b"),
        )
    ]
    assert len({draw.tobytes() for draw in draws}) == 4


@pytest.mark.parametrize("coder", [RandomK(0.2), RandomProjection(0.2)])
def test_with_feedback_a_coder_is_a_projection(coder):
    x = X[:512]  # no padding: with it the projection is only a contraction
    stage = coder.at(((512,),), PUBLIC)
    once = stage.expand(stage.project(x, 0))
    assert np.allclose(stage.expand(stage.project(once, 0)), once, atol=1e-5)
    assert np.dot(x - once, once) == pytest.approx(0, abs=1e-2)


def test_a_padded_projection_never_adds_energy():
    stage = RandomProjection(0.2).at(SHAPES, PUBLIC)
    residual = X - stage.expand(stage.project(X, 0))
    assert np.linalg.norm(residual) < np.linalg.norm(X)


def test_powersgd_finds_a_low_rank_update_and_keeps_vectors_whole():
    rng = np.random.default_rng(1)
    matrix = (rng.normal(size=(12, 2)) @ rng.normal(size=(2, 30))).astype(np.float32)
    filters = (rng.normal(size=(8, 2)) @ rng.normal(size=(2, 27))).astype(np.float32)
    flat = np.concatenate([matrix.reshape(-1), X[:12], filters.reshape(-1), X[:4]])
    stage = PowerSGD(2).at(SHAPES, PUBLIC)
    assert stage.sizes == (2 * 12 + 2 * 8, 2 * 30 + 12 + 2 * 27 + 4)
    stage.observe(0, stage.project(flat, 0))
    mean = stage.project(flat, 1)
    stage.observe(1, mean)
    assert np.allclose(stage.expand(mean), flat, atol=1e-4)
    assert [q.shape for q in stage.state()] == [(30, 2), (27, 2)]


def test_powersgd_starts_anew_where_a_direction_died():
    stage = PowerSGD(2).at(SHAPES, PUBLIC, [np.zeros((30, 2), np.float32), np.ones((27, 2), np.float32)])
    assert np.all(stage.bases[0] != 0)
    assert np.all(stage.bases[1] == 1)


def test_powersgd_refuses_ranks_and_shapes_that_do_not_fit():
    with pytest.raises(ConfigurationError):
        PowerSGD(0)
    with pytest.raises(ConfigurationError, match="rank = 50"):
        PowerSGD(50).at(SHAPES, PUBLIC)
    with pytest.raises(ConfigurationError, match="changed its shape"):
        PowerSGD(2).at(SHAPES, PUBLIC, [np.zeros((5, 2), np.float32)])
    with pytest.raises(ConfigurationError, match="first sum"):
        PowerSGD(2).at(SHAPES, PUBLIC).project(X, 1)


def test_a_pruned_support_sends_what_the_mask_keeps():
    mask = np.arange(SIZE) % 3 == 0
    stage = PrunedSupport(mask).at(SHAPES, PUBLIC)
    assert (stage.expand(stage.project(X, 0)) == X * mask).all()
    with pytest.raises(ConfigurationError, match="the model has"):
        PrunedSupport(mask[:-1]).at(SHAPES, PUBLIC)
    with pytest.raises(ConfigurationError):
        PrunedSupport(np.zeros(4, dtype=bool))


def test_chains():
    mask = np.arange(SIZE) % 2 == 0
    chain = Chain((PrunedSupport(mask), RandomK(0.5)))
    stage = chain.at(SHAPES, PUBLIC)
    assert stage.sizes == (SIZE // 4,)
    result = stage.expand(stage.project(X, 0))
    assert np.isin(np.flatnonzero(result), np.flatnonzero(mask)).all()
    empty = Chain().at(SHAPES, PUBLIC)
    assert empty.sizes == (SIZE,)
    assert empty.project(X, 0) is X
    with pytest.raises(ConfigurationError, match="twice"):
        Chain((RandomK(0.1), RandomK(0.2)))
    with pytest.raises(ConfigurationError, match="last"):
        Chain((PowerSGD(1), RandomK(0.2)))
    with pytest.raises(ConfigurationError, match="rank"):
        Chain((RandomK(0.1), PowerSGD(1))).at(SHAPES, PUBLIC)  # no matrices are left


def test_residuals_are_committed_only_when_counted_and_decay():
    a, b = PartyId(1), PartyId(2)
    feedback = ErrorFeedback(decay=0.5)
    for client in (a, b):
        feedback.propose(client, np.ones(3, dtype=np.float32))
    feedback.commit([a])
    assert (feedback.compensate(a, np.zeros(3, dtype=np.float32)) == 0.5).all()
    assert (feedback.compensate(b, np.zeros(3, dtype=np.float32)) == 0).all()
    feedback.commit([b])  # nothing is pending any more
    assert b not in feedback.residuals
    with pytest.raises(InvalidInputError, match="changed its shape"):
        feedback.compensate(a, np.zeros(4, dtype=np.float32))
    with pytest.raises(InvalidInputError, match="not finite"):
        feedback.propose(a, np.array([np.nan, 1, 1], dtype=np.float32))
    with pytest.raises(ConfigurationError):
        ErrorFeedback(decay=1.5)


UNSAFE = {
    "allow_error_feedback_with_server_momentum": Plan("masked", error_feedback=True, server_momentum=0.9),
    "allow_error_feedback_with_adaptive_server": Plan("masked", error_feedback=True, adaptive_server=True),
    "allow_positions_in_the_clear": Plan("masked", positions="client"),
    "allow_per_client_scales": Plan("masked", scale="client"),
    "allow_two_releases_with_privacy": Plan("masked", two_sums=True, privacy=True),
}


@pytest.mark.parametrize("flag", [rule.flag for rule in RULES])
def test_unsafe_combinations_are_refused_until_their_flag_is_set(flag):
    with pytest.raises(ConfigurationError, match=flag):
        check(UNSAFE[flag])
    check(UNSAFE[flag], {flag})


def test_safe_combinations_pass():
    check(Plan("masked"))
    check(Plan("masked", error_feedback=True, server_momentum=0.5))
    check(Plan("masked", server_momentum=0.9, adaptive_server=True))
    check(Plan("plain", positions="client", scale="client"))


def test_an_index_with_too_few_contributors_is_refused():
    require_contributors({1: [0, 1], 2: [0, 1], 3: [0]}, 2)
    with pytest.raises(ConfigurationError, match="index 4 has 1 contributors"):
        require_contributors({1: [0, 4], 2: [0], 3: [0]}, 2)
