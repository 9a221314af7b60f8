"""Weighted means under masks in a system of your own: here plain HTTP/1.1 on asyncio, nothing else. Base install.

``Coordinator`` and ``Participant`` take tensors, weights and metrics to frames and back; this file only carries bytes:
GET /ID gives the invitation, POST /ID takes a frame and answers, once the exchange is closed, with the next one. Left
out are TLS and who is who: in a deployment, the id in the path must be the authenticated client's.
"""

import asyncio
import os

import numpy as np

from securefl.encoding.layout import Layout
from securefl.integrations.coordinator import Coordinator
from securefl.integrations.invitation import Invitation
from securefl.integrations.participant import Participant
from securefl.integrations.policy import Policy
from securefl.types import PartyId

CLIENTS, SILENT, SECONDS, LIMIT = 5, 4, 2.0, 2**20
SHAPES = Layout.of({"w": np.zeros((30, 4), np.float32), "b": np.zeros(4, np.float32)})
INVITATION = Invitation(
    kind="train", protect="masked", suite="mlkem768-x25519", session=os.urandom(16), round=1, clients=CLIENTS,
    threshold=3, value_bits=16, clip_range=0.5, clip_norm=0.0, max_weight=64, weight_key="examples",
    layout=SHAPES.tensors, metrics=(("loss", 4.0),), model_hash=bytes(32), arguments_hash=bytes(32),
)  # fmt: skip


def local_work(me: int) -> tuple[dict[str, np.ndarray], int, dict[str, float]]:  # update, weight, metrics
    draw = np.random.default_rng(me)
    update = {spec.name: draw.uniform(-0.4, 0.4, spec.shape).astype(np.float32) for spec in SHAPES.tensors}
    return update, 10 * me, {"loss": 1 / me}


async def serve(listening: "asyncio.Future[int]") -> Coordinator:
    coordinator, waiting = Coordinator(INVITATION), dict[int, asyncio.Future[bytes]]()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")
        method, path, _ = head[0].split()
        me, answer = PartyId(int(path[1:])), INVITATION.encode()
        if method == "POST":
            length = next(int(line.split(":")[1]) for line in head if line.lower().startswith("content-length"))
            frame = await reader.readexactly(min(length, LIMIT))  # what is longer is no frame of this sum
            waiting[me] = asyncio.get_running_loop().create_future()
            coordinator.receive(me, [frame])
            answer = await waiting[me]
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(answer)}\r\n\r\n".encode() + answer)
        writer.close()

    server, clock = await asyncio.start_server(handle, "127.0.0.1", 0), asyncio.get_running_loop().time
    listening.set_result(server.sockets[0].getsockname()[1])
    while not coordinator.over:
        deadline = clock() + SECONDS  # the caller owns time
        while coordinator.waiting_for and clock() < deadline:
            await asyncio.sleep(0.01)
        frames = coordinator.close()
        for client, future in waiting.items():  # those with nothing to get are done
            if not future.done():
                future.set_result(bytes(frames[client][0]) if client in frames else b"")
    server.close()
    return coordinator


async def ask(port: int, method: str, me: int, body: bytes = b"") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} /{me} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    answer = (await reader.read()).partition(b"\r\n\r\n")[2]
    writer.close()
    return answer


async def take_part(me: int, port: int) -> None:
    policy = Policy(minimum_clients=4, minimum_threshold=3)  # this client's own floors, whatever the server proposes
    participant, frames = Participant.invited(await ask(port, "GET", me), PartyId(me), policy)
    while frames or (participant.ready and me != SILENT):
        if participant.ready:  # the vector is asked for: now train
            frames += participant.provide(participant.coder.encode(*local_work(me)))
        answer = await ask(port, "POST", me, bytes(frames[0]))
        frames = participant.receive([answer]) if answer else []


async def main() -> None:
    async with asyncio.TaskGroup() as tasks:
        summing = tasks.create_task(serve(port := asyncio.get_running_loop().create_future()))
        for me in range(1, CLIENTS + 1):
            tasks.create_task(take_part(me, await port))
    coordinator = summing.result()
    means = coordinator.coder.decode(coordinator.result)
    alive = [me for me in range(1, CLIENTS + 1) if me != SILENT]
    wanted = sum(10 * me * local_work(me)[0]["w"].astype(float) for me in alive) / means.total_weight
    error = np.abs(means.update["w"] - wanted).max()
    print("survivors:", *coordinator.result.survivors, "| dropped:", coordinator.dropped())
    print(f"total weight {means.total_weight}, mean loss {means.metrics['loss']:.3f}, error of the mean {error:.1e}")
    assert coordinator.result.survivors == tuple(alive) and error < 1e-4  # noqa: PT018


if __name__ == "__main__":
    asyncio.run(main())
