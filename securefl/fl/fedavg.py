"""Federated averaging: the round loop of a simulated run.

    w <- w + eta * sum_i n_i * Delta_i / sum_i n_i

over the clients i that survive the round: n_i examples, update Delta_i = w_i - w after local training.
[McMahan et al. 2017, Algorithm 1]. The parts of a round are objects of their own: what clients are asked for
(:mod:`securefl.fl.algorithms`), who computes it (:mod:`securefl.fl.engine`), the protected sum (the aggregator) and
the server's step (:mod:`securefl.fl.server_optimizer`). The loop sees nothing of a client but what the aggregator
returns.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Collection, Generator
from functools import cached_property
from pathlib import Path
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
from securefl.fl import models
from securefl.fl.algorithms import Averaging, LocalAlgorithm
from securefl.fl.checkpoint import RunState
from securefl.fl.cohort import Cohort
from securefl.fl.engine import Engine
from securefl.fl.engine_choice import EngineName, choose_engine
from securefl.fl.evaluation import Evaluator, PersonalReport
from securefl.fl.fingerprint import fingerprint_of
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
from securefl.fl.learning import algorithm_of, cohort_of, loss_of, personalizer_of, poison_of, server_of, stragglers_of
from securefl.fl.local_head import LocalHead
from securefl.fl.local_metrics import MaskedLoss
from securefl.fl.personalization import Personalizer, Site
from securefl.fl.poison import Poison
from securefl.fl.records import record_of
from securefl.fl.scoring import Evaluation, check_fits
from securefl.fl.seeds import SeedTree
from securefl.fl.server_optimizer import AveragingServer, ServerOptimizer
from securefl.fl.stragglers import Stragglers
from securefl.fl.tiered_engine import TieredEngine
from securefl.fl.training import LocalResult, LocalTraining, torch_threads
from securefl.fl.workload import Workload, check, local_training
from securefl.types import ClientId, Tensors

if TYPE_CHECKING:
    from securefl.fl.config import Config
    from securefl.fl.pruning import Pruning
    from securefl.fl.tiers import TierPlan

__all__ = ["FedAvg"]


class FedAvg:
    """A run of federated averaging.

    ``workload``: model, data and who holds which rows. ``aggregator``: gives the weighted mean of the updates.
    ``settings``: local training. ``rounds``: >= 1. ``seed``: an integer or a node of a seed tree.
    ``server_learning_rate``: eta > 0, of averaging; ``server``: another server step instead. ``cohort``: who is invited
    to a round; default: all. ``algorithm``: what clients are asked for; default: their updates. ``engine``: who trains
    them: "sequential", "stacked", or by default the faster of the two. ``personalizer``: what clients make of the model
    for themselves. ``checkpoint``: a directory written after every round, or ``None``. ``config_digest``: bound into
    the checkpoint beside model, data and seed. ``threads``: torch threads; 1 is fastest for small models and makes
    results independent of the number of cores. ``pruning``: moves a public mask on before each round. ``download``: the
    format in which clients get the model; ``None``: float32.

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
        server: ServerOptimizer | None = None,
        cohort: Cohort | None = None,
        algorithm: LocalAlgorithm | None = None,
        engine: Engine | EngineName = "auto",
        personalizer: Personalizer | None = None,
        stragglers: Stragglers | None = None,
        poison: Poison | None = None,
        loss: MaskedLoss | None = None,
        checkpoint: Path | None = None,
        config_digest: str = "",
        threads: int = 1,
        pruning: Pruning | None = None,
        download: WeightFormat | None = None,
    ) -> None:
        if rounds < 1 or threads < 1:
            raise ConfigurationError(f"rounds and threads are at least 1, not {rounds} and {threads}")
        check(workload)
        self.workload = workload
        self.aggregator = aggregator
        self.settings = settings
        self.rounds = rounds
        self.server = AveragingServer(server_learning_rate) if server is None else server
        self.cohort = Cohort() if cohort is None else cohort
        self.algorithm = Averaging() if algorithm is None else algorithm
        self.personalizer = personalizer
        self.stragglers, self.poison = stragglers, poison
        self.loss = loss
        self._metrics: dict[str, float] | None = None
        self.checkpoint = checkpoint
        self.config_digest = config_digest
        self.threads = threads
        self.pruning = pruning
        self.download = download
        self._seeds = seed if isinstance(seed, SeedTree) else SeedTree(seed)
        self._poisoned = poison.clients(list(workload.weights), self._seeds) if poison is not None else frozenset()
        self._tensors = models.tensors_of(workload.model)
        self._module = copy.deepcopy(workload.model)  # the workspace; the caller's model stays as it is
        check_fits(self._module, workload.train)
        self.engine = (
            choose_engine(engine, self._module, workload.train, settings) if isinstance(engine, str) else engine
        )
        self._evaluator = Evaluator(self._module, workload)
        self._initial_hash = self._hash = models.model_hash(self._tensors)
        self._records: list[RoundRecord] = []
        self._evaluation: Evaluation | None = None
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
        tiers: TierPlan | None = None,
    ) -> FedAvg:
        """The run that ``config`` describes, on ``prepare(config)`` and an aggregator made for it."""
        bits = config.compression.download_bits
        settings = local_training(config) if training is None else training
        return cls(
            workload,
            aggregator,
            settings,
            rounds=config.training.rounds,
            seed=config.data.seed,
            server=server_of(config.training),
            cohort=cohort_of(config),
            algorithm=algorithm_of(config, workload, settings),
            personalizer=personalizer_of(config),
            stragglers=stragglers_of(config),
            poison=poison_of(config),
            loss=loss_of(config, workload),
            engine=config.training.engine if tiers is None else TieredEngine(tiers, workload.train),
            checkpoint=checkpoint,
            config_digest=config.with_overrides(rounds=1).digest(),  # so that a run may be made longer
            pruning=pruning,
            download=WeightFormat(bits) if bits != 32 else None,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Names everything that fixes the model after a given round, bar the aggregator (see :mod:`.fingerprint`)."""
        return fingerprint_of(self, self._initial_hash, self._seeds)

    def select(self, round: int) -> Collection[ClientId]:
        """The clients invited to ``round``."""
        return self.cohort.select(round, list(self.workload.weights), self._seeds)

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
            for part in self._stateful:
                part.restore(state.state)
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
                with torch_threads(self.threads):
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

    @property
    def records(self) -> tuple[RoundRecord, ...]:
        """The rounds done so far, those of a checkpoint included."""
        return tuple(self._records)

    def result(self) -> RunResult:
        """The model and records so far. Raises ConfigurationError before the first round."""
        if not self._records:
            raise ConfigurationError("the run has no result before its first round")
        return RunResult(dict(self._tensors), tuple(self._records), self._hash.hex(), self._server_view, self._stopped)

    def _run_round(self, round: int) -> RoundRecord:
        started = perf_counter()
        aggregate, failed = None, None
        self._begin(round)
        received, model_bytes = self._received()
        contributions = self._contributions(round, received)
        if isinstance(self.engine, TieredEngine) and contributions:
            model_bytes = self.engine.model_bytes(model_bytes, contributions)
        if self.personalizer is not None:
            self.personalizer.during(round, received, list(contributions), self._site)
        try:
            aggregate = self.aggregator.aggregate(round, self._hash, contributions)
        except (TooFewClientsError, LostRoundError, HeadroomError) as error:
            failed = f"{type(error).__name__}: {error}"
            self.algorithm.failed()
        invited = frozenset(contributions)
        del contributions  # the largest thing in memory: one update per client
        if aggregate is not None:
            if not aggregate.survivors or not invited.issuperset(aggregate.survivors):
                raise InvalidInputError("the aggregator names survivors that were not invited, or none")
            self._apply(aggregate)
        if self._evaluation is None:
            self._evaluation = self._evaluator.shared(self._tensors, self.algorithm)
        record = record_of(round, self._evaluation, len(invited), aggregate, failed)
        metrics = self._metrics if aggregate is not None else None
        return dataclasses.replace(record, seconds=perf_counter() - started, model_bytes=model_bytes, metrics=metrics)

    def _received(self) -> tuple[Tensors, int]:
        """The model as a client gets it, and its bytes."""
        if self.download is not None:
            return self.download.round_trip(self._tensors)
        return self._tensors, sum(value.nbytes for value in self._tensors.values())

    def _begin(self, round: int) -> None:
        """The public step before a round: prune the global model."""
        if self.pruning is not None:
            self._tensors = self.pruning.advance(round, self._tensors)
            self._hash = models.model_hash(self._tensors)
            self._evaluation = None

    @property
    def _stateful(self) -> list[Stateful]:
        """Who keeps arrays between rounds; each names them by a prefix of its own."""
        parts = (self.aggregator, self.server, self.algorithm, self.personalizer, self.pruning)
        return [part for part in parts if isinstance(part, Stateful)]

    def _state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays beside the model that the next round depends on."""
        return {name: value for part in self._stateful for name, value in part.state().items()}

    def _contributions(self, round: int, tensors: Tensors) -> dict[ClientId, Contribution]:
        """What the clients of ``round`` give, by ascending id whatever the order of training: a floating-point sum
        depends on the order of its terms.
        """
        tasks = self.algorithm.tasks(round, tensors, list(self.select(round)), self.workload, self._seeds)
        if self.stragglers is not None:
            tasks = self.stragglers.slow(round, tasks, self.settings, self._seeds)
        results = self.engine.train(round, tasks, self.settings)
        given = {
            client: Contribution(
                self._sent(results[client], client),
                results[client].weight,
                self._seeds.child("client", client, "round", round, "rounding").bytes(32),
            )
            for client in sorted(results)
        }
        if self.poison is not None:
            given |= {client: self.poison.of(given[client]) for client in sorted(self._poisoned & given.keys())}
        return given

    @property
    def _site(self) -> Site:
        return Site(self.engine, self.workload, self.settings, self._seeds)

    def personal_models(self) -> dict[ClientId, Tensors] | None:
        """Every client's own model, from the present global one; ``None`` where clients have none."""
        if isinstance(self.algorithm, LocalHead):
            received, _ = self._received()
            return {client: self.algorithm.model(client, received) for client in self.workload.weights}
        if self.personalizer is None:
            return None
        with torch_threads(self.threads):
            return self.personalizer.models(self._received()[0], self._site, self._evaluator.accuracy)

    def personal_report(self) -> PersonalReport | None:
        """How the clients' own models do on their held-out examples; ``None`` where clients have none.

        Raises :class:`~securefl.errors.ConfigurationError` when nothing was held out.
        """
        own = self.personal_models()
        if own is None:
            return None
        part = self.personalizer or self.algorithm
        with torch_threads(self.threads):
            return self._evaluator.personal(
                str(part.describe()["name"]), own, self._received()[0] if self.personalizer is not None else None
            )

    def sends(self, tensors: Tensors) -> Tensors:
        """Arrays with the names, order and shapes of what a client sends, for the model ``tensors``."""
        given = self.algorithm.sends(tensors)
        return given if self.loss is None else self.loss.sends(given)

    def _sent(self, result: LocalResult, client: ClientId) -> Tensors:
        given = self.algorithm.sent(result, client)
        return given if self.loss is None else self.loss.sent(given, result)

    def _apply(self, aggregate: Aggregate) -> None:
        expected = self.sends(self._tensors)
        given = aggregate.mean
        if list(given) != list(expected) or any(given[k].shape != v.shape for k, v in expected.items()):
            raise InvalidInputError("the aggregator's mean does not have the model's tensors")
        if self.loss is not None:
            given, self._metrics = self.loss.received(given)
        mean = self.algorithm.received(given, aggregate.survivors)
        self._tensors = self.server.step(self._tensors, mean)
        if self.pruning is not None:
            self._tensors = self.pruning.apply(self._tensors)
        self._hash = models.model_hash(self._tensors)
        self._evaluation = None
        if aggregate.server_view is not None:
            self._server_view = aggregate.server_view
