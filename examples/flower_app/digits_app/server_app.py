"""The server: FedAvg as it comes with Flower, its grid wrapped. Prints what each round gave, and a line of JSON."""

import json
import time
from collections.abc import Iterable
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from digits_app import task
from digits_app.cohort import clients_there
from securefl.integrations.flower import SecureGrid
from securefl.integrations.flower.records import content_bytes

VALUE_BITS, CLIP_RANGE = 16, 0.5
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    config, masked = context.run_config, context.run_config["protect"] != "none"
    nodes, rounds = clients_there(grid, config), int(config["num-server-rounds"])
    threshold = int(config["threshold"]) or nodes // 2 + 1
    print(f"clients: {nodes}, at least {threshold} of them in a sum", flush=True)
    if nodes == 2:
        print(
            "of the mean of two, either can work out the other's update. The server cannot. With eight: "
            '--federation-config "num-supernodes=8"',
            flush=True,
        )
    measured = Measured(grid)
    around: Any = measured
    if masked:
        around = SecureGrid(
            measured,
            protect=config["protect"],
            key_model=config["key-model"],
            identities=bool(config["identities"]),
            identity=str(config["server-identity"]) or None,
            compression={"chain": str(config["compression"]).split()} if config["compression"] else None,
            value_bits=VALUE_BITS,
            clip_range=CLIP_RANGE,
            max_weight=max_weight(nodes),
            threshold=threshold,
            metrics={"loss": 10.0},
            step_seconds=float(config["step-seconds"]),
            train_seconds=float(config["train-seconds"]),
        )
    strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=2, min_available_nodes=nodes)
    checks: list[dict[str, Any]] = []
    models = [task.initial_model(int(config["hidden"]))]
    train_config = {"steps": int(config["local-steps"]), "rate": float(config["learning-rate"]), "partitions": nodes}

    def look(round: int, arrays: ArrayRecord) -> None:
        model = {name: array.numpy() for name, array in arrays.items()}
        if round:
            entry = measured.closed(round) | {"accuracy": task.accuracy(model)}
            if masked:
                report = around.reports[-1]
                entry |= {"survivors": len(report.survivors), "failed": report.failed, "exchanges": report.exchanges}
                entry["dropped"] = dict(report.dropped)
                choices = comb(nodes, len(report.survivors))  # which the check goes through
                if config["check-sum"] and not report.failed and not config["compression"] and choices <= 10_000:
                    entry["check"] = sum_check(models[-1], model, round, nodes, report, train_config)
            print("round", json.dumps(entry), flush=True)
            checks.append(entry)
            # all were there once; from now on, the threshold decides
            strategy.min_available_nodes = int(config["keep-nodes"]) or threshold
        models.append(model)

    arrays = ArrayRecord({name: Array(value) for name, value in models[0].items()})
    sent = ConfigRecord(dict(train_config))
    strategy.start(grid=around, initial_arrays=arrays, train_config=sent, num_rounds=rounds, evaluate_fn=look)
    values = sum(value.size for value in models[0].values())
    print("RESULT", json.dumps({"protect": config["protect"], "values": values, "rounds": checks}), flush=True)


def max_weight(nodes: int) -> int:
    """The bound on a client's number of examples; a server that is not a demonstration is told one."""
    return max(512, task.examples_of(nodes - 1, nodes))


def sum_check(before: Any, after: Any, round: int, nodes: int, report: Any, how: dict[str, Any]) -> dict[str, Any]:
    """Train every client's part again and find the clients whose weighted mean the new model is.

    ``bound``: what rounding to the grid and to float32 can amount to. A server that is not a demonstration has no data.
    """
    weights = {p: task.examples_of(p, nodes) for p in range(nodes)}
    updates = {}
    for p in weights:
        model = task.train(before, p, nodes, round, how["steps"], how["rate"])[0]
        updates[p] = np.concatenate([(model[name] - before[name]).ravel().astype(np.float64) for name in sorted(model)])
    found = np.concatenate([(after[name].astype(np.float64) - before[name]).ravel() for name in sorted(after)])
    step = CLIP_RANGE / (2 ** (VALUE_BITS - 1) - 1)
    best: tuple[float, tuple[int, ...]] = (np.inf, ())
    for chosen in combinations(weights, len(report.survivors)):
        if sum(weights[p] for p in chosen) == report.total_weight:
            mean = sum(weights[p] * updates[p] for p in chosen) / report.total_weight
            best = min(best, (float(np.abs(found - mean).max()), chosen))
    bound = len(report.survivors) * step * max_weight(nodes) / max(1, report.total_weight) + 2.0**-22
    return {"partitions": best[1], "error": best[0], "bound": bound, "exact": best[0] <= bound}


class Measured(Grid):
    """Counts what a round sends and takes, whatever stands above it."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._open()

    def _open(self) -> None:
        self._down = self._up = self._messages = 0
        self._since = time.monotonic()

    def closed(self, round: int) -> dict[str, Any]:
        """This round's bytes and seconds; the next one begins."""
        entry = {"round": round, "bytes_up": self._up, "bytes_down": self._down, "messages": self._messages}
        entry["seconds"] = round_to_tenths(time.monotonic() - self._since)
        self._open()
        return entry

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self._messages += len(messages)
        self._down += sum(content_bytes(message.content) for message in messages)
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return self._counted(self._grid.pull_messages(message_ids))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        messages = list(messages)
        self._messages += len(messages)
        self._down += sum(content_bytes(message.content) for message in messages)
        return self._counted(self._grid.send_and_receive(messages, timeout=timeout))

    def _counted(self, replies: Iterable[Message]) -> list[Message]:
        replies = list(replies)
        self._up += sum(content_bytes(reply.content) for reply in replies if reply.has_content())
        return replies

    def set_run(self, run: Any) -> None:
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        return self._grid.run

    def create_message(self, *arguments: Any, **named: Any) -> Message:
        return self._grid.create_message(*arguments, **named)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()


def round_to_tenths(seconds: float) -> float:
    return round(seconds, 1)
