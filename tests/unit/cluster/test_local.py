"""Local clusters: models and tensors shared, run, trained and revealed; what goes wrong is named."""

import gc
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from securefl import mpc
from securefl.cluster.importing import import_module
from securefl.cluster.local import local_cluster
from securefl.cluster.tensors import SharedTensor
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError, LocalProtocolError, LostPartyError
from securefl.mpc.fixed import encode
from securefl.mpc.handover import hand_out
from securefl.mpc.service import encode_command
from securefl.primitives.entropy import SystemEntropy


class Residual(nn.Module):
    """Everything that is supported, in a module of a user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.mean = nn.AvgPool2d(2)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4 * 2 * 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.features(x))
        x = self.mean(torch.relu(self.second(x) + x))
        return self.head(self.dropout(x.view(x.size(0), -1)))


@pytest.fixture(scope="module", params=["dealer", "replicated"])
def servers(request):
    with local_cluster(engine=request.param, parties="threads", deadline=20) as cluster:
        yield cluster


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 12), nn.ReLU(), nn.Linear(12, 4))


def test_values_come_back(servers) -> None:
    values = torch.linspace(-16, 16, 40_000).reshape(200, 200)  # several blocks of a stream
    assert (servers.share(values).reveal() - values).abs().max() <= 2**-16
    numbers = np.arange(-5, 5)
    np.testing.assert_array_equal(servers.share(numbers).numpy(), numbers)


def test_a_module_with_every_layer(servers) -> None:
    torch.manual_seed(1)
    net = Residual()
    net(torch.rand(50, 1, 8, 8))  # running statistics that are not the initial ones
    net.eval()
    model = servers.share(net, limit=1.0)
    x = torch.rand(5, 1, 8, 8)
    got = model(servers.share(x)).reveal()
    assert (got - net(x)).abs().max() < 2e-4

    other = Residual().eval()
    other.load_state_dict(model.reveal_state_dict())
    assert (other(x) - net(x)).abs().max() < 2e-4


def test_outputs_behind_softmax_and_sigmoid(servers) -> None:
    for last in (nn.Softmax(dim=-1), nn.Sigmoid()):
        net = nn.Sequential(nn.Linear(6, 5), last)
        x = torch.randn(7, 6)
        assert (servers.share(net)(servers.share(x)).reveal() - net(x)).abs().max() < 2e-4


@pytest.mark.parametrize(
    ("loss", "lr", "momentum"), [("cross_entropy", 0.125, 0.0), ("mse", 0.1, 0.0), ("cross_entropy", 0.3, 0.9)]
)
def test_training_follows_torch(servers, loss: str, lr: float, momentum: float) -> None:
    net, reference = mlp(), mlp()
    optimizer = torch.optim.SGD(reference.parameters(), lr=lr, momentum=momentum)
    model = servers.share(net)
    torch.manual_seed(117)  # no input of a relu is within 9e-4 of zero, where a rounding would decide
    for _ in range(4):
        x = torch.randn(24, 20)
        y = torch.randint(0, 4, (24,)) if loss == "cross_entropy" else torch.randn(24, 4)
        model.train_step(servers.share(x), servers.share(y), loss=loss, lr=lr, momentum=momentum)
        optimizer.zero_grad()
        {"mse": nn.functional.mse_loss, "cross_entropy": nn.functional.cross_entropy}[loss](reference(x), y).backward()
        optimizer.step()
    for name, value in model.reveal_state_dict().items():
        assert (value - reference.state_dict()[name]).abs().max() < 1e-3, name


def test_convolutions_train(servers) -> None:
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 3)]
    net = nn.Sequential(*layers)
    model = servers.share(net)
    x, y = torch.rand(16, 1, 6, 6), torch.randint(0, 3, (16,))
    model.train_step(servers.share(x), servers.share(y), lr=0.5)
    nn.functional.cross_entropy(net(x), y).backward()
    for name, parameter in net.named_parameters():
        expected = parameter.detach() - 0.5 * parameter.grad
        assert (model.reveal_state_dict()[name] - expected).abs().max() < 1e-3, name


def lenet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16, 8), nn.Sigmoid(), nn.Linear(8, 4),
    )  # fmt: skip


@pytest.mark.parametrize("audit", [0.0, 0.5])
def test_a_small_convolutional_network_trains(audit: float) -> None:
    """A LeNet in small, step for step beside torch."""
    torch.manual_seed(23)  # no choice of a relu or a window is so near that a rounding would decide who gets a gradient
    net = lenet()
    x, y = 2 * torch.rand(16, 1, 12, 12), torch.randint(0, 4, (16,))
    for engine in ("dealer", "replicated")[: 1 if audit else 2]:
        reference = lenet()
        reference.load_state_dict(net.state_dict())
        optimizer = torch.optim.SGD(reference.parameters(), lr=1.0, momentum=0.75)
        with local_cluster(engine=engine, parties="threads", deadline=20, audit=audit) as cluster:
            model = cluster.share(net)
            for _ in range(6):
                model.train_step(cluster.share(x), cluster.share(y), lr=1.0, momentum=0.75)
                optimizer.zero_grad()
                nn.functional.cross_entropy(reference(x), y).backward()
                optimizer.step()
            got = model.reveal_state_dict()
        for name, value in reference.state_dict().items():
            assert (got[name] - value).abs().max() < 1e-3, name
            assert (got[name] - net.state_dict()[name]).abs().max() > 1e-2, f"{name} was trained"


def test_maxima_before_a_relu_are_what_they_are_behind_it(servers) -> None:
    """Fewer comparisons for the same result: for a relu that nothing else uses."""
    kinds = [layer.kind for layer in import_module(lenet()).graph.layers]
    assert kinds[:7] == ["input", "conv2d", "max_pool", "relu", "conv2d", "max_pool", "relu"]

    class Shortcut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.MaxPool2d(3, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(x)
            return self.pool(x) + x

    assert [layer.kind for layer in import_module(Shortcut()).graph.layers] == ["input", "relu", "max_pool", "add"]
    for net in (Shortcut(), nn.Sequential(nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, 1))):
        x = torch.randn(2, 2, 5, 5)
        assert (servers.share(net)(servers.share(x)).reveal() - net(x)).abs().max() < 1e-4


class Applied(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


@pytest.mark.parametrize(
    "pool",
    [
        lambda x: nn.functional.max_pool2d(torch.relu(x), 2),
        lambda x: nn.functional.max_pool2d(x, (3, 2), stride=1, padding=1),
        lambda x: nn.functional.max_pool2d(x, kernel_size=3, stride=[2, 1], dilation=(1, 1)),
        lambda x: torch.max_pool2d(x, 2, 1),
        lambda x: nn.functional.avg_pool2d(x, 3, 2, 1),
    ],
)
def test_pooling_functions_are_pooling_layers(servers, pool) -> None:
    x = torch.randn(2, 2, 5, 6)
    assert (servers.share(Applied(pool))(servers.share(x)).reveal() - pool(x)).abs().max() < 1e-4


def test_costs_are_counted_from_the_last_time(servers) -> None:
    model = servers.share(mlp())
    x = servers.share(torch.rand(8, 20))
    model(x).reveal()
    servers.cost()
    model(x).reveal()
    cost = servers.cost()
    if servers.engine == "dealer":
        assert cost.rounds == 6  # product 1, comparison 4, product's operand 1; the input is opened already
        assert cost.sent[0, 1] == cost.sent[1, 0]
        assert cost.sent[0, 2] == cost.sent[1, 2] == 0, "nothing ever goes to the helper"
    else:
        assert cost.rounds == 8  # product, digits, comparison 4, choice 2; shares are ready to be multiplied
    assert "rounds" in str(cost)


def test_tensors_combine(servers) -> None:
    a, b = torch.randn(5, 7), torch.randn(7, 3)
    x, y = servers.share(a), servers.share(b)
    assert ((x @ y).reveal() - a @ b).abs().max() < 1e-3
    assert ((x * x + x - x * x).reveal() - a).abs().max() < 1e-3
    whole = servers.share(torch.arange(6).reshape(2, 3))
    assert ((whole * whole).reveal() == torch.arange(6).reshape(2, 3) ** 2).all()


@pytest.mark.parametrize("changed", ["key of server 0", "key of server 1", "words of server 0", "words of server 1"])
def test_a_client_that_tells_parties_different_things_gets_nothing_that_fits_together(changed: str) -> None:
    """It does not learn by how much masks differ, nor anything else of what the parties hold."""
    with local_cluster(parties="threads", deadline=20) as other:
        y = other.share(np.arange(4.0))
        number = other._number()
        payloads = hand_out("dealer", encode(np.ones(4)), SystemEntropy(), opened=True)
        told = [[bytearray(part) for part in handed] for handed in payloads]
        what, server = changed.split(" of server ")
        told[int(server)][1 if what == "key" else 0][0] ^= 1
        other._tell("put", [tuple(handed) for handed in told], id=number, shape=[4], fraction=16, opened=True)
        x = SharedTensor(other, number)
        first, second = ((x * y).numpy() for _ in range(2))
        assert (first != second).all(), "each result is under its own masks"


def test_what_is_forgotten_here_is_dropped_there(servers) -> None:
    number = servers.share(torch.rand(3)).number
    gc.collect()
    for _ in range(80):
        servers.share(torch.rand(1))
    assert servers.share(torch.ones(1)).reveal().item() == 1  # nothing that is still held went with them
    with local_cluster(parties="threads", deadline=20) as other, pytest.raises(DecodeError, match="no tensor"):
        other._get(number)


@pytest.mark.parametrize(
    ("net", "named"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.GELU())), "'1.0' \\(GELU\\)"),
        (nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.BatchNorm1d(2)), "'2' must follow"),
        (nn.Sequential(nn.Conv2d(2, 2, 1, groups=2)), "'0' has groups"),
        (nn.Sequential(nn.MaxPool2d(2, ceil_mode=True)), "'0' uses ceil_mode"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), "'0' uses return_indices"),
        (nn.Sequential(nn.MaxPool2d(2, dilation=2)), "'0' uses dilation"),
        (nn.Sequential(nn.MaxPool2d(3, padding=2)), "padded by at most half of it"),
        (nn.Sequential(nn.AvgPool2d(2, count_include_pad=False)), "'0' uses count_include_pad"),
        (nn.Sequential(nn.AvgPool2d(2, divisor_override=3)), "'0' uses divisor_override"),
        (Applied(lambda x: nn.functional.max_pool2d(x, 2, dilation=(1, 2))), "'max_pool2d' uses dilation"),
        (Applied(lambda x: nn.functional.max_pool2d(x, x.size(2))), "'max_pool2d' has sizes that depend on the input"),
        (nn.Sequential(nn.Softmax(dim=0)), "dimension 0"),
        (nn.Sequential(), "computes nothing"),
    ],
)
def test_what_is_not_supported_is_named_by_its_path(servers, net: nn.Module, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        servers.share(net.eval())


def test_headroom_is_refused_before_anything_is_shared(servers) -> None:
    net = nn.Sequential(*[nn.Linear(100, 100) for _ in range(3)])
    for layer in net:
        nn.init.constant_(layer.weight, 20.0)
    with pytest.raises(ConfigurationError, match="values of '2' could reach"):
        servers.share(net)


def test_values_beyond_the_limit_are_refused(servers) -> None:
    with pytest.raises(InvalidInputError, match="at most 16"):
        servers.share(torch.tensor([17.0]))
    assert servers.share(torch.tensor([17.0]), limit=32).reveal().item() == 17.0
    with pytest.raises(InvalidInputError, match="finite"):
        servers.share(torch.tensor([float("nan")]))


def test_targets_that_do_not_fit_end_the_session() -> None:
    with local_cluster(parties="threads", deadline=20) as servers:
        model = servers.share(nn.Linear(2, 2))
        model.train_step(servers.share(torch.rand(3, 2)), servers.share(torch.tensor([0, 1])), lr=0.1)
        with pytest.raises(InvalidInputError, match="targets of shape"):
            servers.cost()
        with pytest.raises(LocalProtocolError, match="closed"):
            servers.share(torch.rand(1))


def test_much_that_is_forgotten_is_dropped_with_the_next_command() -> None:
    with local_cluster(parties="threads", deadline=20) as other:
        one = other.share(torch.ones(1))
        number = other.share(torch.zeros(1 << 14)).number
        gc.collect()
        assert (one + one).reveal().item() == 2
        with pytest.raises(DecodeError, match="no tensor"):
            SharedTensor(other, number).reveal()


def test_a_closed_cluster_says_so() -> None:
    with local_cluster(parties="threads") as servers:
        pass
    with pytest.raises(LocalProtocolError, match="closed"):
        servers.cost()
    servers.close()


@pytest.mark.parametrize(
    "choice",
    [{"parties": "planets"}, {"links": "smoke"}, {"engine": "steam"}, {"engine": "steam", "parties": "threads"}],
)
def test_other_clusters_are_refused(choice) -> None:
    with pytest.raises(ConfigurationError, match="not '"):
        local_cluster(**choice)


def test_there_is_no_dealer_to_audit_among_three_servers() -> None:
    with pytest.raises(ConfigurationError, match="no dealer to audit"):
        local_cluster(engine="replicated", audit=0.1)
    with local_cluster(engine="replicated", parties="threads", deadline=20) as servers:
        command = {"batch": 1, "fresh": True, "how": "add", "left": 1, "right": 1, "output": 2}
        servers._tell("audit", command=encode_command("combine", **command).decode())
        with pytest.raises(DecodeError, match="audit"):
            servers.cost()


def test_engines_compute_alike() -> None:
    net, x, y = mlp(), torch.rand(64, 20), torch.randint(0, 4, (64,))
    results = []
    for engine in ("dealer", "replicated"):
        with local_cluster(engine=engine, parties="threads", deadline=20) as servers:
            model = servers.share(net)
            for _ in range(3):
                model.train_step(servers.share(x), servers.share(y), lr=0.25)
            results.append((model(servers.share(x)).reveal(), model.reveal_state_dict()))
    assert (results[0][0] - results[1][0]).abs().max() < 1e-3
    for name in net.state_dict():
        assert (results[0][1][name] - results[1][1][name]).abs().max() < 1e-3


@pytest.mark.parametrize("engine", ["dealer", "replicated"])
@pytest.mark.parametrize("killed", [0, 1, 2])
@pytest.mark.slow
def test_a_killed_party_is_named_and_nobody_stays_behind(killed: int, engine: str) -> None:
    with local_cluster(engine=engine, deadline=10) as servers:
        model = servers.share(mlp())
        x = servers.share(torch.rand(8, 20))
        model(x).reveal()
        os.kill(servers.processes[killed], signal.SIGKILL)
        start = time.monotonic()
        with pytest.raises(LostPartyError) as caught:
            model(x).reveal()
        assert caught.value.party == killed
        assert time.monotonic() - start < 10
    for process in servers.processes:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


@pytest.mark.parametrize("engine", ["dealer", "replicated"])
def test_processes_over_tcp_compute_the_same(engine: str) -> None:
    net = mlp()
    x = torch.rand(8, 20)
    with mpc.local_cluster(engine=engine, links="tcp", deadline=30) as servers:
        model = servers.share(net)
        assert (model(servers.share(x)).reveal() - net(x)).abs().max() < 2e-4
        model.train_step(servers.share(x), servers.share(torch.zeros(8, dtype=torch.int64)), lr=0.1)
        assert servers.cost().rounds > 50


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core, or none to choose"
)
def test_servers_of_a_dealer_have_cores_of_their_own() -> None:
    allowed = os.sched_getaffinity(0)
    with local_cluster(deadline=20) as cluster:
        zero, one, helper = (os.sched_getaffinity(process) for process in cluster.processes)
    assert zero
    assert one
    assert zero | one == allowed
    assert not zero & one
    assert helper == allowed
