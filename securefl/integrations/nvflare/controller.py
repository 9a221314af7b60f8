"""The server's side of an NVFLARE job: federated averaging in which the server sees the sum only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from nvflare.apis.fl_constant import FLMetaKey, ReturnCode
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.workflows.model_controller import ModelController

from securefl.errors import ConfigurationError, DecodeError, SecureFLError, TooFewClientsError
from securefl.integrations.coordinator import Coordinator
from securefl.integrations.nvflare.client import FRAMES, TASK, error_of, frames_in
from securefl.integrations.settings import Settings
from securefl.integrations.tensors import arrays_hash, floating, layout_of
from securefl.integrations.vector import Means
from securefl.types import ClientId, PartyId, Tensors
from securefl.wire import Buffer

__all__ = ["MaskedFedAvg"]

_NO_ARGUMENTS = bytes(32)


class MaskedFedAvg(ModelController):  # type: ignore[misc]  # nvflare is not in the checking environment
    """Federated averaging under a protected sum.

    ``num_rounds``: of training. ``model``: name → array or nested list, the initial model; by default the persistor's.
    ``num_clients``: of a round; all by default. ``train_task``: the application's task. ``step_seconds``,
    ``train_seconds``: how long clients may take for keys and shares, and for training. ``settings``: the fields of
    :class:`~securefl.integrations.settings.Settings`, by name.

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
    ) -> None:
        super().__init__(persistor_id=persistor_id, ignore_result_error=True, task_check_period=0.1)
        # under the arguments' names: NVFLARE writes components into the job's configuration
        self.num_rounds, self.model, self.num_clients, self.train_task = num_rounds, model, num_clients, train_task
        self.step_seconds, self.train_seconds, self.settings = step_seconds, train_seconds, settings
        self.persistor_id = persistor_id
        self._current: tuple[Coordinator, dict[ClientId, str]] | None = None
        Settings(**(settings or {}))

    def run(self) -> None:
        """The job: rounds of protected sums."""
        self._session = os.urandom(16)
        self.reports: list[dict[str, Any]] = []
        settings = Settings(**(self.settings or {}))
        tensors = self._initial()
        for number in range(1, self.num_rounds + 1):
            if self.abort_signal.triggered:
                return
            started = time.monotonic()
            try:
                means, report = self._round(settings, tensors, number)
            except TooFewClientsError as error:
                means, report = None, {"survivors": [], "failed": f"TooFewClientsError: {error}"}
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

    @staticmethod
    def _moved(value: Any, mean: Any) -> Any:
        return value if mean is None else (value.astype(np.float64) + mean).astype(value.dtype)

    # ---- one round ------------------------------------------------------------------------------------------

    def _round(self, settings: Settings, tensors: dict[str, Any], number: int) -> tuple[Means | None, dict[str, Any]]:
        names = sorted(str(getattr(client, "name", client)) for client in self.sample_clients(self.num_clients))
        sites = {PartyId(at): name for at, name in enumerate(names, start=1)}
        summed: Tensors = floating(tensors, settings.keep)
        coordinator = Coordinator(
            settings.invitation(
                "train",
                self._session,
                number,
                len(sites),
                weight_key=str(FLMetaKey.NUM_STEPS_CURRENT_ROUND),
                layout=layout_of(summed),
                model_hash=arrays_hash(tensors),
                arguments_hash=_NO_ARGUMENTS,
            )
        )
        self._current = coordinator, sites
        invitation = coordinator.invitation.encode()
        invited = {client: {"invitation": invitation, "me": int(client)} for client in sites}
        self._exchange(coordinator, sites, {client: [] for client in sites}, tensors, invited)
        while not coordinator.over:
            deliveries = coordinator.close()
            alive = {client: frames for client, frames in deliveries.items() if client not in coordinator.failures}
            if alive:
                self._exchange(coordinator, sites, alive, tensors, {})
        report = {
            "survivors": [sites[c] for c in coordinator.result.survivors] if coordinator.result else [],
            "dropped": {sites[client]: why for client, why in coordinator.dropped().items()},
            "failed": None,
            "exchanges": coordinator.exchange,
            "upload_bytes": {sites[client]: size for client, size in sorted(coordinator.uploaded.items())},
        }
        if coordinator.result is None:
            return None, {**report, "failed": f"{type(coordinator.error).__name__}: {coordinator.error}"}
        try:
            return coordinator.coder.decode(coordinator.result), report
        except SecureFLError as error:
            return None, {**report, "failed": f"{type(error).__name__}: {error}"}

    def _exchange(
        self,
        coordinator: Coordinator,
        sites: dict[ClientId, str],
        deliveries: dict[ClientId, list[Buffer]],
        tensors: dict[str, Any],
        fields: dict[ClientId, dict[str, Any]],
    ) -> None:
        """One task per client, since each gets its own frames; then wait for the answers."""
        due = coordinator.due
        seconds = self.train_seconds if due else self.step_seconds
        deadline = time.monotonic() + seconds
        for client, frames in deliveries.items():
            meta = dict(fields.get(client, {}))
            data = {str(at): np.frombuffer(frame, dtype=np.uint8) for at, frame in enumerate(frames)}
            if due:
                meta[FRAMES] = [bytes(frame) for frame in frames]
            model = FLModel(
                params_type=ParamsType.FULL if due else ParamsType.DIFF,
                params=dict(tensors) if due else data or {"0": np.empty(0, dtype=np.uint8)},
                current_round=coordinator.invitation.round,
                total_rounds=self.num_rounds,
                meta=meta,
            )
            task = self.train_task if due else TASK
            take = self._taker(coordinator, client)
            self.send_model(task_name=task, data=model, targets=[sites[client]], timeout=seconds, callback=take)
        while coordinator.waiting_for and time.monotonic() < deadline and not self.abort_signal.triggered:
            time.sleep(self._task_check_period)
        self.cancel_all_tasks()

    def _taker(self, coordinator: Coordinator, client: ClientId) -> Callable[[FLModel], bool]:
        exchange = coordinator.exchange

        def take(answer: FLModel) -> bool:
            if coordinator.exchange != exchange:
                return False  # too late: the exchange was closed without this client
            try:
                coordinator.receive(client, frames_in(answer.params))
            except DecodeError as error:
                coordinator.failed(client, f"DecodeError: {error}")
            return True

        return take

    def _accept_train_result(self, client_name: str, result: Any, fl_ctx: Any, is_unknown_task: bool = False) -> bool:
        """Note at once who answered with an error, so that nobody waits for it."""
        if result.get_return_code() != ReturnCode.OK and not is_unknown_task:
            self._refused(client_name, error_of(result) or str(result.get_return_code()))
        return bool(super()._accept_train_result(client_name, result, fl_ctx, is_unknown_task))

    def _refused(self, client_name: str, reason: str) -> None:
        if self._current is not None:
            coordinator, sites = self._current
            for client, name in sites.items():
                if name == client_name:
                    coordinator.failed(client, reason)
