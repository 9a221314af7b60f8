"""Running a step that reads another party's bytes in a child process with limits on memory and time.

    CKKSSum(guard=confined())

The child is a copy of this process (``fork``) whose address space may not grow by more than ``memory`` bytes and whose
processor time is limited; it runs the step, says by a pipe how it ended, and is gone. A crash in native code, an
allocation without end or an endless loop then is a named error here, and whatever the step did to the child's memory
stays there. It is no sandbox: the child may open files. POSIX only, and for processes of one thread: ``fork`` takes
along the calling thread and the locks that others hold.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import signal
from collections.abc import Callable
from typing import Final

from securefl import errors
from securefl.errors import ConfigurationError, DecodeError, FaultyClientError, SecureFLError

__all__ = ["confined"]

_LIMIT: Final = 4096
_NAMES: Final = {name: getattr(errors, name) for name in errors.__all__}


def confined(*, memory: int = 1 << 30, seconds: int = 60) -> Callable[[Callable[[], object]], None]:
    """A guard: runs a step in a child with at most ``memory`` bytes more than now and ``seconds`` of processor time.

    The guard raises what the step raised, when that is one of ``securefl.errors`` (its message cut to 4 KiB), and
    :class:`DecodeError` when the child died, ran out of memory or time. Raises :class:`ConfigurationError` where there
    is no ``fork``.
    """
    if not hasattr(os, "fork"):  # pragma: no cover - not POSIX
        raise ConfigurationError("confining a step takes fork, which this system does not have")
    if memory < 1 or seconds < 1:
        raise ConfigurationError("a child process needs memory and at least a second")
    return lambda step: _run(step, memory, seconds)


def _run(step: Callable[[], object], memory: int, seconds: int) -> None:
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(readable)
        _child(step, writable, memory, seconds)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        said = pipe.read(_LIMIT + 256)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        raise DecodeError(f"reading a message ended its process by {name}: more than {seconds} s, or a crash")
    if os.waitstatus_to_exitcode(status) or not said:
        raise DecodeError("reading a message ended its process without an answer")
    kind, _, sentence = said.decode("utf-8", "replace").partition("\n")
    if kind == "ok":
        return
    if kind == "memory":
        raise DecodeError(f"reading a message took more than {memory} bytes of memory")
    blamed, _, sentence = sentence.partition("\n")
    if kind == FaultyClientError.__name__:
        raise FaultyClientError(sentence, [int(client) for client in blamed.split()])
    raise _NAMES.get(kind, DecodeError)(sentence)


def _child(step: Callable[[], object], writable: int, memory: int, seconds: int) -> None:
    """Never returns."""
    try:
        faulthandler.disable()  # a crash is told by its signal
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        limit = _address_space() + memory
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
        try:
            step()
            said = "ok"
        except MemoryError:
            said = "memory"
        except SecureFLError as error:
            blamed = " ".join(map(str, getattr(error, "clients", ())))
            said = f"{type(error).__name__}\n{blamed}\n{error}"
        os.write(writable, said.encode("utf-8")[:_LIMIT])
        os._exit(0)
    finally:
        os._exit(1)


def _address_space() -> int:
    """Bytes of this process's address space; 16 GiB where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as pages:
            return int(pages.read().split()[0]) * resource.getpagesize()
    except OSError:  # pragma: no cover - not Linux
        return 1 << 34
