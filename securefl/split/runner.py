"""A configured split-learning run from start to end. Rendering is left to others. [torch]"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securefl.cluster.remote import connect
from securefl.errors import ConfigurationError
from securefl.fl import checkpoint, models
from securefl.fl.config import Config, SplitConfig
from securefl.fl.data import Dataset
from securefl.fl.models import model_hash, tensors_of
from securefl.fl.run_folder import keep_config, ledger_file, saved_config
from securefl.fl.seeds import SeedTree
from securefl.fl.workload import divide, prepare
from securefl.split.cutting import Cut, cut
from securefl.split.leakage import LeakageFigures, decode, leakage_of
from securefl.split.series import ecg_like, series_model
from securefl.split.settings import SplitSettings
from securefl.split.training import SplitRound, SplitTraining
from securefl.types import ClientId, PartyId

__all__ = ["FinishedSplitRun", "Reconstruction", "SplitRun", "default_cut", "settings_of", "workload_of"]

_SERIES = 1500, 500  # training and test examples of the synthetic series
_PICTURES = 6
_CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """``inputs`` and what a decoder trained on leaked pairs makes of the server's view of them: float32[k, ...]."""

    inputs: NDArray[np.float32] = field(repr=False)
    guesses: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class FinishedSplitRun:
    """What a run left. ``protected_accuracy``: of test predictions that went the protected way.

    ``None`` under ``noise``, where each of them would be one more release about a test example. ``leakage``,
    ``pictures``: ``None`` where they were not asked for. ``model_hash``: of the body; ``None`` where its weights stayed
    shared. ``uncovered``: see :attr:`SplitTraining.uncovered`.
    """

    config: Config
    dataset: str
    records: tuple[SplitRound, ...]
    statement: str
    features: int
    outputs: int
    parameters: int
    protected_accuracy: float | None
    leakage: LeakageFigures | None
    pictures: Reconstruction | None
    noise_multiplier: float | None
    uncovered: str | None
    model_hash: str | None
    seconds: float


def settings_of(config: Config, chosen: SplitConfig) -> SplitSettings:
    """The settings of a run from its configuration. Raises :class:`ConfigurationError`."""
    return SplitSettings(
        protect=chosen.protect,
        order=chosen.order,
        rounds=config.training.rounds,
        batch_size=config.training.batch_size,
        learning_rate=config.training.learning_rate,
        momentum=chosen.momentum,
        activation_range=chosen.activation_range,
        bits=chosen.bits,
        epsilon=chosen.epsilon,
        delta=chosen.delta,
        clip_norm=chosen.clip_norm,
        gradient_clip_norm=chosen.gradient_clip_norm,
        weight_gradient=chosen.weight_gradient,
        ciphertexts=chosen.ciphertexts,
        gradient_range=chosen.gradient_range,
        parties=chosen.parties,
        audit=chosen.audit,
        sum_protection=config.protection.method,
    )


def default_cut(model: nn.Module, after: str | None, until: str | None, *, labels_at_server: bool) -> Cut:
    """The cut asked for; by default the server holds the last linear layer.

    Raises :class:`ConfigurationError` as :func:`~securefl.split.cutting.cut`.
    """
    leaves = [name for name, layer in model.named_modules() if name and not any(True for _ in layer.children())]
    linear = [name for name in leaves if isinstance(model.get_submodule(name), nn.Linear)]
    if after is None:
        last = until if until is not None else (linear[-1] if linear else "")
        if last not in leaves or leaves.index(last) == 0:
            raise ConfigurationError("the model has no layer before its last linear one: name the cut (after)")
        after = leaves[leaves.index(last) - 1]
        until = last
    return cut(model, after, None if labels_at_server else until)


class SplitRun:
    """A run whose ledger and configuration stay in the folder ``out``.

    ``resume``: go on from the checkpoint there; without it a checkpoint of an earlier run is overwritten.
    Raises :class:`ConfigurationError` for a configuration that cannot work, before any training, and for a folder that
    cannot be written, holds an earlier run's ledger or, to be resumed, nothing of this run.
    """

    def __init__(self, config: Config, out: Path, *, resume: bool = False) -> None:
        if config.split is None:
            raise ConfigurationError("this configuration has no [split] section")
        self.config, self._chosen = config, config.split
        self._started = perf_counter()
        seeds = SeedTree(config.data.seed)
        model, clients, self._test = workload_of(config, self._chosen, seeds)
        parts = default_cut(
            model, self._chosen.after, self._chosen.until, labels_at_server=self._chosen.labels == "server"
        )
        if parts.head is None and self._chosen.labels == "client":
            raise ConfigurationError('[split] until is missing: with labels = "client" name the server\'s last layer')
        self._model, self._seeds, self._records, self._out = model, seeds, list[SplitRound](), out
        if resume and self._chosen.protect == "shared":
            raise ConfigurationError(
                "a run with protect = 'shared' cannot be resumed: its body was shared among parties that ended with "
                "it; start again, and let reveal = true open the body at the end of a run"
            )
        self._fingerprint = _fingerprint(config, clients, self._test)
        ledger = ledger_file(out, resume=resume)
        self._servers = None if self._chosen.cluster is None else connect(self._chosen.cluster)
        with ExitStack() as opened:
            if self._servers is not None:
                opened.callback(self._servers.close)
            self.training = SplitTraining(
                parts,
                clients,
                self._test,
                settings_of(config, self._chosen),
                seeds.child("split"),
                suite=config.protection.suite,
                threshold=config.protection.threshold_count(config.data.clients),
                servers=self._servers,
            )
            opened.callback(self.training.close)
            if resume:
                self._resume(config, out)
            keep_config(config, out)
            if self.training.privacy is not None:
                self.training.privacy.open(ledger, config.digest())
                self.training.privacy.check_charged(record.round for record in self._records)
            opened.pop_all()  # from here on, close() does

    def _resume(self, config: Config, out: Path) -> None:
        found = checkpoint.load_as(out / _CHECKPOINT, self._fingerprint, lambda fields: SplitRound(**fields))
        if self.training.privacy is not None and saved_config(out).training.rounds != config.training.rounds:
            raise ConfigurationError(
                "the noise was calibrated for the rounds that the run was started with: resume it without --rounds"
            )
        if not found.records:
            raise ConfigurationError(f"{out} holds no finished round to go on from")
        self._records = list(found.records)
        self.training.restore(found.state, self._records[-1].round)

    @property
    def rounds_done(self) -> int:
        """Rounds that a resumed run had made."""
        return self._records[-1].round if self._records else 0

    def headline(self) -> list[str]:
        """What is about to happen, in a few lines; the first says what the mode protects."""
        c, s, t = self.config, self._chosen, self.training
        lines = [
            f"split learning, {s.protect}: {t.statement}",
            f"{self._test.name}, {c.data.clients} clients ({c.data.partition}), {s.order}; {t.features} activations "
            f"and {t.outputs} outputs per example, {c.training.rounds} rounds"
            + (f", resumed after round {self.rounds_done}" if self.rounds_done else ""),
        ]
        if s.protect == "ckks":
            lines.append(f"weight gradients: {t.settings.releases}; fronts and heads: {c.protection.method} average")
        if s.protect == "shared":
            where = f"parties of {s.cluster}" if s.cluster is not None else f"three {s.parties} of this machine"
            lines.append(f"the body runs at {where}" + ("" if s.reveal else " and stays shared: reveal opens it"))
        if t.privacy is not None:
            lines.append(
                f"privacy: epsilon <= {s.epsilon:g} at delta = {s.delta:g} per example, noise multiplier "
                f"{t.privacy.noise_multiplier:.3f}"
            )
        return lines if t.uncovered is None else [*lines, t.uncovered]

    def rounds(self) -> Iterator[SplitRound]:
        """Run the rounds that are left, one per iteration; each is in the checkpoint before it is given out."""
        for record in self.training.rounds():
            self._records.append(record)
            if self.training.host is None:
                state = checkpoint.RunState({}, tuple(self._records), self.training.state())
                checkpoint.save(self._out / _CHECKPOINT, state, self._fingerprint)
            yield record

    def close(self) -> None:
        """End or leave the computing parties, where there are any."""
        self.training.close()
        if self._servers is not None:
            self._servers.close()

    def finish(self) -> FinishedSplitRun:
        """Judge the run, which must not be closed yet. Raises :class:`ConfigurationError` before the first round."""
        if not self._records:
            raise ConfigurationError("the run has not made a round yet")
        training, test = self.training, self._test
        accuracy = None
        if self._chosen.protect != "noise":
            accuracy = float(np.mean(training.protected_predictions(test.inputs) == test.targets))
        figures, pictures = None, None
        if self._chosen.leakage:
            view, gradients = training.server_views(test)
            figures = leakage_of(view, gradients, test, self._seeds.child("leakage"))
            pictures = _pictures(view, test, self._seeds.child("pictures"))
        return FinishedSplitRun(
            config=self.config,
            dataset=test.name,
            records=tuple(self._records),
            statement=training.statement,
            features=training.features,
            outputs=training.outputs,
            parameters=sum(parameter.numel() for parameter in self._model.parameters()),
            protected_accuracy=accuracy,
            leakage=figures,
            pictures=pictures,
            noise_multiplier=None if training.privacy is None else training.privacy.noise_multiplier,
            uncovered=training.uncovered,
            model_hash=self._body_hash(),
            seconds=perf_counter() - self._started,
        )

    def _body_hash(self) -> str | None:
        """Opens a shared body where that was asked for, and leaves it in ``body.npz``."""
        body, host = self.training.parts.body, self.training.host
        if host is not None:
            if not self._chosen.reveal:
                return None
            body.load_state_dict(host.reveal())
            try:
                np.savez(self._out / "body.npz", allow_pickle=False, **tensors_of(body))
            except OSError as error:
                raise ConfigurationError(f"cannot write the revealed body to {self._out}: {error.strerror}") from None
        return model_hash(tensors_of(body)).hex()


def _fingerprint(config: Config, clients: Mapping[ClientId, Dataset], test: Dataset) -> str:
    """Hex SHA-256 of the configuration without its rounds, and of the data."""
    digest = hashlib.sha256(config.with_overrides(rounds=1).digest().encode())
    for data in (*clients.values(), test):
        digest.update(model_hash({"inputs": data.inputs, "targets": data.targets}))
    return digest.hexdigest()


def workload_of(
    config: Config, chosen: SplitConfig, seeds: SeedTree
) -> tuple[nn.Module, dict[ClientId, Dataset], Dataset]:
    """The model with its initial parameters, every client's examples, the test examples; fixed by the seeds."""
    if not chosen.series:
        workload = prepare(config)
        clients = {PartyId(at): workload.train.subset(rows) for at, rows in enumerate(workload.rows, start=1)}
        return workload.model, clients, workload.test
    train, test = _SERIES
    whole = ecg_like(train + test, seeds.child("series"))
    data, held_out = whole.subset(np.arange(train)), whole.subset(np.arange(train, train + test))
    rows = divide(config.data, data, seeds.child("partition"))
    model = models.build(series_model, input_shape=data.input_shape, classes=data.classes, seeds=seeds.child("model"))
    return model, {PartyId(at): data.subset(each) for at, each in enumerate(rows, start=1)}, held_out


def _pictures(view: NDArray[np.float64], data: Dataset, seeds: SeedTree) -> Reconstruction:
    """The first test examples, and the network's guesses of them from pairs that are all the others'."""
    inputs = data.inputs.reshape(len(data), -1).astype(np.float64)
    _, guesses = decode(view[_PICTURES:], inputs[_PICTURES:], view[:_PICTURES], seeds)
    shape = data.inputs[:_PICTURES].shape
    return Reconstruction(data.inputs[:_PICTURES], guesses.astype(np.float32).reshape(shape))
