"""Generative balancing: a conditional GAN trained federated under protection fills the classes that clients lack.

Opt-in, and not a gain by itself: ``securefl bench balancing`` prints what it does to accuracy beside doing nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from securefl.dp.accountant import event_epsilon
from securefl.dp.events import NeighboringRelation, SelfComposed
from securefl.errors import ConfigurationError, HeadroomError, TooFewClientsError
from securefl.fl.data import Dataset
from securefl.fl.dpsgd import step_event
from securefl.fl.engine import LocalTask
from securefl.fl.gan import ConditionalGan, GanEngine, generate
from securefl.fl.interfaces import Aggregator, Contribution, LostRoundError
from securefl.fl.models import model_hash, tensors_of
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining, batch_probability, steps_per_round
from securefl.fl.workload import Workload
from securefl.types import Tensors

__all__ = ["balanced", "gan_epsilon", "train_gan"]


def train_gan(
    gan: ConditionalGan,
    workload: Workload,
    aggregator: Aggregator,
    settings: LocalTraining,
    *,
    rounds: int,
    seeds: SeedTree,
    generator_rate: float = 2e-3,
) -> Tensors:
    """The GAN's parameters after ``rounds`` rounds of federated averaging under the aggregator's protection.

    ``settings``: passes, batch size, the discriminator's learning rate; ``dpsgd`` makes it example-level private, and
    every client then counts the same. A round that too few clients survive leaves the GAN as it is.
    Raises :class:`ConfigurationError` when the GAN does not fit the data, and as the aggregator does.
    """
    if rounds < 1:
        raise ConfigurationError(f"rounds are at least 1, not {rounds}")
    if (gan.input_shape, gan.classes) != (workload.train.input_shape, workload.train.classes):
        raise ConfigurationError(
            f"the GAN makes {gan.classes} classes of shape {gan.input_shape}, the data has "
            f"{workload.train.classes} of shape {workload.train.input_shape}"
        )
    engine, tensors = GanEngine(gan, workload.train, generator_rate), tensors_of(gan)
    for round in range(1, rounds + 1):
        nodes = {client: seeds.child("client", client, "round", round) for client in workload.weights}
        tasks = [
            LocalTask(client, workload.rows[client - 1], tensors, node.child("training"))
            for client, node in nodes.items()
        ]
        contributions = {
            client: Contribution(
                result.update, 1 if settings.dpsgd else result.weight, nodes[client].child("rounding").bytes(32)
            )
            for client, result in engine.train(round, tasks, settings).items()
        }
        try:
            mean = aggregator.aggregate(round, model_hash(tensors), contributions).mean
        except (TooFewClientsError, LostRoundError, HeadroomError):
            continue
        tensors = {name: np.asarray(value + mean[name], dtype=np.float32) for name, value in tensors.items()}
    return tensors


def balanced(workload: Workload, gan: ConditionalGan, tensors: Tensors, seeds: SeedTree) -> Workload:
    """The workload with samples in place of what each client lacks: every class up to an even share of its examples.

    Nobody's own examples are dropped, and nobody sees another's: a client makes its samples from the public GAN.
    """
    train, inputs, targets = workload.train, [workload.train.inputs], [workload.train.targets]
    rows: list[NDArray[np.int64]] = []
    end = len(train)
    for client, own in enumerate(workload.rows, start=1):
        labels = _lacking(train.targets[own], train.classes)
        made = generate(gan, tensors, torch.from_numpy(labels), seeds.child("samples", client).torch())
        inputs.append(made.numpy().astype(np.float32))
        targets.append(labels)
        rows.append(np.concatenate([own, np.arange(end, end + len(labels))]))
        end += len(labels)
    data = Dataset(np.concatenate(inputs), np.concatenate(targets), train.classes, f"{train.name}, balanced")
    return Workload(workload.model, data, workload.test, rows)


def _lacking(targets: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    counts = np.bincount(targets, minlength=classes)
    share = math.ceil(len(targets) / classes)
    return np.repeat(np.arange(classes, dtype=np.int64), np.maximum(0, share - counts))


def gan_epsilon(
    gan: ConditionalGan,
    examples: Sequence[int],
    settings: LocalTraining,
    *,
    rounds: int,
    delta: float,
    neighboring: NeighboringRelation | str = "add-remove",
) -> float:
    """ε of the GAN for one example of the client that pays most, against everybody but that client.

    ``examples``: per client. The discriminator's noise pays for the generator, which is post-processing, and for all
    that is made with it. What a client's *own* samples are asked for (:func:`balanced`) stays with the client.
    Raises :class:`ConfigurationError` for settings without ``dpsgd``: there is no ε then.
    """
    if settings.dpsgd is None:
        raise ConfigurationError("without settings.dpsgd the GAN has no epsilon")
    size = sum(parameter.numel() for parameter in gan.discriminator.parameters())
    relation = NeighboringRelation.of(neighboring)
    kinds: set[tuple[float, int]] = {
        (batch_probability(count, settings.batch_size), steps_per_round(count, settings)) for count in examples
    }
    noise = settings.dpsgd.noise_multiplier
    return max(
        event_epsilon(SelfComposed(step_event(noise, size, probability), steps * rounds), delta, relation)
        for probability, steps in kinds
    )
