"""The federated GAN and what it is used for; small enough that it learns in a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl import models
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.balancing import balanced, gan_epsilon, train_gan
from securefl.fl.data import Dataset, from_arrays
from securefl.fl.dropouts import Dropouts
from securefl.fl.engine import LocalTask
from securefl.fl.gan import ConditionalGan, GanEngine, generate
from securefl.fl.protections import protection_named
from securefl.fl.seeds import SeedTree
from securefl.fl.training import ExampleNoise, LocalTraining, torch_threads
from securefl.fl.workload import Workload
from securefl.types import ClientId, Tensors

CENTRES = np.array([[3.0, 0.0], [-3.0, 1.0], [0.0, -3.0]])


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with torch_threads(1):
        yield


def _data(n: int = 180) -> Dataset:
    rng, targets = np.random.default_rng(0), np.arange(n) % 3
    return from_arrays(CENTRES[targets] + 0.3 * rng.standard_normal((n, 2)), targets)


DATA = _data()
#: The first client has class 0 alone, the second lacks it.
ROWS = [np.arange(0, 180, 3), np.concatenate([np.arange(1, 180, 3), np.arange(2, 180, 3)]), np.arange(0, 180, 7)]
SETTINGS = LocalTraining(epochs=3, batch_size=20, learning_rate=5e-3)


def _gan() -> ConditionalGan:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return ConditionalGan((2,), 3, spread=2.0, noise=4, hidden=24)


def _workload() -> Workload:
    return Workload(models.build("logistic", input_shape=(2,), classes=3, seeds=SeedTree(0)), DATA, DATA, ROWS)


def _trained(method: str, rounds: int, settings: LocalTraining = SETTINGS, dropout: float = 0.0) -> Tensors:
    aggregator = ProtectedAggregator(
        protection_named(method, "x25519"),
        2,
        FixedPoint(1.0, 20),
        256,
        dropouts=Dropouts(dropout, SeedTree(9)) if dropout else None,
    )
    return train_gan(_gan(), _workload(), aggregator, settings, rounds=rounds, seeds=SeedTree(1), generator_rate=5e-3)


def test_samples_are_of_the_class_that_was_asked_for() -> None:
    gan, labels = _gan(), torch.arange(3).repeat(60)
    before = generate(gan, models.tensors_of(gan), labels, torch.Generator().manual_seed(0)).numpy()
    made = generate(gan, _trained("plain", 40), labels, torch.Generator().manual_seed(0)).numpy()
    nearest = np.linalg.norm(made[:, None] - CENTRES, axis=2).argmin(axis=1)
    assert (nearest == labels.numpy()).mean() > 0.9
    assert (np.linalg.norm(before[:, None] - CENTRES, axis=2).argmin(axis=1) == labels.numpy()).mean() < 0.7


def test_masked_is_plain_and_runs_repeat() -> None:
    assert models.model_hash(_trained("masked", 3)) == models.model_hash(_trained("plain", 3))
    assert models.model_hash(_trained("plain", 3)) != models.model_hash(_trained("plain", 4))
    # rounds that too few clients survive leave the GAN as it is
    assert models.model_hash(_trained("masked", 1, dropout=0.99)) == models.model_hash(models.tensors_of(_gan()))


def test_every_class_is_filled_up_to_an_even_share() -> None:
    workload = balanced(_workload(), _gan(), models.tensors_of(_gan()), SeedTree(2))
    for own, rows in zip(ROWS, workload.rows, strict=True):
        assert np.array_equal(rows[: len(own)], own)
        counts = np.bincount(workload.train.targets[rows], minlength=3)
        assert counts.min() >= len(own) / 3
        assert all(rows[len(own) :] >= len(DATA))
    assert np.array_equal(workload.train.inputs[: len(DATA)], DATA.inputs)
    assert len(np.unique(np.concatenate(workload.rows)[-20:])) == 20
    again = balanced(_workload(), _gan(), models.tensors_of(_gan()), SeedTree(2))
    assert np.array_equal(again.train.inputs, workload.train.inputs)


def test_the_private_discriminator_is_clipped_and_noised() -> None:
    loud = replace(SETTINGS, dpsgd=ExampleNoise(clip_norm=0.5, noise_multiplier=1.0))
    assert models.model_hash(_trained("plain", 1, loud)) != models.model_hash(_trained("plain", 1, loud))
    # with next to no clip norm nothing of the examples is left in the discriminator, noise included
    still = replace(SETTINGS, epochs=1, dpsgd=ExampleNoise(clip_norm=1e-9, noise_multiplier=1.0))
    other = from_arrays(-DATA.inputs, DATA.targets)
    start = models.tensors_of(_gan())
    updates = [
        GanEngine(_gan(), data).train(1, [LocalTask(ClientId(1), ROWS[0], start, SeedTree(3))], still)[ClientId(1)]
        for data in (DATA, other)
    ]
    assert (
        max(float(np.abs(updates[0].update[name] - updates[1].update[name]).max()) for name in updates[0].update) < 1e-6
    )


def test_epsilon_is_that_of_the_client_that_pays_most() -> None:
    noisy = replace(SETTINGS, dpsgd=ExampleNoise(clip_norm=1.0, noise_multiplier=2.0))
    counts = [len(rows) for rows in ROWS]
    whole = gan_epsilon(_gan(), counts, noisy, rounds=5, delta=1e-5)
    assert whole == max(gan_epsilon(_gan(), [count], noisy, rounds=5, delta=1e-5) for count in counts)
    assert whole == gan_epsilon(_gan(), [26], noisy, rounds=5, delta=1e-5)
    assert gan_epsilon(_gan(), counts, noisy, rounds=10, delta=1e-5) > whole
    with pytest.raises(ConfigurationError, match="dpsgd"):
        gan_epsilon(_gan(), counts, SETTINGS, rounds=5, delta=1e-5)


def test_what_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="spread"):
        ConditionalGan((2,), 3, spread=0)
    aggregator = ProtectedAggregator(protection_named("plain", "x25519"), 2, FixedPoint(1.0, 20), 256)
    with pytest.raises(ConfigurationError, match="4 classes"):
        train_gan(ConditionalGan((2,), 4), _workload(), aggregator, SETTINGS, rounds=1, seeds=SeedTree(0))
    with pytest.raises(ConfigurationError, match="rounds"):
        train_gan(_gan(), _workload(), aggregator, SETTINGS, rounds=0, seeds=SeedTree(0))
    start = models.tensors_of(_gan())
    with pytest.raises(InvalidInputError, match="client 5 has no examples"):
        GanEngine(_gan(), DATA).train(1, [LocalTask(ClientId(5), np.arange(0), start, SeedTree(0))], SETTINGS)
    with pytest.raises(InvalidInputError, match="client 5 in round 2"):
        GanEngine(_gan(), DATA).train(
            2, [LocalTask(ClientId(5), ROWS[0], start, SeedTree(0))], replace(SETTINGS, learning_rate=1e30)
        )
