"""Weak devices: a model trained part by part, each part in the place of the whole.

Part k learns with a small head of its own on what the finished parts before it make of the examples; then its head is
dropped, the part is frozen, and every device computes once what it makes of its own examples. At no time does a device
hold gradients, or a protected vector, of more than one part. [Belilovsky et al. 2019, greedy layerwise learning]
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean

import numpy as np
import torch
from torch import nn

from securefl.errors import ConfigurationError
from securefl.fl.data import Dataset
from securefl.fl.fedavg import FedAvg
from securefl.fl.interfaces import Aggregator
from securefl.fl.models import load_tensors, tensors_of
from securefl.fl.scoring import evaluate
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining
from securefl.fl.workload import Workload

__all__ = ["PartRecord", "TrainedByParts", "cut_parts", "train_by_parts", "training_values"]


@dataclass(frozen=True, slots=True)
class PartRecord:
    """``parameters``: trained in this phase, the temporary head included. ``values``: :func:`training_values` of it.

    ``accuracy``: of the model up to this part with its head. ``upload_bytes``: per client and round, ``None`` when no
    round gave a sum.
    """

    part: int
    parameters: int
    values: int
    accuracy: float
    upload_bytes: float | None


@dataclass(frozen=True, slots=True, eq=False)
class TrainedByParts:
    """``model``: the whole model, trained. ``accuracy``: its own, on the test set. ``parts``: one record per phase."""

    model: nn.Sequential = field(repr=False)
    accuracy: float
    parts: tuple[PartRecord, ...]


def cut_parts(model: nn.Module, count: int) -> list[nn.Sequential]:
    """``model``, an ``nn.Sequential``, as ``count`` sequences of layers; parts begin at layers with parameters.

    The layers are the model's own, not copies. Raises :class:`ConfigurationError` for other models and more parts than
    layers with parameters.
    """
    if type(model) is not nn.Sequential:
        raise ConfigurationError("only an nn.Sequential can be taken apart")
    heavy = [at for at, layer in enumerate(model) if any(True for _ in layer.parameters())]
    if not 1 <= count <= len(heavy):
        raise ConfigurationError(f"the model has {len(heavy)} layers with parameters: 1 to {len(heavy)} parts")
    starts = [heavy[len(heavy) * part // count] for part in range(1, count)]
    layers, ends = list(model), [0, *starts, len(model)]
    return [nn.Sequential(*layers[low:high]) for low, high in pairwise(ends)]


def training_values(module: nn.Module, input_shape: Sequence[int], batch_size: int) -> int:
    """Numbers that a device holds while it trains ``module`` by SGD: parameters, gradients, a batch's activations."""
    sizes: list[int] = []
    handles = [
        layer.register_forward_hook(lambda _layer, _given, made: sizes.append(made.numel()))
        for layer in module.modules()
        if not list(layer.children())
    ]
    try:
        with torch.no_grad():
            module(torch.zeros(1, *input_shape))
    finally:
        for handle in handles:
            handle.remove()
    trained = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return 2 * trained + batch_size * (math.prod(input_shape) + sum(sizes))


def train_by_parts(
    workload: Workload,
    parts: int,
    aggregator: Aggregator,
    settings: LocalTraining,
    *,
    rounds: int,
    seed: int | SeedTree = 0,
) -> TrainedByParts:
    """Train the workload's model in ``parts`` phases of ``rounds`` rounds of federated averaging each.

    Only the part in training, with its head, enters the protected sum. The caller's model stays as it is.
    Raises as :func:`cut_parts` and :class:`~securefl.fl.fedavg.FedAvg`.
    """
    seeds = seed if isinstance(seed, SeedTree) else SeedTree(seed)
    model = copy.deepcopy(workload.model)
    sequence = cut_parts(model, parts)
    train, test, records = workload.train, workload.test, []
    for number, part in enumerate(sequence, start=1):
        last = number == parts
        phase = part if last else _with_head(part, train, seeds.child("head", number))
        run = FedAvg(
            Workload(phase, train, test, workload.rows),
            aggregator,
            settings,
            rounds=rounds,
            seed=seeds.child("part", number),
        )
        result = run.run()
        load_tensors(phase, result.tensors)
        uploads = [r.upload_bytes_per_client for r in result.records if r.upload_bytes_per_client is not None]
        records.append(
            PartRecord(
                number,
                sum(value.size for value in result.tensors.values()),
                training_values(phase, train.input_shape, settings.batch_size),
                result.accuracy,
                fmean(uploads) if uploads else None,
            )
        )
        if not last:
            train, test = _through(part, train), _through(part, test)
    assert type(model) is nn.Sequential  # noqa: S101 - checked by cut_parts
    return TrainedByParts(model, evaluate(model, tensors_of(model), workload.test).accuracy, tuple(records))


def _with_head(part: nn.Sequential, data: Dataset, seeds: SeedTree) -> nn.Sequential:
    """The part, its own layers, with a linear head of fresh parameters."""
    with torch.no_grad():
        size = part(torch.zeros(1, *data.input_shape)).numel()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.torch_seed())
        return nn.Sequential(*part, nn.Flatten(), nn.Linear(size, data.classes))


def _through(part: nn.Module, data: Dataset) -> Dataset:
    """What the finished part makes of the examples; every device does it for its own."""
    part.eval()
    with torch.no_grad():
        made = [part(torch.tensor(data.inputs[at : at + 1024])).numpy() for at in range(0, len(data), 1024)]
    return Dataset(np.ascontiguousarray(np.concatenate(made)), data.targets, data.classes, data.name)
