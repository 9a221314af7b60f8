"""Federated averaging: the round loop of a simulated run.

    w <- w + eta * sum_i n_i * Delta_i / sum_i n_i

over the clients i that survive the round: n_i examples, update Delta_i = w_i - w after local training.
[McMahan et al. 2017, Algorithm 1]; the server learning rate eta is [Reddi et al. 2021, Algorithm 1] with plain SGD on
the server. The weighted mean is the aggregator's; the loop sees nothing of a client but what the aggregator returns.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Collection, Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.weights import WeightFormat
from securefl.errors import (
    ConfigurationError,
    HeadroomError,
    InvalidInputError,
    PrivacyBudgetExceededError,
    TooFewClientsError,
)
from securefl.fl import checkpoint as checkpoints
from securefl.fl import data, models, partition, training
from securefl.fl.checkpoint import RunState
from securefl.fl.data import Dataset
from securefl.fl.interfaces import (
    Aggregate,
    Aggregator,
    Contribution,
    LostRoundError,
    RoundRecord,
    RunResult,
    ServerView,
    Stateful,
)
from securefl.fl.seeds import SeedTree
from securefl.fl.training import LocalTraining
from securefl.types import ClientId, Tensors

if TYPE_CHECKING:
    from torch import nn

    from securefl.fl.config import Config
    from securefl.fl.pruning import Pruning

__all__ = ["FedAvg", "Workload", "local_training", "prepare"]


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Workload:
    """What is trained on what, without the protection: made by :func:`prepare` or by hand.

    ``model``: maps an example of ``train`` to ``train.classes`` scores. ``rows``: the rows of ``train`` per client;
    the first client has id 1.
    """

    model: nn.Module = dataclasses.field(repr=False)
    train: Dataset
    test: Dataset
    rows: Sequence[NDArray[np.int64]] = dataclasses.field(repr=False)

    @property
    def weights(self) -> dict[ClientId, int]:
        """Examples per client, by ascending id. The simulation knows them; a server does not."""
        return {ClientId(i): len(rows) for i, rows in enumerate(self.rows, start=1)}


def prepare(config: Config) -> Workload:
    """Dataset, partition and freshly initialised model of a configuration; equal seeds give equal workloads."""
    seeds = SeedTree(config.data.seed)
    train, test = data.load(config.data.dataset, seeds.child("data"))
    rows = partition.partition(
        config.data.partition, train.targets, config.data.clients, seeds.child("partition"), alpha=config.data.alpha
    )
    model = models.build(
        config.model.name,
        input_shape=train.input_shape,
        classes=train.classes,
        seeds=seeds.child("model"),
        hidden=config.model.hidden,
    )
    return Workload(model, train, test, rows)


def local_training(config: Config) -> LocalTraining:
    """How the clients of ``config`` train."""
    chosen = config.training
    return LocalTraining(chosen.local_epochs, chosen.batch_size, chosen.learning_rate, chosen.optimizer)


class FedAvg:
    """A run of federated averaging.

    ``workload``: model, data and who holds which rows. ``aggregator``: gives the weighted mean of the updates.
    ``settings``: local training. ``rounds``: >= 1. ``seed``: an integer or a node of a seed tree.
    ``server_learning_rate``: eta > 0. ``sampling_probability``: Poisson-sampled cohorts, in (0, 1]; ``None``: all.
    ``checkpoint``: a directory written after every round, or ``None``.
    ``config_digest``: bound into the checkpoint beside model, data and seed. ``threads``: torch threads; 1 is fastest
    for small models and makes results independent of the number of cores. ``pruning``: moves a public mask on before
    each round. ``download``: the format in which clients get the model; ``None``: float32.

    Use ``for record in run.rounds_left(): ...`` and then ``run.result()``; or ``run.run()``. The model given is copied.
    Raises :class:`~securefl.errors.ConfigurationError` when model, data and partition do not fit together.
    """

    def __init__(
        self,
        workload: Workload,
        aggregator: Aggregator,
        settings: LocalTraining,
        *,
        rounds: int,
        seed: int | SeedTree = 0,
        server_learning_rate: float = 1.0,
        sampling_probability: float | None = None,
        checkpoint: Path | None = None,
        config_digest: str = "",
        threads: int = 1,
        pruning: Pruning | None = None,
        download: WeightFormat | None = None,
    ) -> None:
        if rounds < 1 or threads < 1:
            raise ConfigurationError(f"rounds and threads are at least 1, not {rounds} and {threads}")
        if not 0 < server_learning_rate < np.inf:
            raise ConfigurationError(f"server_learning_rate is a positive number, not {server_learning_rate}")
        _check_rows(workload)
        self.workload = workload
        self.aggregator = aggregator
        self.settings = settings
        self.rounds = rounds
        self.server_learning_rate = server_learning_rate
        self.sampling_probability = sampling_probability
        self.checkpoint = checkpoint
        self.config_digest = config_digest
        self.threads = threads
        self.pruning = pruning
        self.download = download
        self._seeds = seed if isinstance(seed, SeedTree) else SeedTree(seed)
        self._tensors = models.tensors_of(workload.model)
        self._module = copy.deepcopy(workload.model)  # the workspace; the caller's model stays as it is
        training.check_fits(self._module, workload.train)
        self._initial_hash = self._hash = models.model_hash(self._tensors)
        self._records: list[RoundRecord] = []
        self._evaluation: training.Evaluation | None = None
        self._server_view: ServerView | None = None
        self._stopped: str | None = None

    @classmethod
    def from_config(
        cls,
        config: Config,
        workload: Workload,
        aggregator: Aggregator,
        *,
        training: LocalTraining | None = None,
        checkpoint: Path | None = None,
        pruning: Pruning | None = None,
    ) -> FedAvg:
        """The run that ``config`` describes, on ``prepare(config)`` and an aggregator made for it."""
        chosen = config.training
        bits = config.compression.download_bits
        return cls(
            workload,
            aggregator,
            local_training(config) if training is None else training,
            rounds=chosen.rounds,
            seed=config.data.seed,
            server_learning_rate=chosen.server_learning_rate,
            sampling_probability=config.privacy.sampling_probability if config.privacy else None,
            checkpoint=checkpoint,
            config_digest=config.with_overrides(rounds=1).digest(),  # so that a run may be made longer
            pruning=pruning,
            download=WeightFormat(bits) if bits != 32 else None,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of everything that fixes the model after a given round, bar the aggregator and ``rounds``.

        The aggregator's settings enter by ``config_digest``. ``rounds`` stays out: a run may be made longer.
        """
        digest = hashlib.sha256()
        for part in (self.workload.train, self.workload.test):
            digest.update(models.model_hash({"inputs": part.inputs, "targets": part.targets}))
        digest.update(models.model_hash({str(i): rows for i, rows in enumerate(self.workload.rows)}))
        description = {
            "config": self.config_digest,
            "data": digest.hexdigest(),
            "model": self._initial_hash.hex(),
            "seed": self._seeds.child("fingerprint").bytes().hex(),
            "server_learning_rate": self.server_learning_rate,
            "sampling_probability": self.sampling_probability,
            "threads": self.threads,
            "pruning": dataclasses.asdict(self.pruning.schedule) if self.pruning is not None else None,
            "download": dataclasses.asdict(self.download) if self.download is not None else None,
            "training": dataclasses.asdict(self.settings),
        }
        return hashlib.sha256(json.dumps(description, sort_keys=True).encode("utf-8")).hexdigest()

    def select(self, round: int) -> Collection[ClientId]:
        """The clients invited to ``round``: all, or each by its own coin of ``sampling_probability``.

        In a simulation the coins come from the seed tree, so that a run can be repeated; a deployment draws them from
        the operating system (securefl.dp.cohort), since amplification rests on nobody knowing them.
        """
        everyone = self.workload.weights.keys()
        if self.sampling_probability is None:
            return everyone
        coins = self._seeds.child("cohort", round).numpy().random(len(everyone))
        return [client for client, coin in zip(everyone, coins, strict=True) if coin < self.sampling_probability]

    def resume(self) -> int:
        """Take up the checkpoint, if there is one; returns the rounds done. The result is that of an unbroken run.

        Raises as :func:`securefl.fl.checkpoint.load`, and ConfigurationError when the run has begun or has no
        checkpoint directory.
        """
        if self.checkpoint is None or self._records:
            raise ConfigurationError("resume a run before its first round, and give it a checkpoint directory")
        if checkpoints.exists(self.checkpoint):
            state = checkpoints.load(self.checkpoint, self.fingerprint)
            if state.round > self.rounds:
                raise ConfigurationError(
                    f"the checkpoint is at round {state.round}, beyond the {self.rounds} asked for"
                )
            models.load_tensors(self._module, state.tensors)  # same names and shapes, or InvalidInputError
            self._tensors, self._records = state.tensors, list(state.records)
            self._hash = models.model_hash(self._tensors)
            self._restore(state.state)
        return len(self._records)

    def run(self) -> RunResult:
        """All rounds that are left, then the result."""
        for _ in self.rounds_left():
            pass
        return self.result()

    def rounds_left(self) -> Generator[RoundRecord, None, RunResult]:
        """Run the rounds that are left, one per iteration; each is checkpointed before its record is given out.

        A round in which too few clients survive is recorded as failed: the model stays and the run goes on.
        """
        while len(self._records) < self.rounds and self._stopped is None:
            try:
                with training.torch_threads(self.threads):
                    record = self._run_round(len(self._records) + 1)
            except PrivacyBudgetExceededError as error:
                if not self._records:
                    raise
                self._stopped = f"PrivacyBudgetExceededError: {error}"
                break
            self._records.append(record)
            if self.checkpoint is not None:
                checkpoints.save(
                    self.checkpoint, RunState(self._tensors, tuple(self._records), self._state()), self.fingerprint
                )
            yield record
        return self.result()

    def result(self) -> RunResult:
        """The model and records so far. Raises ConfigurationError before the first round."""
        if not self._records:
            raise ConfigurationError("the run has no result before its first round")
        return RunResult(dict(self._tensors), tuple(self._records), self._hash.hex(), self._server_view, self._stopped)

    def _run_round(self, round: int) -> RoundRecord:
        started = perf_counter()
        aggregate, failed = None, None
        self._begin(round)
        received, model_bytes = self._tensors, sum(value.nbytes for value in self._tensors.values())
        if self.download is not None:
            received, model_bytes = self.download.round_trip(self._tensors)
        contributions = self._train_clients(round, received)
        try:
            aggregate = self.aggregator.aggregate(round, self._hash, contributions)
        except (TooFewClientsError, LostRoundError, HeadroomError) as error:
            failed = f"{type(error).__name__}: {error}"
        invited = frozenset(contributions)
        del contributions  # the largest thing in memory: one update per client
        if aggregate is not None:
            if not aggregate.survivors or not invited.issuperset(aggregate.survivors):
                raise InvalidInputError("the aggregator names survivors that were not invited, or none")
            self._apply(aggregate)
        if self._evaluation is None:
            self._evaluation = training.evaluate(self._module, self._tensors, self.workload.test)
        return RoundRecord(
            round=round,
            accuracy=self._evaluation.accuracy,
            test_loss=self._evaluation.loss,
            clients=len(invited),
            survivors=tuple(ClientId(int(c)) for c in aggregate.survivors) if aggregate else (),
            failed=failed,
            upload_bytes_per_client=_mean(aggregate.upload_bytes) if aggregate else None,
            vector_bytes_per_client=_mean(aggregate.vector_bytes) if aggregate else None,
            download_bytes_per_client=_mean(aggregate.download_bytes) if aggregate else None,
            clipped_fraction=float(aggregate.clipped_fraction) if aggregate else None,
            seconds=perf_counter() - started,
            model_bytes=model_bytes,
            aggregate_error=aggregate.relative_error if aggregate else None,
            privacy=aggregate.privacy if aggregate else None,
        )

    def _begin(self, round: int) -> None:
        """The public step before a round: prune the global model."""
        if self.pruning is not None:
            self._tensors = self.pruning.advance(round, self._tensors)
            self._hash = models.model_hash(self._tensors)
            self._evaluation = None

    def _state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays beside the model that the next round depends on."""
        state = self.aggregator.state() if isinstance(self.aggregator, Stateful) else {}
        if self.pruning is not None and self.pruning.mask is not None:
            state |= {f"mask {name}": part for name, part in self.pruning.mask.items()}
        return state

    def _restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        if isinstance(self.aggregator, Stateful):
            self.aggregator.restore(saved)
        if self.pruning is not None:
            self.pruning.mask = {
                name.removeprefix("mask "): np.asarray(part, dtype=np.bool_)
                for name, part in saved.items()
                if name.startswith("mask ")
            }

    def _train_clients(self, round: int, tensors: Tensors) -> dict[ClientId, Contribution]:
        contributions: dict[ClientId, Contribution] = {}
        for client in self.select(round):
            seeds = self._seeds.child("client", client, "round", round)
            rows = self.workload.rows[client - 1]
            local = training.train(
                self._module,
                tensors,
                self.workload.train,
                rows,
                self.settings,
                seeds.child("training"),
                client=client,
                round=round,
            )
            contributions[client] = Contribution(local.update, local.weight, seeds.child("rounding").bytes(32))
        # Ascending ids whatever the order of training: a floating-point sum depends on the order of its terms.
        return dict(sorted(contributions.items()))

    def _apply(self, aggregate: Aggregate) -> None:
        mean = aggregate.mean
        if list(mean) != list(self._tensors) or any(mean[k].shape != v.shape for k, v in self._tensors.items()):
            raise InvalidInputError("the aggregator's mean does not have the model's tensors")
        # In float64 and rounded once. New arrays: results and checkpoints given out before stay as they were.
        with np.errstate(over="ignore"):  # what overflows float32 becomes infinite and is refused below
            tensors = {
                name: np.asarray(value + self.server_learning_rate * mean[name].astype(np.float64), dtype=np.float32)
                for name, value in self._tensors.items()
            }
        if not all(np.isfinite(value).all() for value in tensors.values()):
            raise InvalidInputError("the aggregator's mean, applied to the model, is not finite")
        self._tensors = tensors
        self._hash = models.model_hash(self._tensors)
        self._evaluation = None
        if aggregate.server_view is not None:
            self._server_view = aggregate.server_view


def _check_rows(workload: Workload) -> None:
    if len(workload.rows) == 0:
        raise ConfigurationError("a run needs at least one client")
    for client, rows in enumerate(workload.rows, start=1):
        if rows.ndim != 1 or len(rows) == 0 or not np.issubdtype(rows.dtype, np.integer):
            raise ConfigurationError(f"the rows of client {client} must be a non-empty list of row numbers")
        if rows.min() < 0 or rows.max() >= len(workload.train):
            raise ConfigurationError(f"the rows of client {client} are not rows of {workload.train.name!r}")
    if workload.train.input_shape != workload.test.input_shape or workload.train.classes != workload.test.classes:
        raise ConfigurationError("the training and test sets differ in the shape of examples or the number of classes")


def _mean(values: Mapping[ClientId, int]) -> float | None:
    return fmean(values.values()) if values else None
