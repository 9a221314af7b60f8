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


class Pooled(nn.Module):
    """Overlapping and padded windows, over a relu, over what a relu and an addition share, and over a sigmoid."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.relu = nn.ReLU()
        self.overlapping = nn.MaxPool2d(3, 2, 1)
        self.second = nn.Conv2d(2, 2, 1)
        self.again = nn.ReLU()
        self.dense = nn.MaxPool2d((2, 3), 1)
        self.sigmoid = nn.Sigmoid()
        self.last = nn.MaxPool2d(2, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.overlapping(self.relu(self.first(x)))
        x = self.again(self.second(x) + x)
        return torch.flatten(self.last(self.sigmoid(self.dense(x) + self.dense(x + x))), 1)


class Gated(nn.Module):
    """Two layers with one input, which a third has kept already as its output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(4, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.sigmoid(self.first(x))
        return torch.sigmoid(self.left(x) + self.right(x))


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
        (Pooled(), (1, 5, 5)),
        (nn.Sequential(nn.Linear(6, 8), nn.Sigmoid(), nn.Linear(8, 5), nn.Softmax(-1), nn.Linear(5, 3)), (6,)),
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.Softmax(1)), (2, 4, 4)),
        (Gated(), (4,)),
    ]


def decided(net: nn.Module, rows: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Inputs that no relu has within 6e-4 of zero, and no two of a window's largest within that of each other."""
    gaps: list[torch.Tensor] = []

    def signs(module: nn.Module, given: tuple[torch.Tensor]) -> None:
        gaps.append(given[0].abs().min())

    def winners(module: nn.MaxPool2d, given: tuple[torch.Tensor]) -> None:
        size, stride, padding = (
            (n, n) if isinstance(n, int) else n for n in (module.kernel_size, module.stride, module.padding)
        )
        padded = nn.functional.pad(given[0], (padding[1], padding[1], padding[0], padding[0]), value=-1e9)
        windows = nn.functional.unfold(padded.flatten(0, 1)[:, None], size, stride=stride)
        top = windows.topk(2, dim=1).values
        gap = top[:, 0] - top[:, 1]
        gaps.append(gap[gap > 0].min())  # two zeros of a relu are no choice, nor is what won in two windows before

    hooks = [m.register_forward_pre_hook(signs) for m in net.modules() if isinstance(m, nn.ReLU)]
    hooks += [m.register_forward_pre_hook(winners) for m in net.modules() if isinstance(m, nn.MaxPool2d)]
    for _ in range(100):
        gaps.clear()
        x = torch.randn(rows, *shape)
        net(x)
        if all(gap > 6e-4 for gap in gaps):
            break
    else:
        raise AssertionError("a smaller net")
    for hook in hooks:
        hook.remove()
    return x


@pytest.mark.parametrize("which", range(8))
@pytest.mark.parametrize(("audit", "engine"), [(0.0, "dealer"), (1.0, "dealer"), (0.0, "replicated")])
def test_gradients_are_those_of_autograd(which: int, audit: float, engine: str) -> None:
    """Two passes open at once, then a step, then another with momentum; every batch audited or none."""
    net, shape = bodies()[which]
    reference = copy.deepcopy(net)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.2, momentum=0.5)
    with local_cluster(engine=engine, parties="threads", deadline=20, audit=audit) as servers:
        model = servers.share(net)
        for _ in range(2):
            batches = [decided(reference, rows, shape) for rows in (5, 3)]
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


@pytest.mark.parametrize("window", [(2, 2, 0), (3, 2, 1), ((3, 2), 1, (1, 1)), (1, 1, 0), ((1, 5), (1, 2), (0, 2))])
@pytest.mark.parametrize(("audit", "engine"), [(0.0, "dealer"), (1.0, "dealer"), (0.0, "replicated")])
def test_of_equal_pixels_the_one_that_torch_takes_gets_the_gradient(window: tuple, audit: float, engine: str) -> None:
    """Small whole numbers: nothing is rounded, nearly all windows have equals; results agree to the last bit."""
    net = nn.MaxPool2d(*window)
    x = torch.randint(-2, 2, (40, 3, 7, 6)).float().requires_grad_(True)
    y = net(x)
    gradient = torch.randint(-9, 10, y.shape).float()
    y.backward(gradient)
    with local_cluster(engine=engine, parties="threads", deadline=20, audit=audit) as servers:
        model = servers.share(net)
        output = model.forward(servers.share(x.detach()))
        assert torch.equal(output.reveal(), y)
        assert torch.equal(model.backward(output, servers.share(gradient)).reveal(), x.grad)


@pytest.mark.parametrize(("audit", "engine"), [(0.0, "dealer"), (1.0, "dealer"), (0.0, "replicated")])
def test_an_output_may_be_its_own_gradient(audit: float, engine: str) -> None:
    """As it is of half the sum of squares: one tensor in two roles, at every party alike."""
    net, x = Gated(), torch.randn(3, 4, requires_grad=True)
    (net(x) ** 2 / 2).sum().backward()
    with local_cluster(engine=engine, parties="threads", deadline=20, audit=audit) as servers:
        model = servers.share(net)
        output = model.forward(servers.share(x.detach()))
        assert (model.backward(output, output).reveal() - x.grad).abs().max() < 1e-3


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


@pytest.mark.parametrize("asked", [{"lr": 0.0}, {"lr": 1e4}, {"lr": 0.1, "momentum": 1.0}, {"lr": 0.1, "divisor": 0.5}])
def test_steps_that_make_no_sense_are_refused(servers: Servers, asked: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"learning rate|divided by"):
        servers.share(nn.Linear(4, 2)).step(**asked)
