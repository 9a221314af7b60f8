"""The sums of one call of ``send_and_receive``: what goes to whom, and what the strategy gets back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from flwr.app import ConfigRecord, Message, RecordDict

from securefl.errors import (
    ConfigurationError,
    DecodeError,
    LostPartyError,
    PrivacyBudgetExceededError,
    TooFewClientsError,
)
from securefl.fl.interfaces import LostRoundError
from securefl.integrations.coordinator import Coordinator, Deliveries
from securefl.integrations.flower.exchange import replies_to
from securefl.integrations.flower.records import (
    KEY,
    arguments_hash,
    content_bytes,
    frames_of,
    put_frames,
    tensors_of,
)
from securefl.integrations.flower.replies import Replies
from securefl.integrations.flower.report import RoundReport
from securefl.integrations.peers import HELPER
from securefl.integrations.privacy import noise_terms, released
from securefl.integrations.roll import NO_NAMES
from securefl.integrations.tensors import arrays_hash, floating, layout_of
from securefl.integrations.vector import Means
from securefl.types import PartyId

if TYPE_CHECKING:
    from securefl.integrations.flower.grid import SecureGrid

__all__ = ["Round"]

_LOG: Final = logging.getLogger("flwr")  # where a ServerApp's lines go


class Round:
    """The sums of one call: ``groups`` of them, their exchanges side by side."""

    def __init__(
        self, grid: SecureGrid, requests: dict[int, Message], kind: str, weight_key: str, timeout: float | None
    ) -> None:
        self._grid, self._requests, self._kind, self._weight_key = grid, requests, kind, weight_key
        self._timeout = timeout
        self._settings = grid.settings
        model_key, self._model, self._arguments = self._common()
        self._replies = Replies(requests, model_key if kind == "train" else None, self._model, weight_key)
        self._summed = floating(self._model, self._settings.keep)
        self._started = grid.patience.now()
        self._request_bytes = self._reply_bytes = self._exchanges = 0
        self._number = grid.next_sum()
        self._privacy = grid.privacy
        self._compressor = grid.compressor if kind == "train" else None

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
        present = self._grid.muster.call(self._requests) if self._settings.named else list(self._requests)
        self._absent = [node for node in self._requests if node not in present]
        if self._absent:
            replies += self._replies.errors(self._absent, TooFewClientsError("did not answer the roll call"))
        for at, nodes in enumerate(self._settings.split(present)):
            try:
                helper = self._grid.muster.helper() if self._settings.helped else None
                names = self._grid.muster.names(nodes, helper) if self._settings.named else NO_NAMES
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
                    compression=None if self._compressor is None else self._compressor.terms,
                    names=names,
                )
                if self._privacy is not None:
                    self._privacy.before(self._number)
                sums.append(OneSum(Coordinator(invitation, self._grid.identity), nodes, helper))
            except (TooFewClientsError, PrivacyBudgetExceededError, LostRoundError, LostPartyError) as error:
                replies += self._replies.errors(nodes, error)
                self._report((), dict.fromkeys(nodes, "not invited"), error, {}, None)
        if sums:
            self._exchange_all(sums)
        for one in sums:
            replies += self._finish(one)
        return replies

    def _exchange_all(self, sums: Sequence[OneSum]) -> None:
        self._deliver(sums, {id(one): one.coordinator.begin() for one in sums})
        while not all(one.coordinator.over for one in sums):
            self._deliver(sums, {id(one): one.coordinator.close() for one in sums})

    def _deliver(self, sums: Sequence[OneSum], deliveries: Mapping[int, Deliveries]) -> None:
        outgoing = [
            self._message(one, party, frames)
            for one in sums
            for party, frames in deliveries[id(one)].items()
            if party not in one.coordinator.failures
        ]
        if outgoing:
            self._exchange(sums, outgoing)

    def _message(self, one: OneSum, party: PartyId, frames: Sequence[Any]) -> Message:
        """The next message to a party: the strategy's own content too, when the vector is due."""
        coordinator, node = one.coordinator, one.nodes[party]
        request = self._requests.get(node) or next(iter(self._requests.values()))
        fields: dict[str, Any] = {"model": coordinator.takes_model(party)}
        if coordinator.first_contact(party):
            fields |= {"invitation": coordinator.invitation.encode(), "me": int(party)}
            fields["counted"] = self._grid.counted.get(node, 0)
        content = RecordDict(dict(request.content) if fields["model"] else {})
        content[KEY] = ConfigRecord(fields)
        put_frames(content, frames)
        metadata = request.metadata
        return Message(
            content,
            dst_node_id=node,
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

    def _take(self, one: OneSum, client: PartyId, reply: Message) -> None:
        if reply.has_error():
            self._grid.muster.forget(one.nodes[client])
            one.coordinator.failed(client, reply.error.reason or "")
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
        uploaded = {one.nodes[party]: size for party, size in coordinator.uploaded.items() if party != HELPER}
        dropped = {one.nodes[client]: why for client, why in coordinator.dropped().items()}
        means, error = released(coordinator, self._privacy, self._number)
        if self._compressor is not None:
            self._compressor.learn(None if means is None else coordinator.coder.scale)
        if coordinator.result is None or means is None:
            error = TooFewClientsError("the sum did not end") if error is None else error
            self._report((), dropped, error, uploaded, None)
            return self._replies.errors(one.clients, error)
        survivors = tuple(one.nodes[client] for client in coordinator.result.survivors)
        self._report(survivors, dropped, None, uploaded, means)
        if self._compressor is not None:
            self._grid.counted |= dict.fromkeys(survivors, self._number)
        return self._replies.means(means, survivors, dropped)

    def _report(
        self,
        survivors: tuple[int, ...],
        dropped: Mapping[int, str],
        error: Exception | None,
        uploaded: Mapping[int, int],
        means: Means | None,
    ) -> None:
        dropped = {**dropped, **dict.fromkeys(self._absent, "did not answer the roll call")}
        self._absent = []  # in one report of the round
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
    """One sum and its nodes: party id → node id. ``clients``: the clients' nodes."""

    def __init__(self, coordinator: Coordinator, nodes: Sequence[int], helper: int | None) -> None:
        self.coordinator, self.clients = coordinator, tuple(nodes)
        self.nodes: dict[PartyId, int] = {PartyId(at): node for at, node in enumerate(nodes, start=1)}
        if helper is not None:
            self.nodes[HELPER] = helper
