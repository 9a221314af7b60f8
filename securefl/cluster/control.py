"""Commands to a party and its answers, over any channel. SPEC mpc §9.

A message of the client holds one or more commands: the sizes of text and bytes (u64 each), bytes, text, and zeros to a
multiple of 8, so that bytes can be read as words where they lie. An
answer is one message: a status (u64) and its bytes. An error is answered by its name and its sentence, and ends the
service.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from typing import Final

from securefl import errors
from securefl.errors import DecodeError, ProtocolError, SecureFLError
from securefl.mpc.channel import Channel
from securefl.mpc.handover import Handed
from securefl.mpc.service import MAX_COMMAND_BYTES, MAX_PAYLOAD_BYTES, Service
from securefl.wire import Buffer

__all__ = ["CLIENT", "MAX_MESSAGE_BYTES", "answer", "ask", "serve"]

#: The client's number among the links of a party.
CLIENT: Final = 3
_SIZES: Final = struct.Struct(">QQ")
_STATUS: Final = struct.Struct(">Q")
_DONE, _FAILED = 0, 1
_MAX_ERROR_BYTES: Final = 1 << 16
#: Of one message of a client.
MAX_MESSAGE_BYTES: Final = MAX_PAYLOAD_BYTES + 2 * MAX_COMMAND_BYTES


def ask(link: Channel, party: int, *commands: tuple[bytes, Handed]) -> None:
    """Send commands, each with its bytes, to a party in one message; does not wait."""
    pieces: list[Buffer] = []
    for command, payload in commands:
        size = sum(memoryview(part).nbytes for part in payload)
        pieces += [_SIZES.pack(len(command), size), *payload, command + bytes(-(len(command) + size) % 8)]
    link.send(party, *pieces)


def answer(link: Channel, party: int, limit: int) -> memoryview:
    """The answer to a command that has one, of at most ``limit`` bytes. Raises the error that the party reports."""
    message = link.receive_up_to(party, _STATUS.size + max(limit, _MAX_ERROR_BYTES))
    if message.nbytes < _STATUS.size:
        raise DecodeError(f"party {party} answers with {message.nbytes} bytes, which hold no status")
    (status,), body = _STATUS.unpack_from(message), message[_STATUS.size :]
    if status == _FAILED:
        if body.nbytes > _MAX_ERROR_BYTES:
            raise DecodeError(f"party {party} reports an error at too great a length")
        raise _reported(party, body)
    if status != _DONE or body.nbytes > limit:
        raise DecodeError(f"party {party} answers with {body.nbytes} bytes where at most {limit} are due")
    return body


def _reported(party: int, data: memoryview) -> SecureFLError:
    """The error of a party, of the same class where that is one of ours."""
    try:
        report = json.loads(bytes(data))
        name, text, blamed = str(report["error"]), str(report["text"]), report.get("party")
    except (ValueError, KeyError, TypeError, AttributeError):
        return DecodeError(f"party {party} failed and its report does not decode")
    kind = getattr(errors, name) if name in errors.__all__ else ProtocolError
    error: SecureFLError = kind(f"party {party}: {text}")
    if hasattr(error, "party") and type(blamed) is int:
        error.party = blamed
    return error


def _commands(message: memoryview) -> Iterator[tuple[memoryview, memoryview]]:
    """Text and bytes of each command in a message. Raises :class:`DecodeError`."""
    while message.nbytes:
        if message.nbytes < _SIZES.size:
            raise DecodeError("a message of commands is cut off")
        text, extra = _SIZES.unpack_from(message)
        message = message[_SIZES.size :]
        if text > MAX_COMMAND_BYTES or extra > MAX_PAYLOAD_BYTES:
            raise DecodeError(f"a command of {text} and {extra} bytes is too long")
        size = text + extra + -(text + extra) % 8
        if size > message.nbytes:
            raise DecodeError("a message of commands is cut off")
        yield message[extra : extra + text], message[:extra]
        message = message[size:]


def serve(service: Service, control: Channel, idle: Callable[[], None] = lambda: None) -> None:
    """Do the client's commands until it says goodbye or is gone.

    ``idle``: called before waiting for a command, to let out what the links still hold. Raises what ended the service,
    after reporting it.
    """
    try:
        while True:
            idle()
            for command, payload in _commands(control.receive_up_to(CLIENT, MAX_MESSAGE_BYTES)):
                waits, result = service.handle(command, payload)
                if waits:
                    idle()
                    control.send(CLIENT, _STATUS.pack(_DONE), result)
                if bytes(command) == b'{"do":"bye"}':
                    return
    except SecureFLError as error:
        if getattr(error, "party", None) != CLIENT:
            report = {"error": type(error).__name__, "text": str(error), "party": getattr(error, "party", None)}
            control.send(CLIENT, _STATUS.pack(_FAILED), json.dumps(report).encode()[:_MAX_ERROR_BYTES])
        raise
