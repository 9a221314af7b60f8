"""A configured run from start to end: workload, protection, rounds, checkpoint. Rendering is left to others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter

from securefl.errors import ConfigurationError
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.compression import pruning_of
from securefl.fl.config import Config
from securefl.fl.evaluation import PersonalReport
from securefl.fl.example_privacy import ExamplePrivacy
from securefl.fl.fedavg import FedAvg
from securefl.fl.interfaces import RoundRecord, RunResult
from securefl.fl.learning import tiers_of
from securefl.fl.models import tensors_of
from securefl.fl.privacy import UserPrivacy
from securefl.fl.private_run import privacy_of
from securefl.fl.protections import trust_of
from securefl.fl.run_folder import METRICS_FILE, keep_config, ledger_file
from securefl.fl.tiered_engine import evaluate_tiers
from securefl.fl.tracking import JsonLines, Tracker
from securefl.fl.workload import local_training, prepare

__all__ = ["FinishedRun", "Run", "TierResult"]


@dataclass(frozen=True, slots=True)
class PrivacyStatement:
    """What a run spent, and what the figure rests on. ``ledger_head``: hash of the ledger's last row, hexadecimal."""

    epsilon: float
    noise_multiplier: float
    neighboring: str
    assumptions: tuple[str, ...]
    ledger_head: str

    @classmethod
    def of(cls, privacy: UserPrivacy | ExamplePrivacy) -> PrivacyStatement:
        """The statement as of now."""
        return cls(
            privacy.epsilon_spent,
            privacy.noise_multiplier,
            privacy.neighboring.value,
            tuple(privacy.assumptions()),
            privacy.ledger.head.hex(),
        )


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run's configuration, its result, the number of parameters and how long this process worked on it.

    ``personal``: how the clients' own models do, where the configuration asks for some.
    """

    config: Config
    result: RunResult = field(repr=False)
    parameters: int
    seconds: float
    privacy: PrivacyStatement | None = None
    personal: PersonalReport | None = None
    tiers: tuple[TierResult, ...] = ()


@dataclass(frozen=True, slots=True)
class TierResult:
    """One tier at the end of a run: its clients, and its slice of the global model as a model of its own."""

    tier: int
    size: float
    clients: int
    parameters: int
    accuracy: float


class Run:
    """A run that keeps its checkpoint and configuration in the folder ``out``.

    ``resume``: go on from the checkpoint there; without it a checkpoint of an earlier run is overwritten. ``shadow``:
    measure each aggregate's error against the plain mean; plain runs only. ``trackers``: told of every round, beside
    ``metrics.jsonl``.
    Raises :class:`ConfigurationError` for a configuration that cannot work, before any training, and for a folder
    that cannot be written or holds another run's checkpoint.
    """

    def __init__(
        self,
        config: Config,
        out: Path,
        *,
        resume: bool = False,
        shadow: bool = False,
        trackers: Sequence[Tracker] = (),
    ) -> None:
        if shadow and config.protection.method != "plain":
            raise ConfigurationError(
                "--shadow compares with the plain mean, which no protected run may see: add --protect plain"
            )
        self.config, self._out, self.trackers = config, out, trackers
        self._started = perf_counter()
        checkpoint = out / "checkpoint"
        workload = prepare(config)
        training = local_training(config)
        self.privacy = privacy_of(config, workload, training)
        if isinstance(self.privacy, ExamplePrivacy):
            training = replace(training, dpsgd=self.privacy.noise)
        pruning = pruning_of(config.compression)
        self._workload, self._tiers = workload, tiers_of(config, workload)
        aggregator = aggregator_of(
            config,
            config.protection.max_weight_for(workload.weights.values()),
            privacy=self.privacy,
            pruning=pruning,
            record_view=True,
            shadow=shadow,
            tiers=self._tiers,
        )
        self._fedavg = FedAvg.from_config(
            config,
            workload,
            aggregator,
            training=training,
            checkpoint=checkpoint,
            pruning=pruning,
            tiers=self._tiers,
        )
        sent = self._fedavg.sends(tensors_of(workload.model))
        aggregator.check(sent, list(workload.weights))
        self.rounds_done = self._fedavg.resume() if resume else 0
        ledger = ledger_file(out, resume=resume)
        keep_config(config, out)
        if self.privacy is not None:
            self.privacy.open(ledger, config.with_overrides(rounds=1).digest())
        if self.privacy is not None and self.rounds_done:
            records = self._fedavg.result().records
            self.privacy.check_charged(record.round for record in records if record.privacy is not None)
            self.privacy.restore([record.privacy for record in records])
        self.parameters = sum(parameter.numel() for parameter in workload.model.parameters())

    def headline(self) -> list[str]:
        """What is about to happen, in a few lines."""
        c = self.config
        suite = f" ({c.protection.suite})" if c.protection.method in ("masked", "shared") else ""
        start = f", resumed after round {self.rounds_done}" if self.rounds_done else ""
        lines = [
            f"{c.data.dataset}, {c.data.clients} clients ({c.data.partition}), {c.model.name} with {self.parameters} "
            f"parameters, {c.training.rounds} rounds{start}",
            f"protection: {c.protection.method}{suite}, {c.protection.value_bits} value bits, "
            f"at least {c.protection.threshold_count(c.data.clients)} survivors",
            f"compression: {' + '.join(c.compression.chain) or 'none beyond quantization'}",
        ]
        trust = trust_of(c.protection.method, c.protection.key_model)
        if trust is not None:
            lines.insert(2, f"key model: {c.protection.key_model}: {trust}")
        if c.tiers is not None and self._tiers is not None:
            members = list(self._tiers.tiers.values())
            each = ", ".join(
                f"{members.count(tier)} with {self._tiers.parameters(tier)} parameters"
                for tier in range(1, len(c.tiers.sizes) + 1)
            )
            lines.append(f"tiers ({c.tiers.slices}): {each}; opened over at least {c.tiers.minimum_holders} clients")
        if c.robust is not None:
            bound = "" if c.robust.norm_bound is None else f", updates up to norm {c.robust.norm_bound:g}"
            lines.append(f"rule on shares: {c.robust.rule}{bound}; the two servers alone learn whom it drops")
        if c.personalization is not None:
            lines.append(
                f"personalization: {c.personalization.method}, "
                f"{c.personalization.held_out:.0%} of each client's examples held out"
            )
        if c.privacy is not None and self.privacy is not None:
            noise = "DP-SGD at each client" if c.privacy.unit == "example" else f"{c.privacy.noise} noise"
            lines.append(
                f"privacy: epsilon <= {c.privacy.epsilon:g} at delta = {c.privacy.delta:g} per {c.privacy.unit}, "
                f"{noise}, noise multiplier {self.privacy.noise_multiplier:.3f}"
            )
        return lines

    def rounds(self) -> Iterator[RoundRecord]:
        """Run the rounds that are left, one per iteration; each is in ``metrics.jsonl`` before it is given out."""
        trackers: list[Tracker] = [JsonLines(self._out / METRICS_FILE), *self.trackers]
        done = self._fedavg.records
        for tracker in trackers:
            tracker.begin(done)
        try:
            for record in self._fedavg.rounds_left():
                for tracker in trackers:
                    tracker.add(record)
                yield record
        finally:
            for tracker in trackers:
                tracker.close()

    def finish(self) -> FinishedRun:
        """The finished run. Raises :class:`ConfigurationError` before the first round."""
        return FinishedRun(
            self.config,
            self._fedavg.result(),
            self.parameters,
            perf_counter() - self._started,
            None if self.privacy is None else PrivacyStatement.of(self.privacy),
            self._fedavg.personal_report(),
            self._tier_results(),
        )

    def _tier_results(self) -> tuple[TierResult, ...]:
        plan, result = self._tiers, self._fedavg.result()
        if plan is None:
            return ()
        found = evaluate_tiers(plan, result.tensors, self._workload.test, round=len(result.records) + 1)
        members = list(plan.tiers.values())
        return tuple(
            TierResult(tier, size, members.count(tier), plan.parameters(tier), evaluation.accuracy)
            for tier, (size, evaluation) in enumerate(zip(plan.sizes, found, strict=True), start=1)
        )
