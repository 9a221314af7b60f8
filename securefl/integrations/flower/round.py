"""The sums of one call of ``send_and_receive``: what goes to whom, and what the strategy gets back."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from securefl.errors import (
    ConfigurationError,
    DecodeError,
    PrivacyBudgetExceededError,
    SecureFLError,
    TooFewClientsError,
)
from securefl.fl.interfaces import LostRoundError
from securefl.integrations.coordinator import Coordinator
from securefl.integrations.flower.exchange import replies_to
from securefl.integrations.flower.privacy import noise_terms
from securefl.integrations.flower.records import (
    KEY,
    arguments_hash,
    content_bytes,
    frames_of,
    put_frames,
    tensors_of,
)
from securefl.integrations.flower.report import RoundReport
from securefl.integrations.tensors import arrays_hash, floating, layout_of
from securefl.integrations.vector import Means
from securefl.types import ClientId, PartyId

if TYPE_CHECKING:
    from securefl.integrations.flower.grid import SecureGrid

__all__ = ["Round"]

_LOG: Final = logging.getLogger("flwr")  # where a ServerApp's lines go
_CODE: Final = 0  # Flower's "unknown": none of its own reasons


class Round:
    """The sums of one call: ``groups`` of them, their exchanges side by side."""

    def __init__(
        self, grid: SecureGrid, requests: dict[int, Message], kind: str, weight_key: str, timeout: float | None
    ) -> None:
        self._grid, self._requests, self._kind, self._weight_key = grid, requests, kind, weight_key
        self._timeout = timeout
        self._settings = grid.settings
        self._model_key, self._model, self._arguments = self._common()
        self._summed = floating(self._model, self._settings.keep)
        self._started = grid.patience.now()
        self._request_bytes = self._reply_bytes = self._exchanges = 0
        self._number = grid.next_sum()
        self._privacy = grid.privacy

    def _common(self) -> tuple[str, dict[str, Any], bytes]:
        """The one model and configuration that all clients get."""
        contents = {id(message.content): message.content for message in self._requests.values()}
        models = [self._one_model(content) for content in contents.values()]
        key, tensors = models[0]
        arguments = [arguments_hash(content.config_records) for content in contents.values()]
        names = {(key, arrays_hash(tensors)) for key, tensors in models}
        if len(names) > 1 or len(set(arguments)) > 1:
            raise ConfigurationError("the clients of a round must get the same model and the same configuration")
        return key, tensors, arguments[0]

    @staticmethod
    def _one_model(content: RecordDict) -> tuple[str, dict[str, Any]]:
        if len(content.array_records) != 1:
            raise ConfigurationError(f"a round's messages carry one ArrayRecord, not {len(content.array_records)}")
        ((key, record),) = content.array_records.items()
        return key, tensors_of(record)

    def run(self) -> list[Message]:
        sums, replies = [], []
        layout = layout_of(self._summed) if self._kind == "train" else ()
        for at, nodes in enumerate(self._settings.split(list(self._requests))):
            try:
                invitation = self._settings.invitation(
                    self._kind,
                    self._grid.session + at.to_bytes(2, "big"),
                    self._number,
                    len(nodes),
                    weight_key=self._weight_key,
                    layout=layout,
                    model_hash=arrays_hash(self._model),
                    arguments_hash=self._arguments,
                    noise=noise_terms(self._privacy),
                )
                if self._privacy is not None:
                    self._privacy.before(self._number)
                sums.append(OneSum(Coordinator(invitation), nodes))
            except (TooFewClientsError, PrivacyBudgetExceededError, LostRoundError) as error:
                replies += self._errors(nodes, error)
                self._report((), dict.fromkeys(nodes, "not invited"), error, {}, None)
        if sums:
            self._exchange_all(sums)
        for one in sums:
            replies += self._finish(one)
        return replies

    def _exchange_all(self, sums: Sequence[OneSum]) -> None:
        invited = [
            self._message(one, client, {"invitation": one.coordinator.invitation.encode(), "me": int(client)}, [])
            for one in sums
            for client in one.nodes
        ]
        self._exchange(sums, invited)
        while not all(one.coordinator.over for one in sums):
            outgoing = []
            for one in sums:
                for client, frames in one.coordinator.close().items():
                    if client not in one.coordinator.failures:
                        outgoing.append(self._message(one, client, {}, frames))
            if outgoing:
                self._exchange(sums, outgoing)

    def _message(self, one: OneSum, client: ClientId, fields: dict[str, Any], frames: Sequence[Any]) -> Message:
        """The next message to a client: the strategy's own content too, when the vector is due."""
        request = self._requests[one.nodes[client]]
        due = one.coordinator.exchange == one.coordinator.vector_exchange
        content = RecordDict(dict(request.content) if due else {})
        content[KEY] = ConfigRecord({**fields, "model": due})
        put_frames(content, frames)
        metadata = request.metadata
        return Message(
            content,
            dst_node_id=metadata.dst_node_id,
            message_type=metadata.message_type,
            group_id=metadata.group_id,
            ttl=metadata.ttl,
        )

    def _exchange(self, sums: Sequence[OneSum], outgoing: list[Message]) -> None:
        """Send, and take answers until none is missing or time is up; who is missing then is dropped."""
        due = any(bool(message.content.config_records[KEY]["model"]) for message in outgoing)
        allowed = self._grid.step_seconds
        if due:
            limits = [limit for limit in (self._grid.train_seconds, self._timeout) if limit is not None]
            allowed = min(limits) if limits else 3600.0
        owner = {node: (one, client) for one in sums for client, node in one.nodes.items()}
        self._request_bytes += sum(content_bytes(message.content) for message in outgoing)
        self._exchanges += 1

        def missing() -> bool:
            return any(one.coordinator.waiting_for for one in sums)

        for node, reply in replies_to(self._grid.inner, outgoing, allowed, missing, self._grid.patience):
            one, client = owner[node]
            self._take(one, client, reply)

    def _take(self, one: OneSum, client: ClientId, reply: Message) -> None:
        if reply.has_error():
            one.coordinator.failed(client, (reply.error.reason or "error").strip().splitlines()[-1])
            return
        self._reply_bytes += content_bytes(reply.content)
        try:
            frames = frames_of(reply.content)
        except DecodeError as error:
            one.coordinator.failed(client, f"DecodeError: {error}")
            return
        one.coordinator.receive(client, frames)

    # ---- what the strategy gets -----------------------------------------------------------------------------

    def _finish(self, one: OneSum) -> list[Message]:
        coordinator = one.coordinator
        uploaded = {one.nodes[client]: size for client, size in coordinator.uploaded.items()}
        dropped = {one.nodes[client]: why for client, why in coordinator.dropped().items()}
        means, error = self._decoded(coordinator)
        if coordinator.result is None or means is None:
            error = TooFewClientsError("the sum did not end") if error is None else error
            self._report((), dropped, error, uploaded, None)
            return self._errors(list(one.nodes.values()), error)
        survivors = tuple(one.nodes[client] for client in coordinator.result.survivors)
        self._report(survivors, dropped, None, uploaded, means)
        lost = [node for node in one.nodes.values() if node not in survivors]
        arrays = {name: Array(self._moved(name, array, means)) for name, array in self._model.items()}
        return [self._mean_reply(node, means, arrays) for node in survivors] + [
            Message(Error(_CODE, f"left the sum: {dropped[node]}"), reply_to=self._requests[node]) for node in lost
        ]

    def _decoded(self, coordinator: Coordinator) -> tuple[Means | None, Exception | None]:
        """The means; under differential privacy only after their charge is on disk."""
        if coordinator.result is None:
            return None, coordinator.error
        coder = coordinator.coder
        try:
            if self._privacy is None:
                return coder.decode(coordinator.result), None
            self._privacy.charge(self._number, coder.coder, coordinator.result)
            means = coder.decode(coordinator.result)
            digest = hashlib.sha256(b"".join(tensor.tobytes() for tensor in means.update.values())).digest()
            self._privacy.released(self._number, coder.coder, digest)
        except SecureFLError as error:
            return None, error
        return means, None

    def _mean_reply(self, node: int, means: Means, arrays: Mapping[str, Array]) -> Message:
        weight = means.total_weight / means.survivors
        content = RecordDict({"metrics": MetricRecord({self._weight_key: weight, **means.metrics})})
        if self._kind == "train":
            content[self._model_key] = ArrayRecord(dict(arrays))
        return Message(content, reply_to=self._requests[node])

    def _moved(self, name: str, array: Any, means: Means) -> Any:
        if name not in means.update:
            return array
        moved = array.astype(np.float64) + means.update[name]
        return moved.astype(array.dtype)

    def _errors(self, nodes: Iterable[int], error: Exception) -> list[Message]:
        reason = f"{type(error).__name__}: {error}"
        return [Message(Error(_CODE, reason), reply_to=self._requests[node]) for node in nodes]

    def _report(
        self,
        survivors: tuple[int, ...],
        dropped: Mapping[int, str],
        error: Exception | None,
        uploaded: Mapping[int, int],
        means: Means | None,
    ) -> None:
        report = RoundReport(
            kind=self._kind,
            clients=len(survivors) + len(dropped),
            survivors=survivors,
            dropped=dropped,
            failed=None if error is None else f"{type(error).__name__}: {error}",
            total_weight=0 if means is None else means.total_weight,
            exchanges=self._exchanges,
            upload_bytes=uploaded,
            request_bytes=self._request_bytes,
            reply_bytes=self._reply_bytes,
            seconds=self._grid.patience.now() - self._started,
            metrics={} if means is None else means.metrics,
        )
        self._grid.reports.append(report)
        _LOG.info("%s", report)
        for node, why in dropped.items():
            _LOG.info("\t> node %d left the sum: %s", node, why)


class OneSum:
    """One sum and its nodes: client id → node id."""

    def __init__(self, coordinator: Coordinator, nodes: Sequence[int]) -> None:
        self.coordinator = coordinator
        self.nodes: dict[ClientId, int] = {PartyId(at): node for at, node in enumerate(nodes, start=1)}
