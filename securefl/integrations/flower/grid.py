"""The server's side: a Grid that runs a protected sum under every training and evaluation round of a strategy.

``Strategy.start`` hands the round's messages to ``send_and_receive`` and gets replies back. Here each of these calls is
one round of sums: the same messages go out when the clients' vectors are due, and every survivor's reply carries the
mean. So strategies that work on weighted means run as they are. A round that fails gives replies with the error, which
strategies take as failures of the clients; the next round goes its way.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from securefl.errors import ConfigurationError, DecodeError, SecureFLError, TooFewClientsError
from securefl.integrations.coordinator import Coordinator
from securefl.integrations.flower.records import (
    KEY,
    arguments_hash,
    content_bytes,
    frames_of,
    put_frames,
    tensors_of,
)
from securefl.integrations.flower.strategies import calling_strategy, check_strategy
from securefl.integrations.settings import Settings
from securefl.integrations.tensors import arrays_hash, floating, layout_of
from securefl.integrations.vector import Means
from securefl.types import ClientId, PartyId

__all__ = ["RoundReport", "SecureGrid"]

_LOG: Final = logging.getLogger("flwr")  # where a ServerApp's lines go
_CODE: Final = 0  # Flower's "unknown": none of its own reasons
_IDLE_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One call of ``send_and_receive`` as the server saw it.

    ``survivors``: node ids in the sums. ``dropped``: node id → why. ``failed``: why there is no mean, or ``None``.
    ``total_weight``: of the survivors. ``exchanges``: request and reply with the clients. ``upload_bytes``: frames per
    node. ``reply_bytes``, ``request_bytes``: whole message contents, all nodes together.
    ``seconds``: wall clock. ``metrics``: the weighted means.
    """

    kind: str
    clients: int
    survivors: tuple[int, ...]
    dropped: Mapping[int, str]
    failed: str | None
    total_weight: int
    exchanges: int
    upload_bytes: Mapping[int, int] = field(repr=False)
    request_bytes: int
    reply_bytes: int
    seconds: float
    metrics: Mapping[str, float]

    def __str__(self) -> str:
        head = f"securefl {self.kind}: {len(self.survivors)} of {self.clients} clients in the sum"
        if self.failed:
            head = f"securefl {self.kind}: no sum: {self.failed}"
        mean = sum(self.upload_bytes.values()) / max(1, len(self.upload_bytes))
        return f"{head}, {self.exchanges} exchanges, {mean:,.0f} B up per client, {self.seconds:.1f} s"


class SecureGrid(Grid):  # type: ignore[misc]  # flwr is not in the checking environment
    """``grid``: the ServerApp's. Keyword arguments: those of :class:`~securefl.integrations.settings.Settings`, and

    ``step_seconds``: how long an exchange of keys or shares may take. ``train_seconds``: how long clients may take from
    the model to their vector; by default the timeout that the strategy passes. ``poll_seconds``: between two looks for
    replies. ``strategy``: which strategy asks, if it is not the one whose ``start`` is running.

    ``reports`` has one :class:`RoundReport` per round and evaluation. Raises :class:`ConfigurationError` for settings
    that cannot work, before anything is sent.
    """

    def __init__(
        self,
        grid: Grid,
        *,
        step_seconds: float = 120.0,
        train_seconds: float | None = None,
        poll_seconds: float = 0.25,
        strategy: Any = None,
        **settings: Any,
    ) -> None:
        unknown = sorted(settings.keys() - Settings.__dataclass_fields__.keys())
        if unknown:
            raise ConfigurationError(f"SecureGrid knows no {unknown[0]!r}")
        self._grid = grid
        self._settings = Settings(**settings)
        self._step_seconds, self._train_seconds, self._poll = step_seconds, train_seconds, poll_seconds
        self._strategy = strategy
        self._session = os.urandom(16)
        self._sums = 0
        self._asked_since: float | None = None
        self.reports: list[RoundReport] = []

    # ---- what is handed through -----------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        return self._grid.create_message(*arguments, **named)

    def get_nodes(self) -> Iterable[Any]:
        nodes: Iterable[Any] = self._grid.get_nodes()
        return nodes

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are there. A strategy that waits for more of them waits five minutes, not for ever."""
        now = time.monotonic()
        self._asked_since = now if self._asked_since is None else self._asked_since
        if now - self._asked_since > _IDLE_SECONDS:
            raise TooFewClientsError(
                f"the strategy has waited {_IDLE_SECONDS:.0f} s for more nodes than are there: lower "
                "min_available_nodes, or start more"
            )
        ids: Iterable[int] = self._grid.get_node_ids()
        return ids

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As they are, without protection; clients with SecureMod refuse them unless their policy permits."""
        identities: Iterable[str] = self._grid.push_messages(messages)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies: Iterable[Message] = self._grid.pull_messages(message_ids)
        return replies

    # ---- a round --------------------------------------------------------------------------------------------

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """One round of sums over the messages' nodes: one reply per survivor, which carries its sum's mean.

        Raises :class:`ConfigurationError` for a strategy that needs individual updates, and for messages that are not
        one model and one configuration for all. A sum that fails is no exception: its clients' replies are errors.
        """
        requests = {message.metadata.dst_node_id: message for message in messages}
        self._asked_since = None
        if not requests:
            return []
        kinds = {message.metadata.message_type for message in requests.values()}
        kind = next(iter(kinds)).split(".", maxsplit=1)[0]
        if len(kinds) > 1 or kind not in ("train", "evaluate"):
            raise ConfigurationError(f"SecureGrid sums train and evaluate messages, not {', '.join(sorted(kinds))}")
        strategy = self._strategy or calling_strategy()
        check_strategy(strategy, self._settings.groups)
        if kind == "evaluate" and not self._settings.evaluate_metrics:
            raise ConfigurationError(
                "an evaluation would send each client's metrics in the clear: name those to be summed and their "
                "bounds in SecureGrid(evaluate_metrics=…), or switch it off with fraction_evaluate=0.0"
            )
        return _Round(self, requests, kind, getattr(strategy, "weighted_by_key", "num-examples"), timeout).run()

    def next_sum(self) -> int:
        """A number that no sum of this run had."""
        self._sums += 1
        return self._sums


class _Round:
    """The sums of one call: ``groups`` of them, their exchanges side by side."""

    def __init__(
        self, grid: SecureGrid, requests: dict[int, Message], kind: str, weight_key: str, timeout: float | None
    ) -> None:
        self._grid, self._requests, self._kind, self._weight_key = grid, requests, kind, weight_key
        self._timeout = timeout
        self._settings = grid._settings
        self._model_key, self._model, arguments = self._common()
        self._summed = floating(self._model, self._settings.keep)
        self._started = time.monotonic()
        self._request_bytes = self._reply_bytes = self._exchanges = 0
        self._arguments = arguments
        self._number = grid.next_sum()

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
                    self._grid._session + at.to_bytes(2, "big"),
                    self._number,
                    len(nodes),
                    weight_key=self._weight_key,
                    layout=layout,
                    model_hash=arrays_hash(self._model),
                    arguments_hash=self._arguments,
                )
                sums.append(_Sum(Coordinator(invitation), nodes))
            except TooFewClientsError as error:
                replies += self._errors(nodes, error)
                self._report((), dict.fromkeys(nodes, "not invited"), error, {}, None)
        if sums:
            self._exchange_all(sums)
        for one in sums:
            replies += self._finish(one)
        return replies

    def _exchange_all(self, sums: Sequence[_Sum]) -> None:
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

    def _message(self, one: _Sum, client: ClientId, fields: dict[str, Any], frames: Sequence[Any]) -> Message:
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

    def _exchange(self, sums: Sequence[_Sum], outgoing: list[Message]) -> None:
        """Send, and take answers until none is missing or time is up; who is missing then is dropped."""
        due = any(bool(message.content.config_records[KEY]["model"]) for message in outgoing)
        allowed = self._grid._step_seconds
        if due:
            limits = [limit for limit in (self._grid._train_seconds, self._timeout) if limit is not None]
            allowed = min(limits) if limits else 3600.0
        owner = {node: (one, client) for one in sums for client, node in one.nodes.items()}
        self._request_bytes += sum(content_bytes(message.content) for message in outgoing)
        self._exchanges += 1
        nodes = [message.metadata.dst_node_id for message in outgoing]
        pushed = list(self._grid.push_messages(outgoing))
        pending = {identity: node for identity, node in zip(pushed, nodes, strict=False) if identity}
        deadline = time.monotonic() + allowed  # once everything is on its way
        while pending:
            for reply in self._grid.pull_messages(list(pending)):
                node = pending.pop(reply.metadata.reply_to_message_id, None)
                if node is None:
                    continue
                one, client = owner[node]
                self._take(one, client, reply)
            if not any(one.coordinator.waiting_for for one in sums) or time.monotonic() >= deadline:
                break  # nobody is waited for after a notice that the session has ended
            time.sleep(self._grid._poll)

    def _take(self, one: _Sum, client: ClientId, reply: Message) -> None:
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

    def _finish(self, one: _Sum) -> list[Message]:
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

    @staticmethod
    def _decoded(coordinator: Coordinator) -> tuple[Means | None, Exception | None]:
        if coordinator.result is None:
            return None, coordinator.error
        try:
            return coordinator.coder.decode(coordinator.result), None
        except SecureFLError as error:
            return None, error

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
            seconds=time.monotonic() - self._started,
            metrics={} if means is None else means.metrics,
        )
        self._grid.reports.append(report)
        _LOG.info("%s", report)
        for node, why in dropped.items():
            _LOG.info("\t> node %d left the sum: %s", node, why)


class _Sum:
    """One sum and its nodes: client id → node id."""

    def __init__(self, coordinator: Coordinator, nodes: Sequence[int]) -> None:
        self.coordinator = coordinator
        self.nodes: dict[ClientId, int] = {PartyId(at): node for at, node in enumerate(nodes, start=1)}
