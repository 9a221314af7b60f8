"""The masked sum over a transport of your own: sans-IO roles on asyncio TCP streams, on this machine. Base install.

The roles know neither sockets nor clocks; this file brings both. It leaves out what TLS is for: in a deployment each
client proves who it is, since the server must know that a frame comes from the client that the frame names.
"""

import asyncio

import numpy as np

from securefl.errors import DecodeError, SecureFLError
from securefl.machine import Aborted, Completed, NeedInput, Send, SumResult
from securefl.secagg import Client, Params, Server
from securefl.secagg.messages import client_limits, server_limits
from securefl.types import ClientId, IntegerVector, PartyId
from securefl.wire import CHECKSUM_BYTES, HEADER_BYTES, body_length

PARAMS = Params(clients=tuple(map(PartyId, range(1, 6))), dimension=1000, max_value=65535, threshold=3)
GREEDY = PartyId(4)  # shares its keys, then announces a vector of 2^60 bytes
EXCHANGE_SECONDS = 5.0
gone: dict[int, str] = {}  # who is no longer connected, and why


async def read_frame(reader: asyncio.StreamReader, limits: dict[int, int]) -> bytes:
    header = await reader.readexactly(HEADER_BYTES)  # the length is judged before anything else is read
    return header + await reader.readexactly(body_length(header, limits=limits) + CHECKSUM_BYTES)


async def serve(port: "asyncio.Future[int]") -> SumResult:
    server, streams, clock = Server(PARAMS), {}, asyncio.get_running_loop().time

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = int.from_bytes(await reader.readexactly(4), "big")  # stands for the name in a client certificate
        streams[me] = writer
        try:
            while True:
                frame = await read_frame(reader, server_limits(PARAMS))
                if int.from_bytes(frame[4:8], "big") != me:  # the sender that the header names
                    raise DecodeError("it speaks for another client")
                server.receive(frame)  # when it raises, nothing has changed in the session
        except (SecureFLError, asyncio.IncompleteReadError) as error:  # this client is listened to no more
            gone[me] = f"{type(error).__name__}: {error}"
        writer.close()

    listener = await asyncio.start_server(connection, "127.0.0.1", 0)
    port.set_result(listener.sockets[0].getsockname()[1])
    server.start()
    while True:
        deadline = clock() + EXCHANGE_SECONDS  # the caller owns time: wait for those who may still answer
        while set(server.waiting_for) - gone.keys() and clock() < deadline:
            await asyncio.sleep(0.01)
        print("exchange closed; dropped:", *server.waiting_for or ("nobody",))
        for event in server.close_round():
            if isinstance(event, Send) and event.to not in gone:
                streams[event.to].write(event.frame)
            elif isinstance(event, Aborted):
                raise event.reason
            elif isinstance(event, Completed):
                listener.close()
                return event.result


async def take_part(me: ClientId, port: int, values: IntegerVector) -> None:
    role = Client(PARAMS, me, minimum_survivors=3)  # the floor is this client's own, not the server's
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(me.to_bytes(4, "big"))
    todo = [*role.start()]
    while todo:
        event = todo.pop(0)
        if isinstance(event, Send) and me == GREEDY and role.state.name == "MASKED":
            writer.write(event.frame[:16] + (2**60).to_bytes(8, "big") + event.frame[24:HEADER_BYTES])
            break
        if isinstance(event, Send):
            writer.write(event.frame)
        elif isinstance(event, NeedInput):
            todo += role.provide(values)
        elif isinstance(event, Aborted):
            raise event.reason
        if not todo and not isinstance(event, Completed):
            todo += role.receive(await read_frame(reader, client_limits(PARAMS)))
    writer.close()
    await writer.wait_closed()


async def main() -> None:
    inputs = {i: np.random.default_rng(i).integers(0, 65536, 1000, dtype=np.uint64) for i in PARAMS.clients}
    async with asyncio.TaskGroup() as tasks:
        summing = tasks.create_task(serve(port := asyncio.get_running_loop().create_future()))
        for client, values in inputs.items():
            tasks.create_task(take_part(client, await port, values))
    result = summing.result()
    print(f"refused: client {GREEDY}: {gone[GREEDY]}")
    print("survivors:", *result.survivors, "| their sum is exact, it begins", *result.values[:4])
    assert (result.survivors, gone[GREEDY][:11]) == ((1, 2, 3, 5), "DecodeError")
    assert (result.values == sum(inputs[i] for i in result.survivors)).all()


if __name__ == "__main__":
    asyncio.run(main())
