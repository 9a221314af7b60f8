"""Commands to a party and its answers, over any channel. SPEC mpc §9.

A command is two messages: the sizes of its text and of its bytes (u64 each), then both. An answer is two messages: a
status and a size (u64 each), then its bytes. An error is answered by its name and its sentence, and ends the service.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Final

from securefl import errors
from securefl.errors import DecodeError, ProtocolError, SecureFLError
from securefl.mpc.channel import Channel
from securefl.mpc.service import MAX_COMMAND_BYTES, MAX_PAYLOAD_BYTES, Service
from securefl.wire import Buffer

__all__ = ["CLIENT", "answer", "ask", "serve"]

#: The client's number among the links of a party.
CLIENT: Final = 3
_SIZES: Final = struct.Struct(">QQ")
_DONE, _FAILED = 0, 1
_MAX_ERROR_BYTES: Final = 1 << 16


def ask(link: Channel, party: int, command: bytes, payload: Buffer = b"") -> None:
    """Send a command to a party; does not wait."""
    link.send(party, _SIZES.pack(len(command), memoryview(payload).nbytes))
    link.send(party, command, payload)


def answer(link: Channel, party: int, limit: int) -> memoryview:
    """The answer to a command that has one, of at most ``limit`` bytes. Raises the error that the party reports."""
    status, size = _SIZES.unpack(link.receive(party, _SIZES.size))
    if status == _FAILED:
        if size > _MAX_ERROR_BYTES:
            raise DecodeError(f"party {party} reports an error at too great a length")
        raise _reported(party, link.receive(party, size))
    if status != _DONE or size > limit:
        raise DecodeError(f"party {party} answers with {size} bytes where at most {limit} are due")
    return link.receive(party, size)


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


def serve(service: Service, control: Channel, idle: Callable[[], None] = lambda: None) -> None:
    """Do the client's commands until it says goodbye or is gone.

    ``idle``: called before waiting for a command, to let out what the links still hold. Raises what ended the service,
    after reporting it.
    """
    try:
        while True:
            idle()
            text, extra = _SIZES.unpack(control.receive(CLIENT, _SIZES.size))
            if text > MAX_COMMAND_BYTES or extra > MAX_PAYLOAD_BYTES:
                raise DecodeError(f"a command of {text} and {extra} bytes is too long")
            message = control.receive(CLIENT, text + extra)
            waits, result = service.handle(message[:text], message[text:])
            if waits:
                idle()
                control.send(CLIENT, _SIZES.pack(_DONE, memoryview(result).nbytes))
                control.send(CLIENT, result)
            if bytes(message[:text]) == b'{"do":"bye"}':
                return
    except SecureFLError as error:
        if getattr(error, "party", None) != CLIENT:
            report = {"error": type(error).__name__, "text": str(error), "party": getattr(error, "party", None)}
            body = json.dumps(report).encode()[:_MAX_ERROR_BYTES]
            control.send(CLIENT, _SIZES.pack(_FAILED, len(body)))
            control.send(CLIENT, body)
        raise
