"""``local_cluster``: the three parties on this machine, as processes or threads."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from securefl.cluster.control import CLIENT, serve
from securefl.cluster.servers import Servers, check_engine
from securefl.cluster.sockets import SocketChannel, connected_pair
from securefl.errors import ConfigurationError, SecureFLError
from securefl.mpc.channel import HELPER, PARTIES, memory_channels
from securefl.mpc.operations import PARTY_KINDS
from securefl.mpc.party import join
from securefl.mpc.service import Service
from securefl.primitives.entropy import SystemEntropy

__all__ = ["PARTY_ENVIRONMENT", "local_cluster"]

#: One thread each, since three parties share the machine; freed memory is kept, since the same sizes come again.
PARTY_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 32),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
_SECONDS_TO_LEAVE = 5.0
#: Three interpreters import numpy and torch, on a machine that may be busy.
_SECONDS_TO_START = 120.0


def local_cluster(
    *,
    engine: str = "dealer",
    parties: str = "processes",
    links: str = "unix",
    deadline: float = 60.0,
    audit: float = 0.0,
) -> Servers:
    """Three parties on this machine, to be used in a ``with`` statement.

    ``engine``: "dealer", two servers and a helper that deals masks, or "replicated", three servers of which any two
    have everything and each one alone nothing (:mod:`securefl.mpc.operations`).
    ``parties``: "processes" (each its own, of this user: a demonstration and a test bed, not a separation of trust), or
    "threads" of this one. ``links`` of processes: "unix" socket pairs or "tcp" over loopback. ``deadline``: seconds
    without progress after which a party gives the others up. ``audit``: the share of batches in which the helper is
    checked (:class:`Servers`). Raises :class:`ConfigurationError` for other choices.
    """
    check_engine(engine, audit)
    if links not in {"unix", "tcp"}:
        raise ConfigurationError(f"links between local parties are 'unix' or 'tcp', not {links!r}")
    if parties == "threads":
        return _threads(engine, deadline, audit)
    if parties != "processes":
        raise ConfigurationError(f"local parties are 'processes' or 'threads', not {parties!r}")
    return _processes(engine, links, deadline, audit)


def _threads(engine: str, deadline: float, audit: float) -> Servers:
    channels = memory_channels(deadline=deadline)
    controls = memory_channels(PARTIES + 1, deadline=None)
    session = SystemEntropy().token(16)

    def run(me: int) -> None:
        try:
            with suppress(SecureFLError):  # reported to the client
                serve(Service(join(channels[me], session, kind=PARTY_KINDS[engine])), controls[me])
        finally:
            channels[me].close()
            controls[me].close()

    pool = ThreadPoolExecutor(PARTIES, thread_name_prefix="party")
    for me in range(PARTIES):
        pool.submit(run, me)
    return Servers(controls[CLIENT], on_close=pool.shutdown, audit=audit, engine=engine)


def _cores(servers: int) -> list[str]:
    """Cores for each of the servers, where the system lets us choose and there are as many; otherwise nothing.

    Servers wake each other at every message, and a scheduler brings whom it wakes to the core of the waker, even when
    another one is idle: two servers then take turns on one core.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < servers:
        return []
    return [",".join(map(str, cores[number::servers])) for number in range(servers)]


def _processes(engine: str, links: str, deadline: float, audit: float) -> Servers:
    pairs = {(a, b): connected_pair(links) for a in range(PARTIES) for b in range(a + 1, PARTIES)}
    controls = [connected_pair("unix") for _ in range(PARTIES)]
    session = SystemEntropy().token(16).hex()
    processes = []
    cores = _cores(PARTIES if PARTY_KINDS[engine].replicated else HELPER)
    for me in range(PARTIES):
        own = {
            b if a == me else a: pair[0 if a == me else 1].fileno() for (a, b), pair in pairs.items() if me in (a, b)
        }
        control = controls[me][1].fileno()
        command = [
            sys.executable,
            "-m",
            "securefl.cluster.process",
            "--party",
            str(me),
            "--session",
            session,
            "--engine",
            engine,
        ]
        command += ["--control", str(control), "--deadline", str(deadline)]
        command += ["--cores", cores[me]] if me < len(cores) else []
        for other, handle in own.items():
            command += ["--link", str(other), str(handle)]
        environment = {
            **os.environ,
            **PARTY_ENVIRONMENT,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        processes.append(subprocess.Popen(command, env=environment, pass_fds=[control, *own.values()]))  # noqa: S603
    for end in [*(end for pair in pairs.values() for end in pair), *(control[1] for control in controls)]:
        end.close()  # a party alone holds its ends: when it dies, the others see it
    channel = SocketChannel(CLIENT, {me: control[0] for me, control in enumerate(controls)})

    def leave() -> None:
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(_SECONDS_TO_LEAVE)
            if process.poll() is None:
                process.kill()
                process.wait()

    servers = Servers(channel, on_close=leave, audit=audit, engine=engine)
    channel.deadline = max(deadline, _SECONDS_TO_START)
    try:
        for me in range(PARTIES):
            channel.receive(me, len(b"ready"))
    except BaseException:
        for process in processes:
            process.kill()
        servers._shut()
        raise
    channel.deadline = deadline
    servers.processes = tuple(process.pid for process in processes)
    return servers
