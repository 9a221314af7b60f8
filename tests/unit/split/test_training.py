from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from securefl.errors import AuthenticationError, ConfigurationError, InvalidInputError, PrivacyBudgetExceededError
from securefl.fl.data import Dataset, from_arrays
from securefl.fl.models import tensors_of
from securefl.fl.seeds import SeedTree
from securefl.primitives.kem import Suite
from securefl.split import SplitSettings, SplitTraining, cut, leakage_of
from securefl.split.attacks import activations_from_gradients, matched_correlation
from securefl.split.handover import Mailbox
from securefl.split.leakage import area_under_curve, distance_correlation
from securefl.split.series import CLASSES, LENGTH, ecg_like
from securefl.split.weights import check_summed
from securefl.types import PartyId


def _blobs(n: int = 120, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % 3
    centres = np.array([[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]])
    return from_arrays((centres[targets] + 0.4 * rng.standard_normal((n, 4))).astype(np.float32), targets)


def _model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def _clients(count: int = 3, n: int = 120) -> dict[PartyId, Dataset]:
    data = _blobs(n)
    return {PartyId(i + 1): data.subset(rows) for i, rows in enumerate(np.array_split(np.arange(n), count))}


def _run(model: nn.Module, until: str | None = "2", clients: int = 3, **changes: Any) -> SplitTraining:
    settings = SplitSettings(**{"protect": "plain", "rounds": 3, "batch_size": 10, **changes})
    parts = cut(model, "1", until)
    return SplitTraining(parts, _clients(clients), _blobs(90, 5), settings, SeedTree(1), suite="x25519")


@pytest.mark.parametrize("until", ["2", None])
def test_one_client_split_is_ordinary_sgd(until: str | None) -> None:
    """The oracle: the same model, batches and steps in one piece."""
    model, whole = _model(), _model()
    training = _run(model, until, clients=1, rounds=2, momentum=0.5, learning_rate=0.05)
    for _ in training.rounds():
        pass
    data, optimizer = _clients(1)[PartyId(1)], torch.optim.SGD(whole.parameters(), lr=0.05, momentum=0.5)
    for number in (1, 2):
        order = SeedTree(1).child("order", number, 1).numpy().permutation(len(data))
        for rows in np.array_split(order, training.steps):
            optimizer.zero_grad()
            cross_entropy(whole(torch.from_numpy(data.inputs[rows])), torch.from_numpy(data.targets[rows])).backward()
            optimizer.step()
    front, head = training._judge.ends()
    probe = torch.from_numpy(_blobs(30, 9).inputs)
    with torch.no_grad():
        out = training.parts.body(front(probe))
        assert torch.allclose(out if head is None else head(out), whole(probe), atol=1e-5)


@pytest.mark.parametrize("order", ["parallel", "sequential"])
@pytest.mark.parametrize(("protect", "least"), [("plain", 0.9), ("quantized", 0.9)])
def test_clients_learn_together(order: str, protect: str, least: float) -> None:
    training = _run(_model(), order=order, protect=protect, rounds=6)
    *_, last = training.rounds()
    assert last.accuracy >= least
    assert last.epsilon is None
    assert min(last.up, last.down, last.sum_bytes) > 0
    predictions = training.protected_predictions(_blobs(90, 5).inputs)
    assert np.mean(predictions == _blobs(90, 5).targets) >= least


def test_after_a_parallel_round_all_clients_hold_the_same_ends() -> None:
    training = _run(_model(), rounds=1)
    next(training.rounds())
    first, *others = [tensors_of(member.ends) for member in training._members.values()]
    for other in others:
        assert all(np.array_equal(first[name], other[name]) for name in first)


def test_the_protected_average_is_the_weighted_mean_of_the_ends() -> None:
    plain, masked = _run(_model(), rounds=1, sum_protection="plain"), _run(_model(), rounds=1)
    next(plain.rounds()), next(masked.rounds())
    for name, value in tensors_of(plain._judge.ends()[0]).items():
        assert np.array_equal(value, tensors_of(masked._judge.ends()[0])[name])


def test_noise_is_charged_before_each_round_and_stops_at_the_budget(tmp_path: Path) -> None:
    training = _run(_model(), protect="noise", epsilon=20.0, rounds=3)
    assert training.privacy is not None
    training.privacy.open(tmp_path / "ledger.sqlite", "run")
    *_, last = training.rounds()
    assert last.epsilon is not None
    assert 19.0 < last.epsilon <= 20.0
    with pytest.raises(PrivacyBudgetExceededError):
        training.privacy.charge(4)


def test_labels_stay_with_the_client_under_every_protection() -> None:
    for protect in ("quantized", "noise"):
        with pytest.raises(ConfigurationError, match="U shape"):
            _run(_model(), None, protect=protect)


@pytest.mark.parametrize(
    "changes",
    [
        {"protect": "rot13"},
        {"order": "both"},
        {"rounds": 0},
        {"learning_rate": 0.0},
        {"protect": "plain", "weight_gradient": "summed"},
        {"protect": "ckks", "order": "sequential", "weight_gradient": "summed"},
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SplitSettings(**changes)


def test_a_client_with_fewer_examples_than_steps_sits_steps_out() -> None:
    clients = {**_clients(2), PartyId(3): _blobs(3)}
    settings = SplitSettings(protect="plain", batch_size=10, rounds=1)
    training = SplitTraining(cut(_model(), "1", "2"), clients, _blobs(), settings, SeedTree(0), suite="x25519")
    (last,) = training.rounds()
    assert training.steps == 6
    assert np.isfinite(last.loss)


def test_a_summed_gradient_needs_company() -> None:
    check_summed(2, 11, 10, 256)
    with pytest.raises(ConfigurationError, match="one client"):
        check_summed(1, 100, 10, 256)
    with pytest.raises(ConfigurationError, match="rank"):
        check_summed(2, 10, 10, 256)


# -- handing over


def test_ends_are_sealed_to_the_next_client_and_bound_to_the_round() -> None:
    a, b = (Mailbox(b"s", PartyId(i), Suite.X25519) for i in (1, 2))
    tensors = tensors_of(_model())
    sealed = a.seal(tensors, 4, PartyId(2), b.public)
    opened = b.open(sealed, 4, PartyId(1), tensors)
    assert all(np.array_equal(opened[name], value) for name, value in tensors.items())
    assert tensors["0.weight"].tobytes() not in sealed
    for round_number, sender in ((5, 1), (4, 3)):
        with pytest.raises(AuthenticationError):
            b.open(sealed, round_number, PartyId(sender), tensors)
    with pytest.raises(AuthenticationError):
        a.open(sealed, 4, PartyId(1), tensors)


# -- attacks and figures


def test_the_pinv_attack_recovers_small_batches_from_gradients_in_the_clear() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(9, 10)), rng.integers(0, 10, 9)
    dz = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) - np.eye(10)[labels]
    a = np.maximum(rng.normal(size=(9, 256)), 0)
    recovered = activations_from_gradients(dz.astype(np.float32), (dz.T @ a).astype(np.float32))
    assert np.abs(recovered - a).max() < 1e-4
    assert matched_correlation(recovered, a) > 0.999
    more = rng.normal(size=(40, 256))
    assert matched_correlation(rng.normal(size=(9, 256)), more) < 0.2
    with pytest.raises(InvalidInputError):
        activations_from_gradients(dz, a)


def test_plain_leaks_and_random_views_do_not() -> None:
    training = _run(_model(), rounds=2)
    for _ in training.rounds():
        pass
    data = _blobs(120, 3)
    view, gradients = training.server_views(data)
    assert gradients is not None
    figures = leakage_of(view, gradients, data, SeedTree(0))
    assert figures.reconstruction > 0.8
    assert figures.distance_correlation > 0.8
    assert figures.label_auc is not None
    assert figures.label_auc > 0.9
    rng = np.random.default_rng(0)
    nothing = leakage_of(rng.normal(size=view.shape), rng.normal(size=gradients.shape), data, SeedTree(0))
    assert abs(nothing.reconstruction) < 0.25
    assert nothing.distance_correlation < 0.3
    assert nothing.label_auc is not None
    assert nothing.label_auc < 0.62


def test_distance_correlation_of_known_cases() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 3))
    rotation, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    assert distance_correlation(x, 5 * x @ rotation + 1) == pytest.approx(1.0)
    assert abs(distance_correlation(x, rng.normal(size=(200, 40)))) < 0.25
    assert distance_correlation(x, np.square(x)) > 0.3  # uncorrelated, and dependent


def test_area_under_curve_counts_ties_half() -> None:
    scores, positive = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    pairs = [(0.1, 0.4, 1), (0.1, 0.9, 1), (0.4, 0.4, 0.5), (0.4, 0.9, 1)]
    assert area_under_curve(scores, positive) == sum(value for *_, value in pairs) / 4


def test_series_are_labelled_synthetic_and_reproducible() -> None:
    data = ecg_like(100, SeedTree(2))
    assert "synthetic" in data.name
    assert data.inputs.shape == (100, 1, LENGTH)
    assert np.array_equal(np.bincount(data.targets), [20] * len(CLASSES))
    assert np.array_equal(data.inputs, ecg_like(100, SeedTree(2)).inputs)
    with pytest.raises(ConfigurationError):
        ecg_like(2, SeedTree(0))
