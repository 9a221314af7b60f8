"""What is trained on what: model, data and who holds which rows; the first thing that a configuration becomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.fl import data, models, partition
from securefl.fl.augmentation import Augmentation
from securefl.fl.data import Dataset
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining
from securefl.types import ClientId

if TYPE_CHECKING:
    from torch import nn

    from securefl.fl.config import Config, DataConfig

__all__ = ["Workload", "check", "divide", "hold_out", "local_training", "prepare"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """What is trained on what, without the protection: made by :func:`prepare` or by hand.

    ``model``: maps an example of ``train`` to ``train.classes`` scores. ``rows``: the rows of ``train`` per client;
    the first client has id 1. ``held_out``: rows of ``train`` per client that it evaluates on and never trains on, or
    ``None``.
    """

    model: nn.Module = dataclasses.field(repr=False)
    train: Dataset
    test: Dataset
    rows: Sequence[NDArray[np.int64]] = dataclasses.field(repr=False)
    held_out: Sequence[NDArray[np.int64]] | None = dataclasses.field(default=None, repr=False)

    @property
    def weights(self) -> dict[ClientId, int]:
        """Examples per client, by ascending id. The simulation knows them; a server does not."""
        return {ClientId(i): len(rows) for i, rows in enumerate(self.rows, start=1)}


def prepare(config: Config) -> Workload:
    """Dataset, partition and freshly initialised model of a configuration; equal seeds give equal workloads."""
    seeds = SeedTree(config.data.seed)
    train, test = data.load(config.data.dataset, seeds.child("data"))
    rows = divide(config.data, train, seeds.child("partition"))
    model = models.build(
        config.model.name,
        input_shape=train.input_shape,
        classes=train.classes,
        seeds=seeds.child("model"),
        hidden=config.model.hidden,
    )
    held_out = None
    if config.personalization is not None:
        rows, held_out = hold_out(rows, train.targets, config.personalization.held_out, seeds.child("held out"))
    return Workload(model, train, test, rows, held_out)


def divide(chosen: DataConfig, dataset: Dataset, seeds: SeedTree) -> list[NDArray[np.int64]]:
    """The rows of each client, as ``[data]`` says."""
    return partition.partition(
        chosen.partition,
        dataset,
        chosen.clients,
        seeds,
        alpha=chosen.alpha,
        shards_per_client=chosen.shards_per_client,
        exponent=chosen.exponent,
        minimum=chosen.minimum,
    )


def hold_out(
    rows: Sequence[NDArray[np.int64]], targets: NDArray[np.int64], fraction: float, seeds: SeedTree
) -> tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]]:
    """(to train on, to evaluate on) of each client: ``fraction`` of its rows, class by class, at random.

    ``targets``: of all rows. At least one row lies on either side; a class of which a client has one example stays with
    training. Raises :class:`~securefl.errors.ConfigurationError` for a client with a single example.
    """
    kept, held = [], []
    for client, own in enumerate(rows, start=1):
        if len(own) < 2:
            raise ConfigurationError(f"client {client} has a single example: nothing can be held out")
        order = seeds.child(client).numpy().permutation(own)
        chosen = np.zeros(len(own), dtype=np.bool_)
        for label in np.unique(targets[own]):
            members = np.flatnonzero(targets[order] == label)
            chosen[members[: min(round(fraction * len(members)), len(members) - 1)]] = True
        if not chosen.any():
            chosen[0] = True
        held.append(np.sort(order[chosen]))
        kept.append(np.sort(order[~chosen]))
    return kept, held


def local_training(config: Config) -> LocalTraining:
    """How the clients of ``config`` train."""
    chosen = config.training
    return LocalTraining(
        chosen.local_epochs,
        chosen.batch_size,
        chosen.learning_rate,
        chosen.optimizer,
        steps=chosen.local_steps,
        augmentation=augmentation_of(config),
    )


def augmentation_of(config: Config) -> Augmentation | None:
    """How examples are varied while training."""
    chosen = config.augmentation
    if chosen is None:
        return None
    return Augmentation(chosen.rotation, chosen.shift, chosen.shear, chosen.zoom, chosen.flip)


def check(workload: Workload) -> None:
    """Raises :class:`~securefl.errors.ConfigurationError` unless rows and datasets fit together."""
    if len(workload.rows) == 0:
        raise ConfigurationError("a run needs at least one client")
    if workload.held_out is not None and len(workload.held_out) != len(workload.rows):
        raise ConfigurationError("held_out has to name rows for every client")
    for client, rows in [*enumerate(workload.rows, start=1), *enumerate(workload.held_out or (), start=1)]:
        if rows.ndim != 1 or len(rows) == 0 or not np.issubdtype(rows.dtype, np.integer):
            raise ConfigurationError(f"the rows of client {client} must be a non-empty list of row numbers")
        if rows.min() < 0 or rows.max() >= len(workload.train):
            raise ConfigurationError(f"the rows of client {client} are not rows of {workload.train.name!r}")
    if workload.train.input_shape != workload.test.input_shape or workload.train.classes != workload.test.classes:
        raise ConfigurationError("the training and test sets differ in the shape of examples or the number of classes")
