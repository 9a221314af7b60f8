"""Who is in the run: the server waits until enough clients are there, and says what to do when they do not come."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from securefl.errors import TooFewClientsError

if TYPE_CHECKING:
    from flwr.serverapp import Grid

LEAST = 2  # what one sum takes: over one client it would be that client's update
SETTLED_SECONDS = 3.0  # nobody else has come for so long: those that are there are the cohort


def helpers(run_config: Mapping[str, Any]) -> int:
    """1 where sums need a key holder or second server, which is one SuperNode more than there are clients."""
    protect, key_model = run_config["protect"], run_config["key-model"]
    return int(protect == "shared" or (protect == "ckks" and key_model != "threshold"))


def clients_there(
    grid: Grid,
    run_config: Mapping[str, Any],
    now: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """How many clients are there, once it is ``nodes`` of them or more; for 0: two or more, and no more come.

    Raises TooFewClientsError after ``wait-seconds``. ``now``, ``pause``: the clock, and what waits so many seconds.
    """
    wanted, seconds, others = int(run_config["nodes"]), float(run_config["wait-seconds"]), helpers(run_config)
    started = since = now()
    count, least = -1, max(wanted, LEAST)
    while True:
        there = len(list(grid.get_node_ids())) - others
        if there != count:
            count, since = there, now()
        if count >= least and (wanted or now() - since >= SETTLED_SECONDS):
            return count
        if now() - started >= seconds:
            raise TooFewClientsError(_too_few(max(count, 0), least, others, wanted, seconds))
        pause(0.5)


def _too_few(count: int, least: int, others: int, wanted: int, seconds: float) -> str:
    start = max(least, 8) + others
    return (
        f"{count} clients are there after {seconds:.0f} s{', and one SuperNode is the helper' if others else ''}; this "
        f"run needs {least} (its setting nodes={wanted}). In the simulation, where Flower starts 2 SuperNodes unless "
        f'told otherwise: flwr run … --federation-config "num-supernodes={start}". In a deployment: start more '
        "SuperNodes, wait longer (wait-seconds), or do with fewer (nodes)"
    )
