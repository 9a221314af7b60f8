"""The schedule, the mask, and channels."""

import numpy as np
import pytest

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.compressed import Compression
from securefl.fl.pruning import Pruning, Schedule

RNG = np.random.default_rng(0)
MODEL = {
    "0.weight": RNG.normal(size=(20, 30)).astype(np.float32),
    "0.bias": RNG.normal(size=20).astype(np.float32),
    "1.weight": RNG.normal(size=(10, 20)).astype(np.float32),
    "1.bias": RNG.normal(size=10).astype(np.float32),
}


def test_the_schedule_is_the_polynomial():
    schedule = Schedule(0.1, 0.9, 5, 25)
    assert schedule.sparsity(4) == 0
    assert schedule.sparsity(5) == pytest.approx(0.1)
    assert schedule.sparsity(15) == pytest.approx(0.9 - 0.8 * 0.125)
    assert schedule.sparsity(25) == schedule.sparsity(100) == pytest.approx(0.9)
    assert Schedule(0, 0.5, 3, 3).sparsity(3) == 0.5


@pytest.mark.parametrize(
    "values", [(0.5, 0.1, 1, 2), (0, 1.0, 1, 2), (-0.1, 0.5, 1, 2), (0, 0.5, 0, 2), (0, 0.5, 5, 2)]
)
def test_schedules_that_cannot_work_are_refused(values):
    with pytest.raises(ConfigurationError):
        Schedule(*values)


def test_the_smallest_magnitudes_go_and_stay_gone():
    pruning = Pruning(Schedule(0.0, 0.8, 1, 3))
    model, before = dict(MODEL), None
    for round in (1, 2, 3, 4):
        model = pruning.advance(round, model)
        mask = np.concatenate([pruning.mask[name].reshape(-1) for name in ("0.weight", "1.weight")])
        if before is not None:
            assert not (mask & ~before).any()
        before = mask
        model = {name: value + np.float32(0.01) for name, value in model.items()}  # training moves everything
    assert 1 - mask.mean() == pytest.approx(0.8, abs=0.01)
    assert pruning.mask["0.bias"].all()
    kept = np.abs(MODEL["0.weight"])[pruning.mask["0.weight"]]
    assert kept.min() > np.median(np.abs(MODEL["0.weight"]))


def test_channels_go_whole_with_their_bias_and_one_stays():
    pruning = Pruning(Schedule(0.0, 0.99, 1, 1), structured=True)
    model = pruning.advance(1, MODEL)
    rows = pruning.mask["0.weight"].any(axis=1)
    assert (pruning.mask["0.weight"] == rows[:, None]).all()
    assert rows.sum() == 1
    assert (pruning.mask["0.bias"] == rows).all()
    assert pruning.mask["1.weight"].all()
    assert not model["0.weight"][~rows].any()


def test_the_mask_restricts_the_upload_and_a_new_shape_is_refused():
    pruning = Pruning(Schedule(0.0, 0.5, 1, 1))
    assert pruning.restrict(Compression()).coder.name == "none"
    pruning.advance(1, MODEL)
    assert pruning.restrict(Compression()).coder.name == "pruned"
    assert pruning.sparsity == pytest.approx(400 / 830)
    with pytest.raises(InvalidInputError, match="changed its tensors"):
        pruning.advance(2, {"0.weight": MODEL["0.weight"]})
