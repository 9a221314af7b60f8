"""Rounds of Flower's simulation (Ray) on the torch model and data of ``benchmarks/engine.py``.

A ClientApp and ServerApp on Flower's Message API, its ``FedAvg`` and its ``run_simulation``: one Ray actor per core,
one torch thread each, as its examples set them up. A client's work is a loop of torch.optim.SGD over its examples in
memory, which is less than the data loader of Flower's examples does.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from time import perf_counter

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_DEDUP_LOGS", "1")

import _engine_site as site
import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy


@cache
def _client_site(kind: str, clients: int, rounds: int) -> tuple[site.Site, nn.Module, torch.Tensor, torch.Tensor]:
    """What an actor keeps between calls: data, orders and a workspace. Made in the first round, which warms up."""
    torch.set_num_threads(1)
    found = site.Site.of(kind, clients, rounds)
    return (
        found,
        site.build(),
        torch.from_numpy(found.dataset.inputs),
        torch.from_numpy(found.dataset.targets),
    )


def _train(message: Message, context: Context) -> Message:
    config = message.content["config"]
    found, module, inputs, targets = _client_site(str(config["kind"]), int(config["clients"]), int(config["rounds"]))
    client = int(context.node_config["partition-id"])
    module.load_state_dict(message.content["arrays"].to_torch_state_dict())
    module.train()
    optimizer = torch.optim.SGD(module.parameters(), lr=found.settings.learning_rate)
    order = torch.from_numpy(found.orders[int(config["server-round"])][client])
    own, labels = inputs[order], targets[order]
    size = found.settings.batch_size
    for batch, wanted in zip(own.split(size), labels.split(size), strict=True):
        optimizer.zero_grad()
        cross_entropy(module(batch), wanted).backward()
        optimizer.step()
    content = {
        "arrays": ArrayRecord(module.state_dict()),
        "metrics": MetricRecord({"num-examples": len(order)}),
    }
    return Message(RecordDict(content), reply_to=message)


def run(
    kind: str, clients: int, rounds: int, between: Callable[[int], None]
) -> tuple[list[float], dict[str, NDArray[np.float32]]]:
    """Seconds of every round by Flower's own loop, and the model at the end.

    ``between(round)`` is called after each round, while Flower waits: nothing of it is in the times.
    """
    from flwr.app import ConfigRecord

    client_app, server_app = ClientApp(), ServerApp()
    client_app.train()(_train)
    seconds: list[float] = []
    last: dict[str, NDArray[np.float32]] = {}

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        strategy = FedAvg(
            fraction_train=1.0, fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients
        )
        clock = [0.0]

        def after(round: int, arrays: ArrayRecord) -> None:
            if round:
                seconds.append(perf_counter() - clock[0])
                between(round)
            last.update({name: array.numpy() for name, array in arrays.items()})
            clock[0] = perf_counter()

        start = ArrayRecord({name: Array(value) for name, value in site.start().items()})
        config = ConfigRecord({"kind": kind, "clients": clients, "rounds": rounds})
        strategy.start(grid, start, num_rounds=rounds, train_config=config, evaluate_fn=after, timeout=600)

    for name in ("flwr", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    run_simulation(
        server_app,
        client_app,
        num_supernodes=clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": os.cpu_count() or 1, "include_dashboard": False, "log_to_driver": False},
        },
    )
    if len(seconds) != rounds:
        raise RuntimeError(f"Flower's simulation gave {len(seconds)} of {rounds} rounds")
    return seconds, last
