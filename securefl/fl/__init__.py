"""Federated learning: data, local training, the round loop. The modules, lowest first:

    seeds        the seed tree of a simulated run (training, data and rounding; never masks or noise)
    interfaces   what the round loop and an aggregator exchange, and the records of a run
    config       the TOML configuration
    data         datasets: bundled ones and the user's own
    partition    who holds which examples: IID, shards, Dirichlet
    models       small bundled models; a module's parameters as named arrays, their hash
    scoring      how a model does on a data set [torch]
    local_optimizer, workspace   optimiser steps of one client; what a workspace keeps of none [torch]
    training     one client's local training [torch]
    workload     model, data and who holds which rows [torch]
    engine       who trains the clients of a round: one after the other [torch]
    stacked, schedule, stacked_optimizer   another: many small clients at once [torch]
    engine_choice   which of the two [torch]
    algorithms   what a client computes, and what of it enters the sum: FedAvg, FedProx [torch]
    scaffold     SCAFFOLD, its control variates inside the protected sum [torch]
    local_head   FedPer: a last layer of each client's own [torch]
    personalization    fine-tuning, interpolation, Ditto [torch]
    local_metrics      the training loss inside the protected vector [torch]
    poison       clients that poison their updates, simulated
    stragglers   clients that do a part of their steps, simulated [torch]
    augmentation images varied while training [torch]
    bundled      synthetic transactions, text that comes with Python
    tracking     metrics.jsonl, TensorBoard, MLflow
    evaluation   the shared model on the test set, the clients' own on what they held out [torch]
    learning     from a configuration to these parts [torch]
    server_optimizer   the server's step: averaging, momentum, Adam, Yogi
    cohort, dropouts   who is invited to a round, and who of these drops out in a simulation
    checkpoint   save and resume a run, bit for bit
    records, fingerprint   what a run writes down of a round; what names a run
    fedavg       the round loop of federated averaging
    protections  protections by the names users type
    pipeline     update to integers, sum of integers to mean
    summation    one protected sum of plain arrays
    aggregators  the aggregator of a simulated run, under any protection
    collection   one session of it: clients encode, the sum is opened, one client may be watched
    robust_mean  the same under rules on shares that bear poisoned updates
    counting     how many answers of a model are right on clients' data, and nothing else [torch]
    slices, tiers   parts of a model that unequal clients hold, and who holds which [torch]
    tiered_engine, tiered   their training and their protected sum, shell by shell [torch]
    gan, balancing   a federated conditional GAN for classes that clients lack [torch]
    decomposition   a model trained part by part [torch]
    budget       a run's privacy budget and its ledger
    privacy      user-level privacy: the mechanism of each round and its charge
    example_privacy, dpsgd   example-level privacy: DP-SGD at each client [torch]
    private_run  from [privacy] to either
    runner       a configured run from start to end

``import securefl.fl`` imports none of them: names are resolved on first use (PEP 562), so torch, scikit-learn and
pydantic are loaded only by those who use them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from securefl.fl.aggregators import ProtectedAggregator as ProtectedAggregator
    from securefl.fl.config import Config as Config
    from securefl.fl.counting import private_test as private_test
    from securefl.fl.data import Dataset as Dataset
    from securefl.fl.dropouts import Dropouts as Dropouts
    from securefl.fl.fedavg import FedAvg as FedAvg
    from securefl.fl.interfaces import Aggregate as Aggregate
    from securefl.fl.interfaces import Aggregator as Aggregator
    from securefl.fl.interfaces import Contribution as Contribution
    from securefl.fl.interfaces import RoundRecord as RoundRecord
    from securefl.fl.interfaces import RunResult as RunResult
    from securefl.fl.interfaces import ServerView as ServerView
    from securefl.fl.robust_mean import RobustMean as RobustMean
    from securefl.fl.seeds import SeedTree as SeedTree
    from securefl.fl.training import LocalTraining as LocalTraining
    from securefl.fl.workload import Workload as Workload
    from securefl.fl.workload import prepare as prepare

#: Public name -> the module that defines it.
_HOME = {
    "Aggregate": "interfaces",
    "Aggregator": "interfaces",
    "Config": "config",
    "Contribution": "interfaces",
    "Dataset": "data",
    "Dropouts": "dropouts",
    "FedAvg": "fedavg",
    "LocalTraining": "training",
    "ProtectedAggregator": "aggregators",
    "RobustMean": "robust_mean",
    "RoundRecord": "interfaces",
    "RunResult": "interfaces",
    "SeedTree": "seeds",
    "ServerView": "interfaces",
    "Workload": "workload",
    "prepare": "workload",
    "private_test": "counting",
}

__all__ = [
    "Aggregate",
    "Aggregator",
    "Config",
    "Contribution",
    "Dataset",
    "Dropouts",
    "FedAvg",
    "LocalTraining",
    "ProtectedAggregator",
    "RobustMean",
    "RoundRecord",
    "RunResult",
    "SeedTree",
    "ServerView",
    "Workload",
    "prepare",
    "private_test",
]


def __getattr__(name: str) -> Any:
    try:
        home = _HOME[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = value  # the next access does not come back here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
