from __future__ import annotations

import numpy as np
import pytest

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.server_optimizer import AdaptiveServer, AveragingServer, ServerOptimizer
from securefl.types import Tensors

RNG = np.random.default_rng(0)
MODEL: Tensors = {"w": RNG.standard_normal((2, 3)).astype(np.float32), "b": np.zeros((), np.float32)}
MEANS: list[Tensors] = [
    {"w": 0.1 * RNG.standard_normal((2, 3)), "b": np.asarray(0.1 * RNG.standard_normal())} for _ in range(4)
]


def _all(server: ServerOptimizer, steps: int = 4) -> Tensors:
    tensors = MODEL
    for mean in MEANS[:steps]:
        tensors = server.step(tensors, mean)
    return tensors


def test_averaging_adds_the_mean() -> None:
    moved = AveragingServer(0.5).step(MODEL, MEANS[0])
    assert np.array_equal(moved["w"], (MODEL["w"].astype(np.float64) + 0.5 * MEANS[0]["w"]).astype(np.float32))
    assert moved["w"].dtype == np.float32
    assert moved["b"].shape == ()


def test_momentum_is_the_sum_of_decayed_means() -> None:
    moved = _all(AveragingServer(1.0, momentum=0.9), 3)
    first, second, third = (mean["w"] for mean in MEANS[:3])
    expected = MODEL["w"] + first + (0.9 * first + second) + (0.81 * first + 0.9 * second + third)
    assert np.allclose(moved["w"], expected, atol=1e-6)


@pytest.mark.parametrize("yogi", [False, True])
def test_adaptive_steps_are_those_of_the_paper(yogi: bool) -> None:
    """Algorithm 2 value by value, in plain Python."""
    moved = _all(AdaptiveServer(0.03, yogi=yogi))
    for at in np.ndindex(2, 3):
        x, m, v = float(MODEL["w"][at]), 0.0, 1e-6
        for mean in MEANS:
            delta = float(mean["w"][at])
            m = 0.9 * m + 0.1 * delta
            sign = 1 if v > delta**2 else -1
            v = v - 0.01 * delta**2 * sign if yogi else 0.99 * v + 0.01 * delta**2
            x = float(np.float32(x + 0.03 * m / (v**0.5 + 1e-3)))
        assert moved["w"][at] == pytest.approx(x, abs=1e-6)


def test_adam_and_yogi_differ() -> None:
    assert not np.array_equal(_all(AdaptiveServer())["w"], _all(AdaptiveServer(yogi=True))["w"])


@pytest.mark.parametrize(
    "make",
    [lambda: AveragingServer(1.0, 0.9), AdaptiveServer, lambda: AdaptiveServer(yogi=True)],
    ids=["momentum", "adam", "yogi"],
)
def test_a_restored_server_goes_on_bit_for_bit(make: type[AdaptiveServer]) -> None:
    whole, first, second = make(), make(), make()
    tensors = first.step(first.step(MODEL, MEANS[0]), MEANS[1])
    second.restore({"scales": np.ones(1), **first.state()})  # other parts' arrays are not looked at
    tensors = second.step(second.step(tensors, MEANS[2]), MEANS[3])
    expected = _all(whole)
    assert all(np.array_equal(tensors[name], expected[name]) for name in MODEL)


def test_names_without_a_mean_stay() -> None:
    for server in (AveragingServer(), AdaptiveServer()):
        moved = server.step(MODEL, {"w": MEANS[0]["w"]})
        assert moved["b"] is MODEL["b"]
        assert list(moved) == ["w", "b"]


@pytest.mark.parametrize("server", [AveragingServer(momentum=0.5), AdaptiveServer()], ids=str)
@pytest.mark.parametrize("value", [np.nan, 1e300])
def test_what_is_not_finite_is_refused_and_changes_nothing(server: ServerOptimizer, value: float) -> None:
    server.step(MODEL, MEANS[0])
    before = server.state()
    if value == 1e300 and isinstance(server, AdaptiveServer):
        value = np.inf
    with pytest.raises(InvalidInputError, match="not finite"):
        server.step(MODEL, {"w": np.full((2, 3), value), "b": np.asarray(0.0)})
    after = server.state()
    assert all(np.array_equal(after[name], before[name]) for name in before)


def test_settings_out_of_range_are_refused() -> None:
    for build in (
        lambda: AveragingServer(0.0),
        lambda: AveragingServer(float("inf")),
        lambda: AveragingServer(1.0, 1.0),
        lambda: AdaptiveServer(-1.0),
        lambda: AdaptiveServer(beta1=1.0),
        lambda: AdaptiveServer(beta2=-0.1),
        lambda: AdaptiveServer(tau=0.0),
    ):
        with pytest.raises(ConfigurationError):
            build()
