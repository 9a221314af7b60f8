"""An NVFLARE job under protected sums, in NVFLARE's simulator: four clients, of which one fails in the second round.

python examples/nvflare_job/masked_job.py [WORKSPACE] [--protect masked|ckks|shared] [--key-model threshold|key_holder]

Needs securefl[nvflare]. ckks with a key holder, and shared, have a fifth site, the helper.
"""

import argparse
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workspace", nargs="?", default=None)
    parser.add_argument("--protect", choices=("masked", "ckks", "shared"), default="masked")
    parser.add_argument("--key-model", choices=("threshold", "key_holder"), default="threshold", help="of ckks")
    return parser.parse_args()


def main() -> None:
    chosen = arguments()
    helped = chosen.protect == "shared" or (chosen.protect == "ckks" and chosen.key_model == "key_holder")
    settings = {"clip_range": 0.5, "max_weight": 128, "threshold": 3, "metrics": {"loss": 10.0}}
    settings |= {"protect": chosen.protect, "key_model": chosen.key_model}
    # The simulator's sites have no files of their own; in a deployment each has a list of the others' public keys.
    policy = {"minimum_clients": CLIENTS, "allow_unpinned": True}
    job = FedJob(name="protected-sums", min_clients=CLIENTS + helped)
    model = {name: value.tolist() for name, value in MODEL.items()}
    job.to_server(Checked(num_rounds=ROUNDS, model=model, step_seconds=60, train_seconds=60, settings=settings))
    for site in (f"site-{i}" for i in range(1, CLIENTS + 1)):
        job.to(Trainer(), site, tasks=["train"])
        job.to(ProtocolExecutor(policy), site, tasks=["securefl"])
        job.to(ModelFilter(policy), site, filter_type=FilterType.TASK_DATA, tasks=["train"])
        job.to(MaskFilter(), site, filter_type=FilterType.TASK_RESULT, tasks=["train"])
    if helped:
        job.to(ProtocolExecutor(policy, role="helper"), f"site-{CLIENTS + 1}", tasks=["securefl"])
    folder = chosen.workspace or tempfile.mkdtemp()
    job.simulator_run(str(Path(folder)), threads=CLIENTS + helped, log_config="concise")


if __name__ == "__main__":
    main()
