"""The mode `shared`: what it computes is what plain split learning computes, and one server sees nothing of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from securefl.cluster.local import local_cluster
from securefl.cluster.servers import Servers
from securefl.errors import ConfigurationError, InvalidInputError, LocalProtocolError
from securefl.fl.data import Dataset, from_arrays
from securefl.fl.models import small_cnn
from securefl.fl.seeds import SeedTree
from securefl.split import SplitSettings, SplitTraining, cut, leakage_of
from securefl.split.attacks import activations_from_gradients, matched_correlation
from securefl.split.leakage import correlation
from securefl.split.shared import SharedHost, SharedMiddle, SharedMode
from securefl.split.shared_view import server_view
from securefl.types import PartyId


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with local_cluster(parties="threads", deadline=20) as cluster:
        yield cluster


def _blobs(n: int = 240, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    centres = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    return from_arrays((centres[targets] + 0.4 * rng.standard_normal((n, 4))).astype(np.float32), targets)


def _model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Linear(4, 12), nn.Tanh(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)
        )


def _training(servers: Servers | None, protect: str = "shared", clients: int = 3, **changes: Any) -> SplitTraining:
    """The body: linear, relu, linear."""
    data = _blobs()
    members = {
        PartyId(i + 1): data.subset(rows) for i, rows in enumerate(np.array_split(np.arange(len(data)), clients))
    }
    settings = SplitSettings(**{"protect": protect, "rounds": 3, "batch_size": 20, "momentum": 0.5, **changes})
    return SplitTraining(
        cut(_model(), "1", "4"), members, _blobs(90, 5), settings, SeedTree(1), suite="x25519", servers=servers
    )


def _mode(body: nn.Module, shapes: tuple[tuple[int, ...], tuple[int, ...]], **changes: Any) -> SharedMode:
    asked = {"activation_range": 4.0, "gradient_range": 2.0, "max_batch": 16, "momentum": 0.9, "clients": 1, **changes}
    return SharedMode.of(body, shapes, **asked)


def _middle(servers: Servers, mode: SharedMode) -> SharedMiddle:
    return SharedHost(mode, servers, learning_rate=0.1, momentum=0.0).middle()


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_a_shared_run_follows_the_plain_one(servers: Servers, order: str) -> None:
    """The same seeds: losses, weights and accuracy differ by rounding only."""
    plain, shared = _training(None, "plain", order=order), _training(servers, order=order)
    for clear, hidden in zip(plain.rounds(), shared.rounds(), strict=True):
        assert abs(clear.loss - hidden.loss) < 5e-3
        assert abs(clear.accuracy - hidden.accuracy) < 0.05
        assert hidden.between > hidden.up > 0
        assert hidden.epsilon is None
    assert clear.accuracy > 0.8
    assert shared.host is not None
    initial = {name: value.clone() for name, value in shared.parts.body.state_dict().items()}
    revealed = shared.host.reveal()
    for name, value in plain.parts.body.state_dict().items():
        assert (revealed[name] - value).abs().max() < 2e-2, name
        assert (revealed[name] - initial[name]).abs().max() > 2e-2, "training moved it, and not here"
    predictions = shared.protected_predictions(_blobs(90, 5).inputs)
    assert np.mean(predictions == _blobs(90, 5).targets) == hidden.accuracy


def test_a_convolutional_network_with_max_pooling_follows_the_plain_run(servers: Servers) -> None:
    """All between the first convolution and the last layer at the servers: relu, pool, conv, relu, pool, flatten."""
    rng = np.random.default_rng(6)
    targets = np.arange(96) % 3
    images = rng.normal(size=(96, 8, 8)) / 4
    for row, target in enumerate(targets):
        images[row, 2 * target : 2 * target + 3] += 1.0
    data = from_arrays(images.reshape(96, 64).astype(np.float32), targets)
    members = {PartyId(i + 1): data.subset(rows) for i, rows in enumerate(np.array_split(rng.permutation(96), 2))}

    def run(protect: str) -> list[Any]:
        torch.manual_seed(2)
        parts = cut(small_cnn(1, 8, 8, 3, filters=3), "2", "8")
        settings = SplitSettings(protect=protect, rounds=4, batch_size=8, momentum=0.5, gradient_range=1.0)
        training = SplitTraining(
            parts,
            members,
            data,
            settings,
            SeedTree(1),
            suite="x25519",
            servers=servers if protect == "shared" else None,
        )
        return list(training.rounds())

    for clear, hidden in zip(run("plain"), run("shared"), strict=True):
        assert abs(clear.loss - hidden.loss) < 5e-3
        assert abs(clear.accuracy - hidden.accuracy) < 0.05
    assert clear.accuracy > 0.8


def test_nobody_is_sent_a_gradient_of_the_weights(servers: Servers) -> None:
    """The commands of a whole run: only outputs and input gradients are ever opened."""
    asked: list[str] = []
    tell = servers._tell

    def listen(operation: str, *arguments: Any, **fields: Any) -> None:
        asked.append(operation)
        tell(operation, *arguments, **fields)

    training = _training(servers, rounds=1)
    servers._tell = listen  # type: ignore[method-assign]
    try:
        next(training.rounds())
    finally:
        del servers._tell
    batches = asked.count("forward")
    assert batches == asked.count("backward") == 3 * training.steps
    assert asked.count("step") == training.steps
    assert asked.count("get") == 2 * batches + asked.count("apply")
    assert "parameter" not in asked


def test_an_audited_run_is_a_run() -> None:
    with local_cluster(parties="threads", deadline=20, audit=0.5) as audited:
        (record,) = _training(audited, rounds=1).rounds()
        assert audited.audited > 0
    (plain,) = _training(None, "plain", rounds=1).rounds()
    assert abs(record.loss - plain.loss) < 5e-3


def test_a_training_ends_the_parties_that_it_started() -> None:
    with _training(None, rounds=1) as training:
        assert training.host is not None
        next(training.rounds())
    with pytest.raises(LocalProtocolError, match="the cluster is closed"):
        training.accuracy()


class _Images(nn.Module):
    def __init__(self, pool: type[nn.Module], behind: type[nn.Module]) -> None:
        super().__init__()
        self.front = nn.Conv2d(1, 2, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(2, 3, 3, padding=1), behind(), pool(2), nn.Flatten())
        self.last = nn.Linear(27, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.body(self.front(x)))


@pytest.mark.parametrize(
    ("pool", "behind"), [(nn.AvgPool2d, nn.ReLU), (nn.MaxPool2d, nn.ReLU), (nn.MaxPool2d, nn.Sigmoid)]
)
def test_a_convolutional_body_gives_the_gradients_of_autograd(servers: Servers, pool: Any, behind: Any) -> None:
    torch.manual_seed(12)
    model = _Images(pool, behind)
    parts = cut(model, "front", "body")
    x = torch.randn(6, 1, 6, 6)
    shapes = parts.shapes(x)
    middle = _middle(servers, _mode(parts.body, shapes))
    rows = parts.front(x).detach()
    outputs = middle.outputs(rows.flatten(1).numpy(), train=True)
    rows.requires_grad_(True)
    expected = parts.body(rows)
    assert np.abs(outputs - expected.detach().numpy()).max() < 1e-3
    loss = cross_entropy(model.last(expected), torch.tensor([0, 1, 2, 3, 0, 1]), reduction="sum")
    dz, da = torch.autograd.grad(loss, [expected, rows])
    below = middle.input_gradient(dz.numpy())
    assert np.abs(below - da.flatten(1).numpy()).max() < 2e-3


# -- what is refused


def test_rows_that_may_not_be_shared_are_named(servers: Servers) -> None:
    middle = _middle(servers, _mode(nn.Linear(3, 2), ((3,), (2,))))
    rows = np.ones((4, 3), np.float32)
    with pytest.raises(LocalProtocolError, match="no forward pass"):
        middle.input_gradient(np.ones((4, 2), np.float32))
    with pytest.raises(InvalidInputError, match="beyond the declared range of ±4"):
        middle.outputs(5 * rows, train=True)
    with pytest.raises(InvalidInputError, match="a batch of 17 examples is larger than the 16"):
        middle.outputs(np.ones((17, 3), np.float32), train=True)
    with pytest.raises(InvalidInputError, match="NaN"):
        middle.outputs(np.nan * rows, train=True)
    middle.outputs(rows, train=True)
    with pytest.raises(InvalidInputError, match=r"gradients reach 3, beyond the declared range of ±2"):
        middle.input_gradient(3 * np.ones((4, 2), np.float32))
    middle.input_gradient(np.ones((4, 2), np.float32))  # the pass is still open
    for refused in (lambda: middle.labelled(rows, np.zeros(4, np.int64)), lambda: middle.release(rows, 4)):
        with pytest.raises(ConfigurationError):
            refused()


def test_weights_that_have_left_the_checked_range_are_noticed(servers: Servers) -> None:
    layer = nn.Linear(3, 2)
    mode = _mode(layer, ((3,), (2,)))
    host = SharedHost(mode, servers, learning_rate=1000.0, momentum=0.0)
    middle = host.middle()
    rows = 4 * np.ones((16, 3), np.float32)
    middle.outputs(rows, train=True)
    middle.input_gradient(2 * np.ones((16, 2), np.float32))
    host.step(1)
    with pytest.raises(InvalidInputError, match="its weights have grown too far"):
        middle.outputs(rows, train=True)


@pytest.mark.parametrize(
    ("body", "changes", "sentence"),
    [
        (nn.Sequential(nn.Linear(3, 2), nn.Tanh()), {}, "is not supported on shares"),
        (nn.Linear(3, 2), {"activation_range": 2.0**30}, "could reach"),
        (nn.Linear(3, 2), {"max_batch": 2**28}, "the step of the weights"),
    ],
)
def test_bodies_and_ranges_that_do_not_fit_are_named_before_anything_is_shared(
    body: nn.Module, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigurationError, match=sentence):
        _mode(body, ((3,), (2,)), **changes)


def test_labels_at_the_server_are_refused() -> None:
    settings = SplitSettings(protect="shared")
    with pytest.raises(ConfigurationError, match="needs the U shape"):
        SplitTraining(cut(_model(), "1"), {PartyId(1): _blobs()}, _blobs(), settings, SeedTree(0))


# -- what one server has


@pytest.mark.parametrize("server", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_the_attacks_find_nothing_in_one_servers_view(server: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from securefl.split import views

    monkeypatch.setattr(views, "server_view", lambda *arguments: server_view(*arguments, server))
    with _training(None, rounds=1) as training:
        next(training.rounds())
        # Independent views of 2,400 examples give 0.00 ± 0.015, 0.00 ± 0.03 and 0.506 ± 0.008; plain ones above 0.8.
        data = _blobs(2400, 7)
        figures = leakage_of(*training.server_views(data), data, SeedTree(3))
    assert abs(figures.reconstruction) < 0.1
    assert abs(figures.distance_correlation) < 0.2
    assert figures.label_auc is not None
    assert figures.label_auc <= 0.55


@pytest.mark.parametrize("server", [0, 1])
def test_the_weight_gradient_attack_fails_on_one_servers_view(server: int) -> None:
    """With dz and dW of a small batch the activations are solved for exactly; one server has a share of each."""
    rng = np.random.default_rng(3)
    layer = nn.Linear(48, 10)
    mode = _mode(layer, ((48,), (10,)))
    worst, guesses, truths = 0.0, [], []
    for _ in range(100):
        activations = np.clip(np.maximum(rng.normal(size=(8, 48)), 0), 0, 4).astype(np.float32)
        with torch.no_grad():
            p = torch.softmax(layer(torch.from_numpy(activations)), dim=1).numpy()
        dz = (p - np.eye(10)[rng.integers(0, 10, 8)]).astype(np.float32)
        worst = max(worst, float(np.abs(activations_from_gradients(dz, dz.T @ activations) - activations).max()))
        view = server_view(mode, activations, dz, server)
        (weights,) = [value for name, value in view.weight_gradients.items() if "weight" in name]
        guess = activations_from_gradients(view.gradients[:, :10], weights.T)
        guesses.append(guess / np.linalg.norm(guess, axis=1, keepdims=True))
        truths.append(activations)
    truth = np.concatenate(truths)
    assert worst < 1e-3, "in the clear the attack works"
    assert abs(correlation(np.concatenate(guesses), truth, truth.mean(axis=0))) < 0.1


@pytest.mark.parametrize("server", [0, 1])
def test_one_examples_weight_gradient_is_not_there_to_be_read(server: int) -> None:
    """At batch 1 every row of dW is a multiple of the activations: whoever had dW alone would have them."""
    rng = np.random.default_rng(4)
    mode = _mode(nn.Linear(48, 10), ((48,), (10,)))
    found = []
    for _ in range(30):
        activations = np.clip(np.maximum(rng.normal(size=(1, 48)), 0), 0, 4).astype(np.float32)
        dz = rng.uniform(-1, 1, (1, 10)).astype(np.float32)
        assert matched_correlation(dz.T @ activations, activations) > 0.999
        view = server_view(mode, activations, dz, server)
        (weights,) = [value for name, value in view.weight_gradients.items() if "weight" in name]
        found.append(matched_correlation(weights.T[:1], activations))
    assert np.mean(found) < 0.25, "independent rows of 48 values give 0.12, 30 of them within 0.05"


def test_the_helper_holds_nothing() -> None:
    with pytest.raises(InvalidInputError, match="the helper holds nothing"):
        server_view(_mode(nn.Linear(3, 2), ((3,), (2,))), np.ones((2, 3), np.float32), np.ones((2, 2), np.float32), 2)


def test_parties_end_when_a_training_cannot_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that nobody ends would keep the process alive."""
    opened: list[Servers] = []

    def remember(**choices: Any) -> Servers:
        opened.append(local_cluster(**choices))
        return opened[-1]

    monkeypatch.setattr("securefl.split.training.local_cluster", remember)
    with pytest.raises(ConfigurationError):
        _training(None, sum_protection="rot13")
    assert repr(opened[0]) == "<Servers, closed>"
