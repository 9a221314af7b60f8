"""The name of a run: a checkpoint of one run is not taken up by another."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING

from securefl.fl.models import model_hash
from securefl.fl.seeds import SeedTree

if TYPE_CHECKING:
    from securefl.fl.fedavg import FedAvg

__all__ = ["fingerprint_of"]


def fingerprint_of(run: FedAvg, initial_hash: bytes, seeds: SeedTree) -> str:
    """Hex SHA-256 of everything that fixes the model after a given round, bar the aggregator and ``rounds``.

    ``initial_hash``: of the model that the run starts from. The aggregator's settings enter by ``config_digest``.
    ``rounds`` stays out: a run may be made longer.
    """
    digest = hashlib.sha256()
    for part in (run.workload.train, run.workload.test):
        digest.update(model_hash({"inputs": part.inputs, "targets": part.targets}))
    for rows in (run.workload.rows, run.workload.held_out or ()):
        digest.update(model_hash({str(i): own for i, own in enumerate(rows)}))
    description = {
        "config": run.config_digest,
        "data": digest.hexdigest(),
        "model": initial_hash.hex(),
        "seed": seeds.child("fingerprint").bytes().hex(),
        "server": run.server.describe(),
        "cohort": dataclasses.asdict(run.cohort),
        "algorithm": run.algorithm.describe(),
        "personalizer": run.personalizer.describe() if run.personalizer is not None else None,
        "engine": type(run.engine).__name__,  # the last bits depend on it
        "loss": dataclasses.asdict(run.loss) if run.loss is not None else None,
        "stragglers": dataclasses.asdict(run.stragglers) if run.stragglers is not None else None,
        "poison": dataclasses.asdict(run.poison) if run.poison is not None else None,
        "threads": run.threads,
        "pruning": dataclasses.asdict(run.pruning.schedule) if run.pruning is not None else None,
        "download": dataclasses.asdict(run.download) if run.download is not None else None,
        "training": dataclasses.asdict(run.settings),
    }
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode("utf-8")).hexdigest()
