"""The client's side of a computation: share tensors and models with the parties, run them, reveal results.

    with local_cluster() as servers:
        model = servers.share(net)
        logits = model(servers.share(x)).reveal()

Calls do not wait for the parties, except those that give values back; an error of a party is raised by the next of
those.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
from numpy.typing import NDArray

from securefl.cluster.control import answer, ask
from securefl.cluster.tensors import SharedModel, SharedTensor
from securefl.errors import ConfigurationError, DecodeError, LocalProtocolError, LostPartyError, SecureFLError
from securefl.mpc.channel import HELPER, PARTIES, Channel
from securefl.mpc.fixed import FRACTION, check_values, encode
from securefl.mpc.gemm import Words
from securefl.mpc.graph import check_headroom
from securefl.mpc.handover import Handed, draw_keys, hand_out_under
from securefl.mpc.operations import ENGINES
from securefl.mpc.service import encode_command
from securefl.primitives.entropy import Entropy, SystemEntropy

if TYPE_CHECKING:
    import torch

__all__ = ["Cost", "Servers", "check_engine"]

#: Inputs of a model are promised to be no larger, unless share() says otherwise.
INPUT_RANGE = 16.0
_MAX_ANSWER = 1 << 20
#: Commands at which a party has nothing to compute.
_KEEPING = {"put", "model", "parameter", "drop"}
#: Who is told first: server 1, to whom most is dealt, and the helper; where cores are few, server 0 begins behind it.
_ORDER = (1, 2, 0)
#: Parties are told to forget so many tensors, or so much as may be held back: memory that is used again is faster.
_MOST_DROPPED = 32
#: Elements from which on the helper is told its part of a value before the servers' part is made.
_LARGE = 1 << 13
#: No bytes for any party.
_NOTHING: tuple[Handed, ...] = ((), (), ())
#: Bytes of such commands that are held back, at most.
_LATER_MOST = 1 << 16


@dataclass(frozen=True, slots=True)
class Cost:
    """What the parties did since the cluster was opened, or since :meth:`Servers.cost` was last asked.

    ``milliseconds``: from the first command to the last answer. ``rounds``: messages between parties that wait for one
    another. ``sent``: payload bytes by link, (from, to); the helper is party 2.
    """

    milliseconds: float
    rounds: int
    sent: dict[tuple[int, int], int]

    def __str__(self) -> str:
        total = sum(self.sent.values())
        links = ", ".join(f"{a}→{b} {count:,}" for (a, b), count in sorted(self.sent.items()) if count)
        return f"{self.milliseconds:.2f} ms, {self.rounds} rounds, {total:,} bytes ({links})"


class Servers:
    """The parties, as one client sees them. ``links``: its channel to parties 0, 1 and 2.

    ``engine``: how they compute, "dealer" or "replicated" (:mod:`securefl.mpc.operations`).
    ``audit``: the share of batches whose deals are recomputed instead of used, chosen at random; every batch is then
    fresh (SPEC mpc §10), which costs one more opening of the weights per call. ``on_close``: called once when the
    cluster is closed. A client closes a cluster when a call fails: the parties may have gone on differently.
    """

    def __init__(
        self,
        links: Channel,
        on_close: Callable[[], None] = lambda: None,
        entropy: Entropy | None = None,
        audit: float = 0.0,
        engine: str = "dealer",
    ) -> None:
        check_engine(engine, audit)
        #: "dealer" or "replicated".
        self.engine = engine
        #: How many batches were audited.
        self.audited = 0
        self._audit = audit
        self._links = links
        self._on_close = on_close
        self._entropy = SystemEntropy() if entropy is None else entropy
        self._numbers = 0
        self._batch = 0
        self._dropped: list[int] = []
        #: Bytes of what was put, by number; and of what was dropped since the parties were told.
        self._put: dict[int, int] = {}
        self._dropped_bytes = 0
        #: Per party commands that only keep or forget something: they go with the next one that computes or asks.
        self._later: list[list[tuple[bytes, Handed]]] = [[] for _ in range(PARTIES)]
        self._later_bytes = 0
        self._open = True
        self._started: float | None = None
        self._counted: dict[str, Any] = {"rounds": 0, "sent": {}}
        #: Process numbers of local parties; empty where the parties are elsewhere.
        self.processes: tuple[int, ...] = ()

    @property
    def transferred(self) -> tuple[int, int]:
        """Bytes that this client sent to the parties and received from them so far."""
        links = self._links.traffic.values()
        return sum(link.bytes_sent for link in links), sum(link.bytes_received for link in links)

    # ---- sharing

    @overload
    def share(self, value: torch.nn.Module, *, limit: float = ...) -> SharedModel: ...
    @overload
    def share(self, value: torch.Tensor | NDArray[Any] | Sequence[Any], *, limit: float = ...) -> SharedTensor: ...
    def share(self, value: Any, *, limit: float = INPUT_RANGE) -> SharedModel | SharedTensor:
        """Secret-share a tensor or a torch module with the parties.

        A tensor of real numbers gets 16 binary places, one of integers none. ``limit``: the largest size of a value
        (:class:`InvalidInputError` for a larger one); for a module, of its inputs, which is what its headroom is
        checked for. Of a module the parties learn graph, shapes, and each layer's gain to the next power of two.
        """
        if _is_module(value):
            return self._share_model(value, limit)
        array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
        return self._share_array(array, limit)

    def _share_array(self, array: NDArray[Any], limit: float | None) -> SharedTensor:
        if array.dtype.kind == "b":
            array = array.astype(np.int64)
        fraction = 0 if array.dtype.kind in "iu" else FRACTION
        if fraction == 0:
            limit = 2.0**31
        number = self._number()
        opened = self.engine == "dealer" and not self._audit  # a batch that can be audited uses no mask of a client
        keys = draw_keys(self.engine, self._entropy, opened)
        fields: dict[str, Any] = {"id": number, "shape": list(array.shape), "fraction": fraction, "opened": opened}
        if opened and array.size >= _LARGE:
            check_values(array, fraction, limit)  # nobody hears of a value that is none
            with self._closing_on_failure():
                self._tell("put", ((), (), (*keys,)), (HELPER,), **fields)  # which works while the rest is made
                payloads = hand_out_under(self.engine, encode(array, fraction, limit), keys, opened)
                self._tell("put", payloads, (1, 0), **fields)
        else:
            payloads = hand_out_under(self.engine, encode(array, fraction, limit), keys, opened)
            self._tell("put", payloads, **fields)
        self._put[number] = 8 * array.size
        return SharedTensor(self, number)

    def _share_model(self, module: torch.nn.Module, limit: float) -> SharedModel:
        from securefl.cluster.importing import import_module

        imported = import_module(module)
        check_headroom(imported.graph, limit)
        shared = {name: self._share_array(values, None) for name, values in imported.parameters.items()}
        number = self._number()
        self._tell(
            "model",
            id=number,
            graph=imported.graph.to_data(),
            tensors={name: tensor.number for name, tensor in shared.items()},
        )
        return SharedModel(self, number, imported)

    # ---- cost

    def cost(self) -> Cost:
        """What was spent since the last call; waits for the parties."""
        replies = self._ask("cost", _MAX_ANSWER)
        elapsed = 0.0 if self._started is None else perf_counter() - self._started
        reports = [json.loads(bytes(reply)) for reply in replies]
        sent = {(party, int(to)): int(n) for party, report in enumerate(reports) for to, n in report["sent"].items()}
        before = self._counted
        cost = Cost(
            elapsed * 1000,
            int(reports[0]["rounds"]) - before["rounds"],
            {link: count - before["sent"].get(link, 0) for link, count in sent.items()},
        )
        self._counted = {"rounds": int(reports[0]["rounds"]), "sent": sent}
        self._started = None
        return cost

    # ---- commands

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _forget(self, number: int) -> None:
        self._dropped.append(number)
        self._dropped_bytes += self._put.pop(number, 0)

    def _compute(self, operation: str, **fields: Any) -> None:
        fresh = self._audit > 0
        while fresh and int.from_bytes(self._entropy.token(7), "big") < self._audit * 2**56:
            self._batch += 1
            command = encode_command(operation, batch=self._batch, fresh=True, **fields)
            # The helper is asked the same as ever, and cannot tell.
            self._tell_each([encode_command("audit", command=command.decode())] * HELPER + [command])
            self.audited += 1
            if self._audit == 1:
                break
        self._batch += 1
        self._tell(operation, batch=self._batch, fresh=fresh, **fields)

    def _tell(
        self, operation: str, payloads: Sequence[Handed] = _NOTHING, parties: Sequence[int] = _ORDER, **fields: Any
    ) -> None:
        if not self._open:
            raise LocalProtocolError("the cluster is closed; open a new one and share again")
        if self._started is None:
            self._started = perf_counter()
        if operation != "drop" and (len(self._dropped) > _MOST_DROPPED or self._dropped_bytes > _LATER_MOST):
            dropped, self._dropped, self._dropped_bytes = self._dropped, [], 0
            self._tell("drop", ids=dropped)
        wait = operation in _KEEPING and len(parties) == PARTIES
        self._tell_each([encode_command(operation, **fields)] * PARTIES, payloads, wait, parties)

    def _tell_each(
        self,
        commands: Sequence[bytes],
        payloads: Sequence[Handed] = _NOTHING,
        wait: bool = False,
        parties: Sequence[int] = _ORDER,
    ) -> None:
        """``wait``: the commands may go with later ones, as long as they are short."""
        for party in parties:
            self._later[party].append((commands[party], payloads[party]))
            self._later_bytes += len(commands[party]) + sum([memoryview(part).nbytes for part in payloads[party]])
        if wait and self._later_bytes < _LATER_MOST:
            return
        with self._closing_on_failure():
            for party in parties:
                ask(self._links, party, *self._later[party])
                self._later[party].clear()
        self._later_bytes = 0

    def _ask(self, operation: str, limit: int, **fields: Any) -> list[memoryview]:
        self._tell(operation, **fields)
        replies, failures = [], []
        with self._closing_on_failure():
            for party in range(PARTIES):
                try:
                    replies.append(answer(self._links, party, limit))
                except SecureFLError as error:  # another party may know better: whoever is gone cannot report it
                    failures.append((party, error))
            if failures:
                raise min(failures, key=_rank)[1]
        return replies

    def _get(self, number: int) -> tuple[Words, tuple[int, ...], int]:
        self._batch += 1
        replies = self._ask("get", 1 << 34, batch=self._batch, tensor=number)
        with self._closing_on_failure():
            return _add(replies)

    @contextmanager
    def _closing_on_failure(self) -> Iterator[None]:
        """Shut the cluster when what stands inside fails: its parties may have gone on differently."""
        try:
            yield
        except BaseException:
            self._shut()
            raise

    def close(self) -> None:
        """End the parties. Closing twice does nothing."""
        if not self._open:
            return
        with suppress(SecureFLError):
            self._ask("bye", 0)
        self._shut()

    def _shut(self) -> None:
        if self._open:
            self._open = False
            self._links.close()
            self._on_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Servers, {'open' if self._open else 'closed'}>"


def check_engine(engine: str, audit: float = 0.0) -> None:
    """Raises :class:`ConfigurationError` for an engine that there is not, or an audit that it cannot have."""
    if engine not in ENGINES:
        raise ConfigurationError(f"the engines are {' and '.join(map(repr, ENGINES))}, not {engine!r}")
    if not 0 <= audit <= 1:
        raise ConfigurationError(f"the share of batches to audit is from 0 to 1, got {audit:g}")
    if audit and engine != "dealer":
        raise ConfigurationError(f"the engine {engine!r} has no dealer to audit: leave audit at 0, or use 'dealer'")


def _add(replies: Sequence[memoryview]) -> tuple[Words, tuple[int, ...], int]:
    """The value from the servers' parts, with its shape and fraction, on which all three must agree."""
    sizes = {struct.unpack_from(">Q", reply, 8)[0] if len(reply) >= 16 else 9 for reply in replies}
    headers = {bytes(reply[: 16 + 8 * size]) for reply in replies for size in sizes if size <= 8}
    if len(sizes) != 1 or len(headers) != 1:
        raise DecodeError("the parties hold tensors of different shapes")
    (header,), (dimensions,) = headers, sizes
    if len(header) != 16 + 8 * dimensions:
        raise DecodeError("the shape of the result is cut off")
    fraction, _, *shape = struct.unpack(f">{2 + dimensions}Q", header)
    parts = [reply[len(header) :] for reply in replies]
    if not len(parts[HELPER]):
        parts.pop()  # the tensor is settled: the servers' parts are the value
    if fraction > 64 or any(len(part) != 8 * math.prod(shape) for part in parts):
        raise DecodeError("a part of the result has another size than its shape says")
    zero, *others = (np.frombuffer(part, np.uint64) for part in parts)
    value = zero + others[0]
    for other in others[1:]:
        value += other
    return value, tuple(shape), fraction


def _rank(failure: tuple[int, SecureFLError]) -> int:
    """Which of several parties' failures says most: what went wrong, then who is gone, then who missed whom."""
    party, error = failure
    if not isinstance(error, LostPartyError):
        return 0
    return 1 if error.party == party else 2


def _is_module(value: object) -> bool:
    """A torch module, without importing torch for what is none."""
    return any(
        kind.__module__ == "torch.nn.modules.module" and kind.__name__ == "Module" for kind in type(value).__mro__
    )
