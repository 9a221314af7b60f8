"""One client and the server, or computing parties, as processes over mutual TLS 1.3. SPEC split §4, §8; transport §4.

Both sides are made from the same configuration file, which fixes cut, mode and initial parameters; a hash of it is the
TLS links' context, so two that differ do not get as far as the first frame. The client keeps its own ledger and charges
a round before it sends anything of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from securefl.cluster.servers import Servers
from securefl.errors import ConfigurationError, PeerLostError
from securefl.fl.config import Config
from securefl.fl.data import Dataset
from securefl.fl.models import model_hash, tensors_of
from securefl.fl.seeds import SeedTree
from securefl.fl.training import torch_threads
from securefl.machine import Send
from securefl.split.body import Body
from securefl.split.client import SplitClient
from securefl.split.cutting import Cut
from securefl.split.learner import Learner
from securefl.split.messages import SplitContext
from securefl.split.middle import Framed, Middle
from securefl.split.modes import FramedMode, mode_of
from securefl.split.privacy import SplitPrivacy, privacy_of
from securefl.split.runner import default_cut, settings_of, workload_of
from securefl.split.server import BatchDone, SplitServer, State, WeightsIn
from securefl.split.settings import SplitSettings
from securefl.split.shared import SharedHost, SharedMode
from securefl.split.weights import NoisedGradient
from securefl.transport.tls import Link
from securefl.types import ClientId
from securefl.wire import OVERHEAD_BYTES

__all__ = ["LinkChannel", "RemoteClient", "Session", "refuse_shared", "serve"]


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """What both processes make of one configuration for one client. Build with :meth:`of`."""

    context: SplitContext
    settings: SplitSettings
    mode: FramedMode | SharedMode
    privacy: SplitPrivacy | None
    parts: Cut = field(repr=False)
    data: Dataset = field(repr=False)
    test: Dataset = field(repr=False)
    seeds: SeedTree
    digest: str

    @classmethod
    def of(cls, config: Config, client: ClientId) -> Session:
        """Raises :class:`ConfigurationError` for a configuration without [split], one that sums over clients, or a
        client that it does not have.
        """
        chosen = config.split
        if chosen is None:
            raise ConfigurationError("this configuration has no [split] section")
        seeds = SeedTree(config.data.seed)
        model, clients, test = workload_of(config, chosen, seeds)
        if client not in clients:
            raise ConfigurationError(f"there is no client {client}; the configuration has 1 to {len(clients)}")
        parts = default_cut(model, chosen.after, chosen.until, labels_at_server=chosen.labels == "server")
        settings, data = settings_of(config, chosen), clients[client]
        shapes = parts.shapes(torch.from_numpy(data.inputs[:2].copy()))
        features, outputs = int(np.prod(shapes[0])), int(np.prod(shapes[1]))
        privacy = privacy_of(settings, features, outputs)
        mode = mode_of(settings, parts, shapes, noise_multiplier=None if privacy is None else privacy.noise_multiplier)
        if mode.hides_gradients and settings.releases == "summed":
            raise ConfigurationError(
                "two processes have one client, whose weight gradient cannot be summed over clients: set "
                'order = "sequential", which noises it'
            )
        digest = config.digest()
        classes = 0 if parts.head is not None else test.classes
        name = hashlib.sha256(f"{digest} client {client}".encode()).digest()
        context = SplitContext(name, client, mode.text, features, outputs, settings.batch_size, classes)
        return cls(context, settings, mode, privacy, parts, data, test, seeds.child("split"), digest)


class LinkChannel:
    """The server at the other end of a TLS link. See :class:`~securefl.split.middle.Channel`."""

    def __init__(self, link: Link, limit: int) -> None:
        self._link, self._limit = link, limit

    def send(self, frame: bytes) -> None:
        self._link.send(frame)

    def receive(self) -> bytes:
        return bytes(self._link.receive_up_to(self._limit))


class RemoteClient:
    """The client's process. ``where``: the link to the server, or the computing parties of ``shared``.

    ``ledger``: where its privacy ledger is, needed where something noised is released. Under ``shared`` the client
    gives the parties the body's initial weights, which are everybody's who has the file; what becomes of them stays
    shared.
    """

    def __init__(self, session: Session, where: Link | Servers, ledger: Path | None = None) -> None:
        self.session = session
        settings = session.settings
        if session.privacy is not None:
            if ledger is None:
                raise ConfigurationError("this mode releases something noised: name a file for the privacy ledger")
            session.privacy.open(ledger, session.digest)
        rates = {"learning_rate": settings.learning_rate, "momentum": settings.momentum}
        self.host: SharedHost | None = None
        middle: Middle
        if isinstance(session.mode, SharedMode):
            if not isinstance(where, Servers):
                raise ConfigurationError("protect = 'shared' has no one server: connect to the computing parties")
            self.host = SharedHost(session.mode, where, **rates)
            middle = self.host.middle()
        else:
            if isinstance(where, Servers):
                raise ConfigurationError(f"protect = {settings.protect!r} needs one server, not computing parties")
            engine = session.mode.client()
            limit = OVERHEAD_BYTES + max(session.context.to_client(engine.limits).values())
            middle = Framed(SplitClient(session.context, engine), LinkChannel(where, limit))
        self.learner = Learner(
            middle, session.parts.front, session.parts.head, activation_range=session.mode.clamps, **rates
        )

    def rounds(self) -> Iterator[tuple[int, float, float | None]]:
        """(round, mean loss, ε spent or ``None``), one per round; a round is charged before anything of it is sent."""
        session, learner = self.session, self.learner
        inputs, labels = torch.from_numpy(session.data.inputs.copy()), torch.from_numpy(session.data.targets.copy())
        steps = -(-len(labels) // session.settings.batch_size)
        for number in range(1, session.settings.rounds + 1):
            if session.privacy is not None:
                session.privacy.charge(number)
            order = session.seeds.child("order", number, session.context.client).numpy().permutation(len(labels))
            total = 0.0
            with torch_threads(1):
                for rows in np.array_split(order, steps):
                    index = torch.from_numpy(rows)
                    batch = learner.learn(inputs[index], labels[index])
                    if session.mode.hides_gradients and session.privacy is not None:
                        noise = NoisedGradient(session.settings.gradient_clip_norm, session.privacy.noise_multiplier)
                        learner.release(noise.of(batch), len(rows))
                    if self.host is not None:
                        self.host.step(len(rows))
                    total += batch.loss
            spent = None
            if session.privacy is not None:
                session.privacy.ledger.released(number, model_hash(tensors_of(session.parts.front)))  # its own part
                spent = session.privacy.epsilon_spent
            yield number, total / len(labels), spent

    def accuracy(self) -> float:
        """On the test set, its activations going the protected way."""
        test, size = self.session.test, self.session.settings.batch_size
        pieces = np.array_split(np.arange(len(test)), -(-len(test) // size))
        found = [self.learner.predict(torch.from_numpy(test.inputs[rows])) for rows in pieces]
        return float(np.mean(np.concatenate(found) == test.targets))


def refuse_shared(session: Session) -> FramedMode:
    """The mode of one server. Raises :class:`ConfigurationError` for ``shared``, which has none."""
    if isinstance(session.mode, SharedMode):
        raise ConfigurationError(
            "protect = 'shared' has no one server: start the parties by securefl party, and join by --cluster"
        )
    return session.mode


def serve(session: Session, link: Link, *, idle: float = 60.0) -> int:
    """The server's process: answer one client until it leaves; the body is trained in place. Returns the batches.

    ``idle``: seconds without a message after which the session ends. Raises
    :class:`~securefl.errors.PeerLostError` when the client is lost in the middle of a batch, and what its frames are
    refused with.
    """
    engine = refuse_shared(session).server()
    role = SplitServer(session.context, engine)
    limit = OVERHEAD_BYTES + max(session.context.to_server(engine.limits).values())
    body = Body(session.parts.body, learning_rate=session.settings.learning_rate, momentum=session.settings.momentum)
    role.start()
    batches = 0
    while True:
        try:
            frame = bytes(link.receive_up_to(limit, timeout=idle))
        except PeerLostError:
            if role.state is State.GRADIENT:
                raise
            return batches
        with torch_threads(1):
            for event in role.receive(frame):
                if isinstance(event, Send):
                    link.send(event.frame)
                elif isinstance(event, WeightsIn):
                    body.give(event.gradient)
                    body.step(event.examples)
                elif isinstance(event, BatchDone):
                    batches += 1
                    if not session.mode.hides_gradients:
                        body.step(event.examples)
