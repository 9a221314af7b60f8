"""A computing party as a process of this machine: ``python -m securefl.cluster.process``, started by ``local_cluster``.

It gets its links as open sockets and talks to nobody else.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys
from contextlib import suppress
from time import perf_counter

import numpy as np

from securefl.cluster.control import CLIENT, serve
from securefl.cluster.sockets import SocketChannel
from securefl.errors import LostPartyError, SecureFLError
from securefl.mpc import gemm
from securefl.mpc.channel import HELPER, PARTIES
from securefl.mpc.operations import PARTY_KINDS
from securefl.mpc.party import join
from securefl.mpc.service import Service

__all__ = ["calibrate", "main"]

_TRIALS = 6
#: Bytes of deals that may wait for the next, so that the many small ones of a softmax are a few messages to the system.
_GATHERED = 1 << 15
#: About as long as the system takes to wake a party: staying awake for longer only takes time from the others.
_SECONDS_AWAKE = 50e-6


def calibrate(size: int = 192) -> str:
    """Choose the faster way to multiply matrices, on matrices of this size; its name.

    The least of several times each: three parties start at once, and one that is interrupted must not end with the
    slower way.
    """
    words = np.random.default_rng(0).integers(0, 2**64, (size, size), dtype=np.uint64)
    ways = gemm.candidates()
    times = dict.fromkeys(ways, float("inf"))
    for _ in range(_TRIALS):
        for way in ways:
            start = perf_counter()
            way(words, words)  # the first call loads libraries
            times[way] = min(times[way], perf_counter() - start)
    best = min(ways, key=times.__getitem__)
    gemm.use(best)
    return best.__name__.strip("_")


def one_thread() -> None:
    """Three parties share the machine; two of torch's threads wait for each other where cores are few."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def main() -> int:
    """Run one party until its client is done."""
    parser = argparse.ArgumentParser(prog="securefl.cluster.process")
    parser.add_argument("--party", type=int, choices=range(PARTIES), required=True)
    parser.add_argument("--session", required=True)
    parser.add_argument("--engine", choices=sorted(PARTY_KINDS), required=True)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--link", type=int, nargs=2, action="append", metavar=("PARTY", "SOCKET"), required=True)
    parser.add_argument("--deadline", type=float, required=True)
    parser.add_argument("--cores", type=_numbers, default=())
    chosen = parser.parse_args()
    if chosen.cores:
        with suppress(OSError):  # where it is not allowed it is only slower
            os.sched_setaffinity(0, chosen.cores)
    control = SocketChannel(chosen.party, {CLIENT: socket.socket(fileno=chosen.control)}, deadline=None)
    links = {number: socket.socket(fileno=handle) for number, handle in chosen.link}
    # A helper receives nothing and is ahead of the servers: its small deals go out together.
    gather = _GATHERED if chosen.party == HELPER and not PARTY_KINDS[chosen.engine].replicated else 0
    # Where the other server has other cores, its answer comes sooner than this one falls asleep and wakes again.
    channel = SocketChannel(chosen.party, links, chosen.deadline, gather, _SECONDS_AWAKE if chosen.cores else 0.0)
    calibrate()
    one_thread()
    gc.collect()
    gc.freeze()  # what was imported stays: no later collection walks it
    try:
        control.send(CLIENT, b"ready")
        serve(
            Service(join(channel, bytes.fromhex(chosen.session), kind=PARTY_KINDS[chosen.engine])),
            control,
            channel.flush,
        )
    except LostPartyError:
        return 1  # reported, or there is nobody left to report to
    except SecureFLError as error:
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        return 1
    finally:
        control.flush()
        control.close()
        channel.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
