"""What the frameworks in ``benchmarks/engine.py`` train: digits, an MLP 64-32-10, every client's order of examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securefl.fl import data, models, partition
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining
from securefl.types import Tensors

SETTINGS = LocalTraining(batch_size=10)


def build() -> nn.Module:
    """The model with its first values, the same in every process."""
    return models.build("mlp", input_shape=(64,), classes=10, seeds=SeedTree(1), hidden=(32,))


def start() -> Tensors:
    """Its parameters."""
    return models.tensors_of(build())


@dataclass(frozen=True, eq=False)
class Site:
    """``rows``: of each client. ``orders``: per round and client, its rows in the order that a run trains them."""

    dataset: data.Dataset
    test: data.Dataset
    rows: tuple[NDArray[np.int64], ...]
    orders: dict[int, list[NDArray[np.int64]]]
    settings: LocalTraining
    seeds: SeedTree

    @classmethod
    def of(cls, kind: str, clients: int, rounds: int) -> Site:
        """The same in every process. ``kind``: "iid" or "dirichlet" (0.3)."""
        train, test = data.load("digits", SeedTree(0).child("data"))
        seeds = SeedTree(2)
        rows = tuple(partition.partition(kind, train, clients, seeds.child("partition"), alpha=0.3))
        run = seeds.child("run")
        orders = {
            round: [
                own[run.child("client", at, "round", round, "training").child("order").numpy().permutation(len(own))]
                for at, own in enumerate(rows, start=1)
            ]
            for round in range(1, rounds + 1)
        }
        return cls(train, test, rows, orders, SETTINGS, run)
