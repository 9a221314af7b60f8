"""Split learning over many clients, in one process: parallel (SplitFed) or sequential. [torch]

    parallel     every client sends a batch; the body steps once for all of them; at the end of the round fronts and
                 heads are averaged by the protected sum                        [Thapa et al. 2022, SplitFedV1]
    sequential   one client after the other; front and head go on, sealed       [Gupta & Raskar 2018; Vepakomma 2018]

Every frame is made, sent and taken apart as between machines; only the clock and the network are missing.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from securefl.cluster.local import local_cluster
from securefl.cluster.servers import Servers
from securefl.errors import ConfigurationError, DecodeError
from securefl.fl.data import Dataset
from securefl.fl.interfaces import LostRoundError
from securefl.fl.models import model_hash, tensors_of
from securefl.fl.protections import suite_named
from securefl.fl.seeds import SeedTree
from securefl.fl.training import torch_threads
from securefl.split.body import Body
from securefl.split.channel import MemoryChannel
from securefl.split.client import SplitClient
from securefl.split.cutting import Cut
from securefl.split.ends import average, averaging, hand_over, trains_ends
from securefl.split.handover import Mailbox
from securefl.split.judging import Judge
from securefl.split.learner import LearnedBatch, Learner
from securefl.split.member import Member
from securefl.split.messages import SplitContext
from securefl.split.middle import Framed, Middle
from securefl.split.modes import STATEMENTS, FramedMode, mode_of
from securefl.split.privacy import SplitPrivacy, privacy_of
from securefl.split.progress import Arrays
from securefl.split.server import SplitServer
from securefl.split.settings import SplitSettings
from securefl.split.shared import SharedHost, SharedMode
from securefl.split.weights import NoisedGradient, check_summed, summed
from securefl.types import ClientId, PartyId

__all__ = ["Observer", "SplitRound", "SplitTraining"]

#: Called with (client, to the server?, frame) for every frame of the split protocol.
Observer = Callable[[ClientId, bool, bytes], None]


@dataclass(frozen=True, slots=True)
class SplitRound:
    """One round. ``accuracy``: of the composed model on the test set. ``loss``: mean over the examples trained on.

    ``up``, ``down``: bytes per training example of the split protocol's frames, ``sum_bytes``: of the protected sums
    (weight gradients and fronts), mean per client and example. ``between``: bytes per example between computing parties
    (0 where one server computes). ``epsilon``: spent so far, or ``None``.
    """

    round: int
    accuracy: float
    loss: float
    up: float
    down: float
    sum_bytes: float
    seconds: float
    epsilon: float | None
    between: float = 0.0


class SplitTraining:
    """A run over ``clients`` (id → dataset), tested on ``test``.

    ``parts``: the cut model, whose parameters are the initial ones; the body is trained in place. ``privacy``: made
    from the settings; its ledger must be opened (``privacy.open``) before the first round where it is not ``None``.
    ``threshold``: least number of clients in the average of fronts and heads; by default the smallest majority.
    ``servers``: the computing parties of ``shared``; where none are given, local ones are opened, which :meth:`close`
    (or leaving a ``with`` block) ends. The body then stays with them: ``parts.body`` keeps its initial weights.
    Raises :class:`ConfigurationError` for settings that do not fit the model or the clients.
    """

    def __init__(
        self,
        parts: Cut,
        clients: Mapping[ClientId, Dataset],
        test: Dataset,
        settings: SplitSettings,
        seeds: SeedTree,
        *,
        suite: str = "mlkem768-x25519",
        threshold: int | None = None,
        observe: Observer | None = None,
        servers: Servers | None = None,
    ) -> None:
        if not clients:
            raise ConfigurationError("split learning needs at least one client")
        self.settings, self.parts, self.statement = settings, parts, STATEMENTS[settings.protect]
        self._seeds, self._suite = seeds, suite
        self._threshold = len(clients) // 2 + 1 if threshold is None else threshold
        first = next(iter(clients.values()))
        shapes = parts.shapes(torch.from_numpy(first.inputs[:2].copy()))
        self.features, self.outputs = int(np.prod(shapes[0])), int(np.prod(shapes[1]))
        self.privacy: SplitPrivacy | None = privacy_of(settings, self.features, self.outputs)
        self.steps = -(-max(len(data) for data in clients.values()) // settings.batch_size)
        noise = self.privacy.noise_multiplier if self.privacy is not None else None
        together = len(clients) if settings.order == "parallel" else 1
        self.mode = mode_of(settings, parts, shapes, noise_multiplier=noise, clients=together)
        if self.mode.hides_gradients and settings.releases == "summed":
            # a client with fewer examples than steps sits the last ones out, so the last step has the least of both
            sizes = [len(data) // self.steps for data in clients.values()]
            check_summed(sum(size > 0 for size in sizes), sum(sizes), self.outputs, self.features)
        rates = {"learning_rate": settings.learning_rate, "momentum": settings.momentum}
        self._own: Servers | None = None
        self.host: SharedHost | None = None
        if isinstance(self.mode, SharedMode):
            if servers is None:
                servers = self._own = local_cluster(parties=settings.parties, audit=settings.audit)
            self.host = SharedHost(self.mode, servers, **rates)
        self.body = Body(parts.body, **rates)
        #: Rounds that were charged before an interruption, and not repeated.
        self.lost: list[int] = []
        self._done = 0
        self._session = os.urandom(16)
        classes = 0 if parts.head is not None else first.classes
        try:
            self._members = {client: self._join(client, data, classes, observe) for client, data in clients.items()}
            self._aggregator = averaging(self._members, settings, self._threshold, suite, self._session)
        except BaseException:
            self.close()
            raise
        member = next(iter(self._members.values()))
        self._judge = Judge(member, parts.body, self.mode, test, settings.batch_size)

    def _join(self, client: ClientId, data: Dataset, classes: int, observe: Observer | None) -> Member:
        context = SplitContext(
            self._session, client, self.mode.text, self.features, self.outputs, self.settings.batch_size, classes
        )
        watch = None if observe is None else lambda up, frame: observe(client, up, frame)
        middle: Middle
        channel = None
        if self.host is not None:
            middle = self.host.middle()
        else:
            mode = self._framed()
            channel = MemoryChannel(SplitServer(context, mode.server()), watch)
            middle = Framed(SplitClient(context, mode.client()), channel)
        front, head = copy.deepcopy(self.parts.front), copy.deepcopy(self.parts.head)
        learner = Learner(
            middle,
            front,
            head,
            learning_rate=self.settings.learning_rate,
            momentum=self.settings.momentum,
            activation_range=self.mode.clamps,
        )
        return Member(
            inputs=torch.from_numpy(data.inputs.copy()),
            labels=torch.from_numpy(data.targets.copy()),
            middle=middle,
            learner=learner,
            ends=nn.ModuleList([part for part in (front, head) if part is not None]),
            channel=channel,
            mailbox=Mailbox(self._session, client, suite_named(self._suite)),
        )

    def _framed(self) -> FramedMode:
        if isinstance(self.mode, SharedMode):
            raise ConfigurationError("protect = 'shared' has no one server")
        return self.mode

    def close(self) -> None:
        """End the computing parties that were opened here. Closing twice does nothing."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def uncovered(self) -> str | None:
        """What the aggregator learns beside what ε is about, in words; ``None`` where there is nothing or no ε."""
        if self.privacy is None or self._aggregator is None:
            return None
        return (
            "epsilon covers the activations and gradients that are sent; the average of fronts and heads is opened to "
            'the server exactly and is not covered: order = "sequential" hands them on sealed instead'
        )

    # -- stopping and going on

    def state(self) -> Arrays:
        """What the rounds to come depend on. Raises :class:`ConfigurationError` under ``shared``."""
        if self.host is not None:
            raise ConfigurationError(
                "under protect = 'shared' the body exists only as shares at parties that end with the run: it cannot "
                "be kept and resumed; reveal it at the end (reveal = true)"
            )
        found = {f"body/{name}": value for name, value in self.body.state().items()}
        for client, member in self._members.items():
            found |= {f"{client}/{name}": value for name, value in member.learner.state().items()}
        return found

    def restore(self, arrays: Mapping[str, NDArray[np.generic]], done: int) -> None:
        """Go on after round ``done`` from its :meth:`state`. Raises :class:`~securefl.errors.DecodeError`."""
        if self.host is not None:
            self.state()
        parts: dict[str, Arrays] = {}
        for name, value in arrays.items():
            owner, _, rest = name.partition("/")
            parts.setdefault(owner, {})[rest] = value
        if not set(parts) <= {"body", *map(str, self._members)}:
            raise DecodeError("the checkpoint is of a run with other clients")
        self.body.restore(parts.get("body", {}))
        for client, member in self._members.items():
            member.learner.restore(parts.get(str(client), {}))
        self._done = done

    # -- rounds

    def rounds(self) -> Iterator[SplitRound]:
        """Train, one round per iteration. Raises :class:`~securefl.errors.PrivacyBudgetExceededError` at the budget.

        A round that was charged before an interruption is not repeated: its number is added to :attr:`lost`.
        """
        for number in range(self._done + 1, self.settings.rounds + 1):
            started = perf_counter()
            self._done = number
            if self.privacy is not None:
                try:
                    self.privacy.charge(number)
                except LostRoundError:
                    self.lost.append(number)
                    continue
            before = self._traffic()
            self._between()
            with torch_threads(1):  # a batch is too small to share, and sums do not depend on the machine
                loss = self._parallel(number) if self.settings.order == "parallel" else self._sequential(number)
            seconds = perf_counter() - started
            if self.privacy is not None:
                self.privacy.ledger.released(number, model_hash(tensors_of(self.parts.body)))
            examples = sum(len(member.labels) for member in self._members.values())
            between = self._between()
            up, down, other = (after - earlier for after, earlier in zip(self._traffic(), before, strict=True))
            yield SplitRound(
                round=number,
                accuracy=self.accuracy(),
                loss=loss / examples,
                up=up / examples,
                down=down / examples,
                sum_bytes=other / examples,
                seconds=seconds,
                between=between / examples,
                epsilon=None if self.privacy is None else self.privacy.epsilon_spent,
            )

    def _parallel(self, number: int) -> float:
        start = (
            {client: tensors_of(member.ends) for client, member in self._members.items()} if self._aggregator else {}
        )
        queues = {client: self._batches(client, number, self.steps) for client in self._members}
        total = 0.0
        for _ in range(self.steps):
            done: dict[ClientId, LearnedBatch] = {}
            for client, member in self._members.items():
                inputs, labels = next(queues[client])
                if len(labels):
                    done[client] = member.learner.learn(inputs, labels)
            examples = sum(len(batch.activations) for batch in done.values())
            if self.mode.hides_gradients:
                self._give(done)
            self._step(examples)
            total += sum(batch.loss for batch in done.values())
        if self._aggregator is not None:
            average(self._aggregator, self._members, number, start, self._seeds)
        return total

    def _sequential(self, number: int) -> float:
        total = 0.0
        order = list(self._members)
        for at, client in enumerate(order):
            member = self._members[client]
            steps = -(-len(member.labels) // self.settings.batch_size)
            for inputs, labels in self._batches(client, number, steps):
                batch = member.learner.learn(inputs, labels)
                if self.mode.hides_gradients:
                    self._give({client: batch})
                self._step(len(labels))
                total += batch.loss
            if len(order) > 1 and trains_ends(self._members):
                hand_over(self._members, client, order[(at + 1) % len(order)], number)
        return total

    def _batches(self, client: ClientId, number: int, steps: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """``steps`` batches that differ by one example at most, all examples once, in an order fixed by the seed.

        The last ones are empty where there are more steps than examples.
        """
        member = self._members[client]
        order = self._seeds.child("order", number, client).numpy().permutation(len(member.labels))
        for rows in np.array_split(order, steps):
            index = torch.from_numpy(rows)
            yield member.inputs[index], member.labels[index]

    def _step(self, examples: int) -> None:
        (self.body if self.host is None else self.host).step(examples)

    def _between(self) -> int:
        """Bytes between the computing parties since it was last asked."""
        return 0 if self.host is None else sum(self.host.servers.cost().sent.values())

    # -- what the server is given

    def _give(self, done: Mapping[ClientId, LearnedBatch]) -> None:
        """The gradient of a body that never saw it: summed over the clients, or clipped and noised."""
        if self.settings.releases == "summed":
            # |dz| <= 1 for cross-entropy on the outputs themselves; a head may stretch it, and clipping bounds it
            largest = self.settings.batch_size * max(1.0, self.mode.clamps or 1.0)
            result = summed(
                {str(client): batch for client, batch in done.items()},
                protect=self.settings.sum_protection,
                largest=largest,
                suite=self._suite,
            )
            for member in self._members.values():
                member.other_bytes += result.upload_bytes
            self.body.give(result.gradient)
            return
        for client, batch in done.items():
            member = self._members[client]
            member.learner.release(self._noised().of(batch), len(batch.activations))
            if member.channel is not None:
                self.body.give(member.channel.released.pop().gradient)

    def _noised(self) -> NoisedGradient:
        if self.privacy is None:
            raise ConfigurationError("a noised weight gradient needs a privacy budget")
        return NoisedGradient(self.settings.gradient_clip_norm, self.privacy.noise_multiplier)

    # -- judging

    def accuracy(self) -> float:
        """Of the composed model on the test set. See :class:`~securefl.split.judging.Judge`."""
        return self._judge.accuracy()

    def protected_predictions(self, inputs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Classes by the first client through the protected path, int64[n]: what inference costs and gives."""
        return self._judge.protected_predictions(inputs)

    def server_views(self, data: Dataset) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
        """What the server would hold of each example of ``data`` now: of its activations, and of its gradient."""
        return self._judge.server_views(data)

    def _traffic(self) -> Sequence[int]:
        members = self._members.values()
        up = sum(member.learner.traffic.up for member in members)
        down = sum(member.learner.traffic.down for member in members)
        return up, down, sum(member.other_bytes for member in members)

    @staticmethod
    def client_ids(count: int) -> tuple[ClientId, ...]:
        """1 … count."""
        return tuple(PartyId(at) for at in range(1, count + 1))
