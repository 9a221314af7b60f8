"""The server's side of an NVFLARE job: federated averaging in which the server sees the sum only."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from nvflare.apis.fl_constant import FLMetaKey, ReturnCode
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.model_controller import ModelController

from securefl.errors import (
    ConfigurationError,
    LostPartyError,
    PrivacyBudgetExceededError,
    TooFewClientsError,
)
from securefl.fl.interfaces import LostRoundError
from securefl.integrations.compression import Compressor
from securefl.integrations.coordinator import Coordinator, Deliveries
from securefl.integrations.nvflare.carriage import COUNTED, FRAMES, HELLO, INVITATION, ME, error_of
from securefl.integrations.nvflare.tasks import Assignment, Tasks
from securefl.integrations.peers import HELPER, read_identity
from securefl.integrations.privacy import mechanism_of, noise_terms, released
from securefl.integrations.roll import NO_NAMES, Roll
from securefl.integrations.settings import Settings
from securefl.integrations.tensors import arrays_hash, floating, layout_of
from securefl.integrations.vector import Means
from securefl.primitives.identity import Identity
from securefl.types import PartyId, Tensors
from securefl.wire import Buffer

if TYPE_CHECKING:
    from securefl.fl.privacy import UserPrivacy  # brings pydantic

__all__ = ["MaskedFedAvg"]

_NO_ARGUMENTS: Final = bytes(32)
#: What a privacy budget is, beside the keys of [privacy]: see :class:`~securefl.fl.privacy.UserPrivacy`.
_PRIVACY: Final = ("population", "minimum_survivors", "ledger")


class MaskedFedAvg(ModelController):  # type: ignore[misc]  # nvflare is not in the checking environment
    """Federated averaging under a protected sum.

    ``num_rounds``: of training. ``model``: name → array or nested list, the initial model; by default the persistor's.
    ``num_clients``: of a round; all by default. ``train_task``: the application's task. ``step_seconds``,
    ``train_seconds``: how long clients may take for keys and shares, and for training. ``settings``: the fields of
    :class:`~securefl.integrations.settings.Settings`, by name. ``identity``: a file with the server's own key.
    ``privacy``: user-level differential privacy by distributed noise: keys of the configuration's [privacy], and
    ``population``, ``minimum_survivors``, and ``ledger``, the file of the privacy ledger.

    ``reports`` has one dict per round. A round with too few clients leaves the model as it is; the next one follows.
    """

    def __init__(
        self,
        num_rounds: int,
        model: dict[str, Any] | None = None,
        num_clients: int | None = None,
        train_task: str = "train",
        step_seconds: int = 60,
        train_seconds: int = 3600,
        persistor_id: str = "",
        settings: dict[str, Any] | None = None,
        identity: str | None = None,
        privacy: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(persistor_id=persistor_id, ignore_result_error=True, task_check_period=0.1)
        # under the arguments' names: NVFLARE writes components into the job's configuration
        self.num_rounds, self.model, self.num_clients, self.train_task = num_rounds, model, num_clients, train_task
        self.step_seconds, self.train_seconds, self.settings = step_seconds, train_seconds, settings
        self.persistor_id, self.identity, self.privacy = persistor_id, identity, privacy
        self._current: tuple[Coordinator, dict[PartyId, str]] | None = None
        if Settings(**(settings or {})).groups != 1:
            raise ConfigurationError("groups are for strategies that compare them: MaskedFedAvg averages")
        missing = [name for name in _PRIVACY if privacy is not None and name not in privacy]
        if missing:
            raise ConfigurationError(f"privacy needs {', '.join(_PRIVACY)}; without: {', '.join(missing)}")

    def run(self) -> None:
        """The job: rounds of protected sums."""
        self._session = os.urandom(16)
        self._own = Identity(os.urandom(32)) if self.identity is None else read_identity(Path(self.identity))
        self._roll: Roll[str] = Roll(self._own.public)
        self._silent: set[str] = set()  # sites that answered the roll call with something else
        self._counted: dict[str, int] = {}  # site → the last compressed sum that its vector is in
        asked = (self.settings or {}).get("compression")
        self._compressor = None if asked is None else Compressor(asked)
        self._tasks = Tasks(self, self.train_task, self._answered, self._failed)
        self.reports: list[dict[str, Any]] = []
        tensors = self._initial()
        privacy = self._opened_privacy(tensors)
        given = dict(self.settings or {})
        settings = Settings(**(given if privacy is None else {**given, "value_bits": privacy.mechanism.value_bits}))
        for number in range(1, self.num_rounds + 1):
            if self.abort_signal.triggered:
                return
            started = time.monotonic()
            try:
                means, report = self._round(settings, tensors, number, privacy)
            except (TooFewClientsError, LostPartyError, PrivacyBudgetExceededError, LostRoundError) as error:
                means, report = None, {"survivors": [], "failed": f"{type(error).__name__}: {error}"}
            report = {"round": number, **report, "seconds": round(time.monotonic() - started, 2)}
            if means is not None:
                tensors = {name: self._moved(value, means.update.get(name)) for name, value in tensors.items()}
                report |= {"total_weight": means.total_weight, "metrics": means.metrics}
            self.reports.append(report)
            self.info(f"securefl round {report}")
            self.after_round(number, tensors, report)
            self.save_model(FLModel(params_type=ParamsType.FULL, params=tensors, current_round=number))

    def after_round(self, number: int, tensors: dict[str, Any], report: dict[str, Any]) -> None:
        """Called after each round with the global model; for subclasses."""

    def _initial(self) -> dict[str, Any]:
        given = self.model
        if given is None:
            loaded = self.load_model()
            given = loaded.params if loaded is not None else None
        if not given:
            raise ConfigurationError("MaskedFedAvg needs an initial model: pass model=…, or a persistor's id")
        return {
            name: np.asarray(value, dtype=np.float32) if isinstance(value, list) else np.asarray(value)
            for name, value in given.items()
        }

    def _opened_privacy(self, tensors: dict[str, Any]) -> UserPrivacy | None:
        if self.privacy is None:
            return None
        from securefl.fl.config import PrivacyConfig
        from securefl.fl.privacy import UserPrivacy

        given, settings = dict(self.privacy), self.settings or {}
        population, survivors, ledger = (given.pop(name) for name in _PRIVACY)
        privacy = UserPrivacy(
            PrivacyConfig(**given),
            dimension=sum(value.size for value in floating(tensors, settings.get("keep", ())).values()),
            population=population,
            minimum_survivors=survivors,
            rounds=self.num_rounds,
            value_bits=settings.get("value_bits", Settings().value_bits),
        )
        mechanism_of(privacy, settings)
        privacy.open(Path(ledger), self._session.hex())
        return privacy

    @staticmethod
    def _moved(value: Any, mean: Any) -> Any:
        return value if mean is None else (value.astype(np.float64) + mean).astype(value.dtype)

    # ---- one round ------------------------------------------------------------------------------------------

    def _round(
        self, settings: Settings, tensors: dict[str, Any], number: int, privacy: UserPrivacy | None
    ) -> tuple[Means | None, dict[str, Any]]:
        names, helper = self._muster(settings)
        sites = {PartyId(at): name for at, name in enumerate(names, start=1)}
        summed: Tensors = floating(tensors, settings.keep)
        invitation = settings.invitation(
            "train",
            self._session,
            number,
            len(sites),
            weight_key=str(FLMetaKey.NUM_STEPS_CURRENT_ROUND),
            layout=layout_of(summed),
            model_hash=arrays_hash(tensors),
            arguments_hash=_NO_ARGUMENTS,
            noise=noise_terms(privacy),
            compression=None if self._compressor is None else self._compressor.terms,
            names=self._roll.names(names, helper) if settings.named else NO_NAMES,
        )
        if privacy is not None:
            privacy.before(number)
        coordinator = Coordinator(invitation, self._own)
        if helper is not None:
            sites[HELPER] = helper
        self._current = coordinator, sites
        deliveries = coordinator.begin()
        while not coordinator.over:
            self._exchange(coordinator, sites, deliveries, tensors)
            deliveries = coordinator.close()
        self._exchange(coordinator, sites, deliveries, tensors)  # notices that the session has ended
        survivors = [sites[c] for c in coordinator.result.survivors] if coordinator.result else []
        report = {
            "survivors": survivors,
            "dropped": {sites[client]: why for client, why in coordinator.dropped().items()},
            "failed": None,
            "exchanges": coordinator.exchange,
            "upload_bytes": {sites[p]: n for p, n in sorted(coordinator.uploaded.items()) if p != HELPER},
        }
        means, error = released(coordinator, privacy, number)
        if self._compressor is not None:
            self._compressor.learn(None if means is None else coordinator.coder.scale)
            self._counted |= dict.fromkeys(survivors if means is not None else (), number)
        if means is None:
            return None, {**report, "survivors": [], "failed": f"{type(error).__name__}: {error}"}
        return means, report

    def _muster(self, settings: Settings) -> tuple[list[str], str | None]:
        """The sites of a round, and the helper: by a roll call, where sums name their parties."""
        wanted = self.num_clients if not settings.helped else None
        present = sorted(str(getattr(client, "name", client)) for client in self.sample_clients(wanted))
        if not settings.named:
            return present, None
        unknown, self._current = set(self._roll.unknown(present)), None
        if unknown:
            asked = [Assignment(site, meta={HELLO: True}) for site in sorted(unknown)]
            self._tasks.run(asked, self.step_seconds, lambda: bool(self._roll.unknown(unknown - self._silent)), (0, 0))
        clients, helpers = self._roll.clients(present), self._roll.helpers(present)
        if not settings.helped:
            return clients, None
        if len(helpers) != 1:
            raise LostPartyError(
                f'{len(helpers)} sites are helpers and this sum needs one: job.to(ProtocolExecutor(role="helper"), …)',
                HELPER,
            )
        if self.num_clients is not None and self.num_clients < len(clients):
            clients = sorted(secrets.SystemRandom().sample(clients, self.num_clients))
        return clients, helpers[0]

    def _exchange(
        self,
        coordinator: Coordinator,
        sites: dict[PartyId, str],
        deliveries: Deliveries,
        tensors: dict[str, Any],
    ) -> None:
        """One task per party, since each gets its own frames; then wait for the answers."""
        due, assignments = coordinator.due, []
        for party, frames in deliveries.items():
            if party in coordinator.failures:
                continue
            model, meta = dict(tensors) if coordinator.takes_model(party) else None, {}
            if coordinator.first_contact(party):
                meta = {INVITATION: coordinator.invitation.encode(), ME: int(party)}
                meta[COUNTED] = self._counted.get(sites[party], 0)
            if model is not None:
                meta[FRAMES] = [bytes(frame) for frame in frames]
            assignments.append(Assignment(sites[party], tuple(frames), meta, model))
        if assignments:
            seconds = self.train_seconds if due else self.step_seconds
            rounds = coordinator.invitation.round, self.num_rounds
            self._tasks.run(assignments, seconds, lambda: bool(coordinator.waiting_for), rounds)

    def _answered(self, site: str, frames: list[Buffer]) -> None:
        if self._current is None:
            public, role = (bytes(frame) for frame in (*frames, b"", b"")[:2])
            if not self._roll.heard(site, public, role.decode("ascii", "replace")):
                self._silent.add(site)
            return
        coordinator, sites = self._current
        for party, name in sites.items():
            if name == site:
                coordinator.receive(party, frames)

    def _failed(self, site: str, why: str) -> None:
        if self._current is None:
            self._silent.add(site)
            return
        coordinator, sites = self._current
        for party, name in sites.items():
            if name == site:
                coordinator.failed(party, why)

    def _accept_train_result(self, client_name: str, result: Any, fl_ctx: Any, is_unknown_task: bool = False) -> bool:
        """Note at once who answered with an error, so that nobody waits for it."""
        if result.get_return_code() != ReturnCode.OK and not is_unknown_task:
            self._tasks.refused(client_name, error_of(result) or str(result.get_return_code()))
        return bool(super()._accept_train_result(client_name, result, fl_ctx, is_unknown_task))
