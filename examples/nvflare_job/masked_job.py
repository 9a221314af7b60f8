"""An NVFLARE job under masked sums, in NVFLARE's simulator: four clients, of which one dies. Needs securefl[nvflare].

python examples/09_nvflare_job.py [WORKSPACE]
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.executor import Executor
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.apis.signal import Signal
from nvflare.job_config.api import FedJob, FilterType

from securefl.integrations.nvflare import MaskedFedAvg, MaskFilter, ModelFilter, ProtocolExecutor

CLIENTS, ROUNDS, SHAPE = 4, 3, (200, 50)
MODEL = {"w": np.zeros(SHAPE, dtype=np.float32)}


def update_of(site: str, round: int) -> np.ndarray:
    draw = np.random.default_rng([int(site.removeprefix("site-")), round])
    return draw.uniform(-0.2, 0.2, SHAPE).astype(np.float32)


def examples_of(site: str) -> int:
    return 20 * int(site.removeprefix("site-"))


class Trainer(Executor):
    """Any executor will do: this one adds what can be computed again. site-2 fails in round 2."""

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        site, round = fl_ctx.get_identity_name(), int(shareable.get_header("current_round"))
        if (site, round) == ("site-2", 2):
            raise RuntimeError("out of memory")
        model = from_shareable(shareable).data
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: examples_of(site), MetaKey.INITIAL_METRICS: {"loss": 1.0 / round}}
        return DXO(DataKind.WEIGHTS, data={"w": model["w"] + update_of(site, round)}, meta=meta).to_shareable()


class Checked(MaskedFedAvg):
    """Prints each round, and compares the mean with that of the survivors' updates."""

    def after_round(self, number: int, tensors: dict[str, Any], report: dict[str, Any]) -> None:
        if report["failed"]:
            print(f"ROUND {number}: no sum: {report['failed']}", flush=True)
            return
        weights = {site: examples_of(site) for site in report["survivors"]}
        mean = sum(weights[site] * update_of(site, number).astype(float) for site in weights) / sum(weights.values())
        error = float(np.abs(tensors["w"] - self.before - mean).max())
        self.before = tensors["w"].astype(float)
        size = sum(report["upload_bytes"].values()) / len(report["upload_bytes"])
        print(
            f"ROUND {number}: survivors {', '.join(report['survivors'])}; total weight {report['total_weight']}; "
            f"largest error of the mean {error:.1e}; loss {report['metrics']['loss']:.4f}; "
            f"{size:,.0f} B up per client; {report['exchanges']} exchanges; {report['seconds']} s",
            flush=True,
        )
        assert error < 1e-4

    before: Any = 0.0


def main() -> None:
    settings = {"clip_range": 0.5, "max_weight": 128, "threshold": 3, "metrics": {"loss": 10.0}}
    job = FedJob(name="masked-sums", min_clients=CLIENTS)
    model = {name: value.tolist() for name, value in MODEL.items()}
    job.to_server(Checked(num_rounds=ROUNDS, model=model, step_seconds=30, train_seconds=30, settings=settings))
    job.to_clients(Trainer(), tasks=["train"])
    job.to_clients(ProtocolExecutor({"minimum_clients": CLIENTS}), tasks=["securefl"])
    job.to_clients(ModelFilter(), filter_type=FilterType.TASK_DATA, tasks=["train"])
    job.to_clients(MaskFilter(), filter_type=FilterType.TASK_RESULT, tasks=["train"])
    folder = sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()
    job.simulator_run(str(Path(folder)), n_clients=CLIENTS, threads=CLIENTS, log_config="concise")


if __name__ == "__main__":
    main()
