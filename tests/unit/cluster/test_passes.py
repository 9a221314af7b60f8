"""Forward and backward as two commands: gradients from a loss that only the client has."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import nn

from securefl.cluster.local import local_cluster
from securefl.cluster.servers import Servers
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError, LocalProtocolError


@pytest.fixture(params=["dealer", "replicated"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    with local_cluster(engine=request.param, parties="threads", deadline=20) as cluster:
        yield cluster


class Residual(nn.Module):
    """Every layer that gradients pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.mean = nn.AvgPool2d(2)
        self.last = nn.Linear(36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.flatten(self.mean(torch.relu(self.second(x) + x)), 1))


def bodies() -> list[tuple[nn.Module, tuple[int, ...]]]:
    torch.manual_seed(82)  # no input of a relu is within 6e-4 of zero, where a rounding would decide
    return [
        (nn.Linear(6, 3), (6,)),
        (nn.Sequential(nn.ReLU(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU()), (6,)),
        (nn.Sequential(nn.Flatten(), nn.Linear(8, 3)), (2, 4)),
        (Residual(), (2, 6, 6)),
    ]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize(("audit", "engine"), [(0.0, "dealer"), (1.0, "dealer"), (0.0, "replicated")])
def test_gradients_are_those_of_autograd(which: int, audit: float, engine: str) -> None:
    """Two passes open at once, then a step, then another with momentum; every batch audited or none."""
    net, shape = bodies()[which]
    reference = copy.deepcopy(net)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.2, momentum=0.5)
    with local_cluster(engine=engine, parties="threads", deadline=20, audit=audit) as servers:
        model = servers.share(net)
        for _ in range(2):
            batches = [torch.randn(rows, *shape) for rows in (5, 3)]
            opened = [model.forward(servers.share(x)) for x in batches]
            optimizer.zero_grad()
            for x, output in zip(batches, opened, strict=True):
                x.requires_grad_(True)
                expected = reference(x)
                gradient = torch.randn_like(expected)
                expected.backward(gradient)
                assert (output.reveal() - expected).abs().max() < 5e-4
                below = model.backward(output, servers.share(gradient))
                assert (below.reveal() - x.grad).abs().max() < 1e-3
            for parameter in reference.parameters():
                parameter.grad /= 8
            optimizer.step()
            model.step(lr=0.2, momentum=0.5, divisor=8)
        for name, value in model.reveal_state_dict().items():
            assert (value - reference.state_dict()[name]).abs().max() < 1e-3, name


def test_the_input_gradient_is_the_finite_difference(servers: Servers) -> None:
    """By the servers' own forward passes, no other implementation beside."""
    net, shape = bodies()[1]
    model = servers.share(net)
    x, direction, weights = torch.randn(4, *shape), torch.randn(4, *shape), torch.randn(4, 3)
    output = model.forward(servers.share(x))
    slope = float((model.backward(output, servers.share(weights)).reveal() * direction).sum())
    ahead, behind = (
        float((model(servers.share(x + sign * 1e-2 * direction)).reveal() * weights).sum()) for sign in (1, -1)
    )
    assert abs((ahead - behind) / 2e-2 - slope) < 2e-2


def test_a_pass_is_gone_back_through_once(servers: Servers) -> None:
    model, x = servers.share(nn.Linear(4, 2)), servers.share(torch.randn(3, 4))
    output, gradient = model.forward(x), servers.share(torch.randn(3, 2))
    model.backward(output, gradient)
    with pytest.raises(DecodeError, match="gone back through already"):
        model.backward(output, gradient).reveal()


def test_a_pass_ends_with_its_output(servers: Servers) -> None:
    model, x = servers.share(nn.Linear(4, 2)), servers.share(torch.randn(3, 4))
    output, gradient = model.forward(x), servers.share(torch.randn(3, 2))
    servers._tell("drop", ids=[output.number])
    with pytest.raises(DecodeError, match="there is no forward pass"):
        model.backward(output, gradient).reveal()


def test_weights_that_moved_are_not_mixed_with_older_passes(servers: Servers) -> None:
    model, x = servers.share(nn.Linear(4, 2)), servers.share(torch.randn(3, 4))
    first, second = model.forward(x), model.forward(x)
    gradient = servers.share(torch.randn(3, 2))
    model.backward(first, gradient)
    model.step(lr=0.1)
    with pytest.raises(LocalProtocolError, match="backward through every pass before the step"):
        model.backward(second, gradient).reveal()


def test_a_gradient_of_another_shape_is_refused(servers: Servers) -> None:
    model, x = servers.share(nn.Linear(4, 2)), servers.share(torch.randn(3, 4))
    with pytest.raises(InvalidInputError, match=r"the gradient of the output is \[3, 2\]"):
        model.backward(model.forward(x), servers.share(torch.randn(3, 4))).reveal()


def test_a_step_needs_a_gradient(servers: Servers) -> None:
    model = servers.share(nn.Linear(4, 2))
    model.step(lr=0.1)
    with pytest.raises(LocalProtocolError, match="no gradient to step by"):
        servers.cost()


@pytest.mark.parametrize("net", [nn.Sequential(nn.Linear(4, 2), nn.Sigmoid()), nn.Softmax(dim=-1), nn.MaxPool2d(2)])
def test_layers_that_let_no_gradient_pass_are_named_before_anything_runs(servers: Servers, net: nn.Module) -> None:
    model = servers.share(net)
    with pytest.raises(ConfigurationError, match="cannot be trained through on shares"):
        model.forward(servers.share(torch.rand(3, 4)))


@pytest.mark.parametrize("asked", [{"lr": 0.0}, {"lr": 1e4}, {"lr": 0.1, "momentum": 1.0}, {"lr": 0.1, "divisor": 0.5}])
def test_steps_that_make_no_sense_are_refused(servers: Servers, asked: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"learning rate|divided by"):
        servers.share(nn.Linear(4, 2)).step(**asked)
