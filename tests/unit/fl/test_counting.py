"""A private test opens the count of right answers: that of the model in the clear, and noise when asked for."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from securefl.errors import ConfigurationError, InvalidInputError  # noqa: E402
from securefl.fl.counting import private_test  # noqa: E402


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(20, 12), torch.nn.ReLU(), torch.nn.Linear(12, 4))


def data(rows=(15, 0, 1, 20)):
    rng = np.random.default_rng(0)
    return [(rng.random((n, 20)), rng.integers(0, 4, n)) for n in rows]


def in_the_clear(net, examples):
    return sum(int((net(torch.from_numpy(x).float()).argmax(1).numpy() == y).sum()) for x, y in examples if len(y))


def test_the_count_is_that_of_the_model_in_the_clear():
    net, examples = model(), data()
    result = private_test(net, examples)
    assert (result.correct, result.examples) == (in_the_clear(net, examples), 36)
    assert result.event is None
    assert result.accuracy == result.correct / 36


def test_noise_is_added_by_both_servers_and_reported():
    net, examples = model(), data()
    results = [private_test(net, examples, noise_multiplier=5.0) for _ in range(12)]
    errors = np.array([result.correct for result in results]) - in_the_clear(net, examples)
    assert len(set(errors.tolist())) > 3
    assert np.abs(errors).max() < 60  # 8 standard deviations of the two together: 5 · √2 each
    assert results[0].noise_stddev == pytest.approx(5 * 2**0.5)
    assert results[0].event.variance == 25  # one server knows its own noise


def test_what_cannot_be_tested_is_refused():
    with pytest.raises(ConfigurationError, match="noise_multiplier"):
        private_test(model(), data(), noise_multiplier=0.0)
    with pytest.raises(InvalidInputError, match="class numbers are 0 to 3"):
        private_test(model(), [(np.zeros((1, 20)), np.array([4]))])
    with pytest.raises(InvalidInputError, match="one of them has examples"):
        private_test(model(), data((0,)))
    with pytest.raises(InvalidInputError):
        private_test(model(), [(np.full((1, 20), 99.0), np.array([0]))])
