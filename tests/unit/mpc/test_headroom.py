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
    ("layer", "factor"),
    [
        (nn.MaxPool2d(2), 1.0),
        (nn.MaxPool2d(3, 2), 4.0),  # a pixel stands in at most four windows
        (nn.MaxPool2d((3, 2), 1), 6.0),
        (nn.Sigmoid(), 0.25),
    ],
)
def test_the_bound_behind_a_layer_is_its_largest_gain(layer: nn.Module, factor: float) -> None:
    """Rows · positions · |δ| · |x|: refused from where the layer's gain takes it there, and reached by autograd."""
    net = nn.Sequential(nn.Conv2d(1, 1, 1), layer)
    just = _LARGEST / (2.0 * 4.0 * 25 * factor)
    check(net, (1, 5, 5), examples=int(just * 0.999))
    with pytest.raises(ConfigurationError, match="the step of the weights of '0'"):
        check(net, (1, 5, 5), examples=int(just * 1.001))
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 0.0 if factor < 1 else 1.0
    x.requires_grad_(True)
    y = layer(x)
    y.backward(torch.ones_like(y))
    assert x.grad[0, 0, 2, 2] == factor


def test_softmax_halves_the_gradient_at_most() -> None:
    x = torch.tensor([[0.0, 0.0]], requires_grad=True)
    torch.softmax(x, 1).backward(torch.tensor([[1.0, -1.0]]))
    assert x.grad.abs().max() == 0.5
    net = nn.Sequential(nn.Linear(5, 3), nn.Softmax(-1))
    just = _LARGEST / (2.0 * 4.0 * 0.5)
    check(net, (5,), examples=int(just * 0.97))
    with pytest.raises(ConfigurationError, match="the step of the weights"):
        check(net, (5,), examples=int(just))


@pytest.mark.parametrize("layer", [nn.Softmax(-1), nn.Sigmoid()])
def test_a_gradient_fits_before_it_shrinks(layer: nn.Module) -> None:
    with pytest.raises(ConfigurationError, match="the gradient at its output"):
        check(nn.Sequential(nn.Linear(5, 3), layer), (5,), examples=1, input_range=0.01, gradient_range=_LARGEST)


@pytest.mark.parametrize(
    ("model", "shape", "sentence"),
    [
        (nn.Linear(4, 2), (5,), "does not fit values of shape"),
        (nn.Conv2d(1, 1, 3), (5,), "takes images"),
        (nn.Conv2d(1, 1, 7), (1, 5, 5), "no window of"),
    ],
)
def test_what_cannot_be_is_named(model: nn.Module, shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        check(model, shape)
