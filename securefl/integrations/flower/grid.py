"""The server's side: a Grid that runs a protected sum under every training and evaluation round of a strategy.

``Strategy.start`` hands the round's messages to ``send_and_receive`` and gets replies back. Here each of these calls is
one round of sums: the same messages go out when the clients' vectors are due, and every survivor's reply carries the
mean. So strategies that work on weighted means run as they are. A round that fails gives replies with the error, which
strategies take as failures of the clients; the next round goes its way.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flwr.app import Message
from flwr.serverapp import Grid

from securefl.errors import ConfigurationError, TooFewClientsError
from securefl.integrations.compression import Compressor
from securefl.integrations.flower.exchange import Patience
from securefl.integrations.flower.muster import Muster
from securefl.integrations.flower.report import RoundReport
from securefl.integrations.flower.round import Round
from securefl.integrations.flower.strategies import calling_strategy, check_strategy, momentum_of
from securefl.integrations.peers import read_identity
from securefl.integrations.privacy import mechanism_of
from securefl.integrations.settings import Settings
from securefl.primitives.identity import Identity

if TYPE_CHECKING:
    from securefl.fl.privacy import UserPrivacy  # brings pydantic

__all__ = ["SecureGrid"]

_IDLE_SECONDS: Final = 300.0


class SecureGrid(Grid):  # type: ignore[misc]  # flwr is not in the checking environment
    """``grid``: the ServerApp's. Keyword arguments: those of :class:`~securefl.integrations.settings.Settings`, and

    ``step_seconds``: how long an exchange of keys or shares may take. ``train_seconds``: how long clients may take from
    the model to their vector; by default the timeout that the strategy passes. ``poll_seconds``: between two looks for
    replies; ``patience`` instead: with a clock of its own. ``strategy``: which strategy asks, if it is not the one
    whose ``start`` is running. ``privacy``: user-level differential privacy by distributed noise, its ledger open
    (:class:`~securefl.fl.privacy.UserPrivacy`): every client counts alike and adds its share of the noise; each sum is
    charged before it is decoded. ``identity``: a file with the server's own key (:mod:`securefl.integrations.peers`),
    which key holders may have pinned; by default one that lasts as long as the run.

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
        patience: Patience | None = None,
        strategy: Any = None,
        privacy: UserPrivacy | None = None,
        identity: str | Path | None = None,
        **settings: Any,
    ) -> None:
        unknown = sorted(settings.keys() - Settings.__dataclass_fields__.keys())
        if unknown:
            raise ConfigurationError(f"SecureGrid knows no {unknown[0]!r}")
        self.inner = grid
        if privacy is not None:
            settings = {**settings, "value_bits": mechanism_of(privacy, settings).value_bits}
        self.privacy = privacy
        self.settings = Settings(**settings)
        self.step_seconds, self.train_seconds = step_seconds, train_seconds
        self.patience = patience or Patience(poll_seconds)
        self._strategy = strategy
        self.identity = Identity(os.urandom(32)) if identity is None else read_identity(Path(identity))
        self.muster = Muster(grid, self.identity, step_seconds, self.patience)
        if self.settings.helped and self.settings.groups > 1:
            raise ConfigurationError("a helper serves one sum at a time: groups are for masked and threshold sums")
        self.compressor = None if self.settings.compression is None else Compressor(self.settings.compression)
        self.counted: dict[int, int] = {}  # node → the last compressed sum that its vector is in
        self.session = os.urandom(16)
        self._sums = 0
        self._asked_since: float | None = None
        self.reports: list[RoundReport] = []

    # ---- what is handed through -----------------------------------------------------------------------------

    def set_run(self, run: Any) -> None:
        self.inner.set_run(run)

    @property
    def run(self) -> Any:
        return self.inner.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        return self.inner.create_message(*arguments, **named)

    def get_nodes(self) -> Iterable[Any]:
        nodes: Iterable[Any] = self.inner.get_nodes()
        return nodes

    def get_node_ids(self) -> Iterable[int]:
        """The nodes that are there; after a roll call those that are clients, where sums name their parties.

        A strategy that waits for more of them waits five minutes, not for ever.
        """
        now = self.patience.now()
        self._asked_since = now if self._asked_since is None else self._asked_since
        if now - self._asked_since > _IDLE_SECONDS:
            raise TooFewClientsError(
                f"the strategy has waited {_IDLE_SECONDS:.0f} s for more nodes than are there: lower "
                "min_available_nodes, or start more"
            )
        ids: Iterable[int] = self.inner.get_node_ids()
        return self.muster.call(ids) if self.settings.named else ids

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As they are, without protection; clients with SecureMod refuse them unless their policy permits."""
        identities: Iterable[str] = self.inner.push_messages(messages)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        replies: Iterable[Message] = self.inner.pull_messages(message_ids)
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
        if self.settings.named:
            self.muster.call(requests)
        kinds = {message.metadata.message_type for message in requests.values()}
        kind = next(iter(kinds)).split(".", maxsplit=1)[0]
        if len(kinds) > 1 or kind not in ("train", "evaluate"):
            raise ConfigurationError(f"SecureGrid sums train and evaluate messages, not {', '.join(sorted(kinds))}")
        strategy = self._strategy or calling_strategy()
        check_strategy(strategy, self.settings.groups)
        if self.compressor is not None:
            self.compressor.check_server(self.settings.protect, *momentum_of(strategy))
        if kind == "evaluate" and not self.settings.evaluate_metrics:
            raise ConfigurationError(
                "an evaluation would send each client's metrics in the clear: name those to be summed and their "
                "bounds in SecureGrid(evaluate_metrics=…), or switch it off with fraction_evaluate=0.0"
            )
        return Round(self, requests, kind, getattr(strategy, "weighted_by_key", "num-examples"), timeout).run()

    def next_sum(self) -> int:
        """A number that no sum of this run had."""
        self._sums += 1
        return self._sums
