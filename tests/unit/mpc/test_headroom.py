"""Bounds of training on shares: at least what autograd finds, and refused where they leave the headroom."""

import pytest
import torch
from torch import nn

from securefl.cluster.importing import import_module
from securefl.errors import ConfigurationError
from securefl.mpc.headroom import _LARGEST, check_training


def check(net: nn.Module, shape: tuple[int, ...], **changes: float) -> float:
    imported = import_module(net)
    asked = {"input_range": 2.0, "gradient_range": 4.0, "examples": 8, **changes}
    return check_training(imported.graph, imported.parameters, input_shape=shape, **asked)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 4), nn.ReLU()
    )


def test_outputs_of_the_largest_inputs_stay_below_the_bound() -> None:
    model = net()
    bound = check(model, (2, 6, 6))
    assert model(2.0 * torch.sign(torch.randn(500, 2, 6, 6))).abs().max() <= bound
    assert check(model, (2, 6, 6), growth_bits=3) > bound


def test_the_bound_of_the_step_is_where_it_is_refused() -> None:
    """One linear layer: rows · |δ| · |x|, over one less the momentum."""
    layer = nn.Linear(5, 3)
    just = _LARGEST / (2.0 * 4.0) - 1
    check(layer, (5,), examples=int(just))
    for beyond in ({"examples": int(just) + 2}, {"examples": int(just), "momentum": 0.5}):
        with pytest.raises(ConfigurationError, match="the step of the weights of 'linear'"):
            check(layer, (5,), **beyond)


def test_a_convolution_sums_over_its_positions() -> None:
    just = _LARGEST / (2.0 * 4.0 * 36) - 1
    layer = nn.Conv2d(2, 3, 3, padding=1)
    check(layer, (2, 6, 6), examples=int(just))
    with pytest.raises(ConfigurationError, match="the step of the weights"):
        check(layer, (2, 6, 6), examples=int(just) + 2)


def test_gradients_inside_are_bounded_layer_by_layer() -> None:
    with torch.no_grad():
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight.fill_(2.0**20)
    with pytest.raises(ConfigurationError, match="could reach"):
        check(model, (4,), gradient_range=2.0**8)


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [
        (nn.Sequential(nn.Linear(4, 2), nn.Softmax(-1)), (4,), "cannot be trained through on shares"),
        (nn.Linear(4, 2), (5,), "does not fit values of shape"),
        (nn.Conv2d(1, 1, 3), (5,), "takes images"),
        (nn.Conv2d(1, 1, 7), (1, 5, 5), "no window of"),
    ],
)
def test_what_cannot_be_is_named(model: nn.Module, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        check(model, shape)
