"""CrypTen 0.4.1 beside us: its parties as processes of their own over gloo on loopback, driven one job at a time.

Models are made of its own ``crypten.nn`` modules, without its ONNX import. With torch 2.13 it needs one name that torch
no longer has, and that this import alone asks for: it is given an empty one. Nothing else of it is changed.

``provider``: "TFP", its default, in which the first of two parties deals the correlations itself ("for debugging"), or
"TTP", two parties and a dealer in a process of its own, which is the trust that our helper is given.

    python3 dev.py bench --peers mpc
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, Self

__all__ = ["Peer", "installed"]

_SERVERS = 2
_DEALER = 2


def installed() -> bool:
    """Whether CrypTen and what it imports are here."""
    return all(find_spec(name) is not None for name in ("crypten", "onnx", "omegaconf", "yaml"))


class Peer:
    """Its processes. Use it in a ``with`` statement."""

    def __init__(self, provider: str, values: int, size: int) -> None:
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        meeting = Path(self._folder.name, "meeting")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = {**os.environ, **threads, "PYTHONPATH": path, "PYTHONWARNINGS": "ignore"}
        ranks = range(_SERVERS + (provider == "TTP"))
        self._parties = [
            subprocess.Popen(
                [sys.executable, __file__, provider, str(rank), str(meeting), str(values), str(size)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                text=True,
            )
            for rank in ranks
        ]

    def run(self, job: str) -> dict[str, float]:
        """One run of a job: its milliseconds at the first party and, of inference, the largest error."""
        for party in self._parties[:_SERVERS]:
            if party.stdin is None or party.poll() is not None:
                raise RuntimeError("a party of CrypTen has ended")
            party.stdin.write(job + "\n")
            party.stdin.flush()
        lines = [party.stdout.readline() if party.stdout is not None else "" for party in self._parties[:_SERVERS]]
        if not all(lines):
            raise RuntimeError(f"a party of CrypTen ended in {job!r}")
        answer: dict[str, float] = json.loads(lines[0])
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for party in self._parties:
            party.kill()
            party.communicate()
        self._folder.cleanup()


def _jobs(values: int, size: int) -> dict[str, Any]:
    """Work of a party by name. Inference shares the input, computes and reveals; the others work on shares."""
    import crypten
    import crypten.nn
    import crypten.optim
    import torch

    torch.manual_seed(0)  # the same at both

    def mlp() -> Any:
        return crypten.nn.Sequential(crypten.nn.Linear(784, 128), crypten.nn.ReLU(), crypten.nn.Linear(128, 10))

    inputs = {batch: torch.rand(batch, 784) for batch in (1, 128)}
    net = mlp()
    expected = {batch: net(x) for batch, x in inputs.items()}
    model = net.encrypt()
    model.eval()

    def inference(batch: int) -> float:
        with crypten.no_grad():
            found = model(crypten.cryptensor(inputs[batch], src=0)).get_plain_text()
        return float((found - expected[batch]).abs().max())

    many = crypten.cryptensor(torch.randn(values))
    left, right = (crypten.cryptensor(torch.randn(size, size)) for _ in range(2))
    student, loss = mlp().encrypt(), crypten.nn.CrossEntropyLoss()
    student.train()
    optimizer = crypten.optim.SGD(student.parameters(), lr=0.125)
    images = crypten.cryptensor(torch.rand(128, 784))
    labels = crypten.cryptensor(torch.eye(10)[torch.randint(0, 10, (128,))])

    def train() -> None:
        found = loss(student(images), labels)
        student.zero_grad()
        found.backward()
        optimizer.step()

    def without_gradients(work: Any) -> Any:
        def run() -> None:
            with crypten.no_grad():
                work()

        return run

    return {
        "inference, batch 1": lambda: inference(1),
        "inference, batch 128": lambda: inference(128),
        "relu": without_gradients(many.relu),
        "matmul": without_gradients(lambda: left.matmul(right)),
        "training step": train,
    }


def _party(provider: str, rank: int, meeting: str, values: int, size: int) -> None:
    missing = "torch.onnx._internal.registration"
    if find_spec(missing) is None:
        sys.modules[missing] = ModuleType(missing)
        sys.modules[missing].registry = None  # type: ignore[attr-defined]
    import crypten
    import torch

    torch.set_num_threads(1)
    settings = {"WORLD_SIZE": _SERVERS, "RANK": rank, "RENDEZVOUS": f"file://{meeting}", "DISTRIBUTED_BACKEND": "gloo"}
    os.environ.update({name: str(value) for name, value in settings.items()}, GLOO_SOCKET_IFNAME="lo")
    crypten.cfg.mpc.provider = provider
    if rank == _DEALER:
        crypten.mpc.provider.TTPServer()
        return
    crypten.init()
    jobs = _jobs(values, size)
    for line in sys.stdin:
        work = jobs[line.strip()]
        crypten.comm.get().barrier()
        start = perf_counter()
        error = work()
        taken = {"milliseconds": 1e3 * (perf_counter() - start)}
        print(json.dumps(taken if error is None else {**taken, "error": error}), flush=True)


if __name__ == "__main__":
    _party(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
