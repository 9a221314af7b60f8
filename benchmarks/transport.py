"""One link of mutual TLS on loopback: throughput and round trips, beside the standard library's ssl socket.

Both ends are processes on this machine, so they share its cores and caches: read the ratios. The plain ssl socket moves
the same bytes with sendall and recv_into under the same certificates and cipher.
"""

from __future__ import annotations

import multiprocessing
import socket
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from _harness import command_line, write_figures

from securefl.transport.tls import Credentials, Listener, connect, pki

ANY = ("127.0.0.1", 0)


def serve(folder: str, pipe: Any) -> None:
    """The other end: takes what is sent and says so, for links and for plain sockets in turn."""
    credentials = Credentials.in_folder(Path(folder), "a")
    plain = socket.create_server(ANY)
    with Listener(ANY, credentials, ["b"]) as listener:
        pipe.send((listener.address, plain.getsockname()))
        link = listener.accept(60)
        raw, _ = plain.accept()
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = credentials.context(server=True).wrap_socket(raw, server_side=True)
        while True:
            kind, size = pipe.recv()
            target = np.empty(size, np.uint8)
            if kind == "stop":
                break
            if kind == "link":
                link.receive_into(target)
                link.send(b"!")
            elif kind == "socket":
                view, at = memoryview(target), 0
                while at < size:
                    at += stream.recv_into(view[at:])
                stream.sendall(b"!")
            else:
                for _ in range(size):
                    link.send(link.receive(8)) if kind == "link round trips" else stream.sendall(stream.recv(8))
        link.close()
        stream.close()
        plain.close()


def timed(pipe: Any, kind: str, size: int, step: Callable[[], object]) -> float:
    pipe.send((kind, size))
    begin = perf_counter()
    step()
    return perf_counter() - begin


def measure(size: int, trips: int, repeats: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pki.init(folder)
        for party in ("a", "b"):
            pki.issue(folder, party)
        context = multiprocessing.get_context("spawn")
        pipe, theirs = context.Pipe()
        process = context.Process(target=serve, args=(name, theirs), daemon=True)
        process.start()
        address, plain = pipe.recv()
        credentials = Credentials.in_folder(folder, "b")
        link = connect(address, credentials, "a")
        raw = socket.create_connection(plain)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = credentials.context(server=False).wrap_socket(raw, server_hostname="a")
        data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)

        def by_link() -> None:
            link.send(data)
            link.receive(1)

        def by_socket() -> None:
            stream.sendall(data)
            stream.recv(1)

        def link_trips() -> None:
            for _ in range(trips):
                link.send(b"12345678")
                link.receive(8)

        def socket_trips() -> None:
            for _ in range(trips):
                stream.sendall(b"12345678")
                stream.recv(8)

        times: dict[str, list[float]] = {}
        for _ in range(repeats + 1):
            for kind, amount, step in (
                ("link", size, by_link),
                ("socket", size, by_socket),
                ("link round trips", trips, link_trips),
                ("socket round trips", trips, socket_trips),
            ):
                times.setdefault(kind, []).append(timed(pipe, kind, amount, step))
        pipe.send(("stop", 0))
        link.close()
        stream.close()
        process.join(10)
    median = {kind: statistics.median(values[1:]) for kind, values in times.items()}
    return {
        "megabytes": size / 1e6,
        "link_mb_per_s": size / 1e6 / median["link"],
        "ssl_socket_mb_per_s": size / 1e6 / median["socket"],
        "throughput_ratio": statistics.median(
            s / k for s, k in zip(times["socket"][1:], times["link"][1:], strict=True)
        ),
        "link_round_trip_us": 1e6 * median["link round trips"] / trips,
        "ssl_socket_round_trip_us": 1e6 * median["socket round trips"] / trips,
    }


def main() -> None:
    arguments = command_line(__doc__)
    result = measure(*((8 << 20, 50, 3) if arguments.quick else (128 << 20, 500, 7)))
    write_figures(result, arguments.json)
    if arguments.json == "-":
        return
    print(f"one link, {result['megabytes']:.0f} MB messages, both ends on this machine (medians)")
    print(
        f"  securefl link       {result['link_mb_per_s']:7.0f} MB/s   round trip {result['link_round_trip_us']:6.0f} us"
    )
    print(
        f"  ssl socket (stdlib) {result['ssl_socket_mb_per_s']:7.0f} MB/s   round trip "
        f"{result['ssl_socket_round_trip_us']:6.0f} us"
    )
    print(f"  throughput ratio    {result['throughput_ratio']:7.2f}x (median of pairs)")


if __name__ == "__main__":
    main()
