"""A grid that hands each message to a fresh ClientApp, as a SuperNode does, and keeps only the context's records.

Every message goes through Flower's own serialization. Shared by the tests of Flower.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Error, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, strategy
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.task_identity import TaskIdentity

from securefl.integrations.flower import SecureGrid, SecureMod
from securefl.integrations.flower.exchange import Patience

RUN = 77
SHAPES = {"w": (40, 5), "b": (5,)}
START = {name: np.full(shape, 0.25, dtype=np.float32) for name, shape in SHAPES.items()}


def carried(message: Message) -> Message:
    """The message as it arrives: through Flower's objects and back."""
    message.metadata.__dict__["_message_id"] = message.object_id
    contents = {identity: thing.deflate() for identity, thing in get_all_nested_objects(message).items()}
    arrived = inflate_object_from_contents(message.object_id, contents)
    arrived.metadata.__dict__["_message_id"] = message.object_id
    return arrived


def update_of(node: int, round: int) -> dict[str, np.ndarray]:
    draw = np.random.default_rng([node, round])
    return {name: draw.uniform(-0.2, 0.2, shape).astype(np.float32) for name, shape in SHAPES.items()}


def weight_of(node: int) -> int:
    return 10 * node


def make_app(mods: list[Any]) -> ClientApp:
    app = ClientApp(mods=mods)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        given = {name: array.numpy() for name, array in message.content["arrays"].items()}
        delta = update_of(context.node_id, int(message.content["config"]["server-round"]))
        after = {name: given[name] + delta[name] if name in delta else given[name] for name in given}
        metrics = MetricRecord({"num-examples": weight_of(context.node_id), "loss": 1.0 / context.node_id, "own": 1.0})
        secret = ConfigRecord({"private": "of this client"})
        content = RecordDict({"arrays": ArrayRecord(arrays_of(after)), "metrics": metrics, "other": secret})
        return Message(content, reply_to=message)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        metrics = MetricRecord({"num-examples": weight_of(context.node_id), "accuracy": context.node_id / 100})
        return Message(RecordDict({"metrics": metrics}), reply_to=message)

    return app


def arrays_of(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: Array(value) for name, value in tensors.items()}


class LoopbackGrid(Grid):
    """``dies``: node → it answers that many messages of each round and then no more in that round."""

    def __init__(
        self, nodes: int, dies: dict[int, int] | None = None, node_config: dict[str, Any] | None = None
    ) -> None:
        self.nodes = list(range(1, nodes + 1))
        self.dies = dies or {}
        self.contexts = {n: Context(RUN, n, dict(node_config or {}), RecordDict(), {}, 5) for n in self.nodes}
        self.mods: Callable[[], list[Any]] = lambda: [SecureMod()]
        self.app = make_app
        self.answered = dict.fromkeys(self.nodes, 0)
        self.waiting: dict[str, Message] = {}
        self.pushed: list[Message] = []
        self.replies: list[Message] = []
        self.tamper: Callable[[Message], None] = lambda message: None
        self.home = tempfile.mkdtemp(prefix="flwr-home-")  # the nodes' disk
        weakref.finalize(self, shutil.rmtree, self.home)

    def deliver(self, message: Message, context: Context) -> Message:
        """What a SuperNode does with a message."""
        return self.app(self.mods())(message, context)

    def set_run(self, run: Any) -> None: ...
    @property
    def run(self) -> Any: ...
    def create_message(self, *arguments: Any, **named: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> Iterable[int]:
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        identities = []
        for message in messages:
            node = message.metadata.dst_node_id
            self.tamper(message)
            arrived = carried(message)
            identity = arrived.metadata.message_id
            identities.append(identity)
            self.pushed.append(message)
            fields = dict(arrived.content.config_records.get("securefl", {}))
            if "invitation" in fields:
                self.answered[node] = 0
            if "hello" not in fields:  # nodes die in rounds, not in the roll call
                if self.answered[node] >= self.dies.get(node, 99):
                    continue
                self.answered[node] += 1
            TaskIdentity.node_id, os.environ["FLWR_HOME"] = node, self.home
            try:
                reply = self.deliver(arrived, self.contexts[node])
            except Exception as error:  # noqa: BLE001 - what flwr's runtime does
                reply = Message(Error(2, repr(error)), reply_to=arrived)
            TaskIdentity.node_id = 0
            self.waiting[identity] = reply if reply.has_error() else carried(reply)
        return identities

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        found = [self.waiting.pop(identity) for identity in message_ids if identity in self.waiting]
        self.replies += found
        return found

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))


def enter_run() -> None:
    """What flwr's runtime sets for a ServerApp."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN, 0, 1


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.time = 0.0
        self.patience = Patience(2.0, lambda: self.time, self.wait)

    def wait(self, seconds: float) -> None:
        self.time += seconds


def secured(grid: LoopbackGrid, **settings: Any) -> SecureGrid:
    given = {"step_seconds": 20.0, "train_seconds": 30.0, "patience": Clock().patience, "suite": "x25519"}
    given |= {"max_weight": 128}
    return SecureGrid(grid, **{**given, "clip_range": 0.5, "value_bits": 24, **settings})


def run(grid: Grid, with_strategy: Any = None, rounds: int = 2, **named: Any) -> Any:
    chosen = with_strategy or strategy.FedAvg(fraction_evaluate=0.0)
    return chosen.start(grid=grid, initial_arrays=ArrayRecord(arrays_of(START)), num_rounds=rounds, **named)


def expected(nodes: Iterable[int], rounds: int = 2) -> dict[str, np.ndarray]:
    model = {name: value.astype(np.float64) for name, value in START.items()}
    total = sum(map(weight_of, nodes))
    for round in range(1, rounds + 1):
        for name, value in model.items():
            model[name] = value + sum(weight_of(n) * update_of(n, round)[name] for n in nodes) / total
    return model


def close(result: Any, wanted: dict[str, np.ndarray], bound: float = 2e-6) -> None:
    for name, value in wanted.items():
        assert np.abs(result.arrays[name].numpy() - value).max() < bound
