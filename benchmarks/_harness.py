"""What the benchmarks share: their command line, a stopwatch, and what the machine is."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable
from importlib.metadata import version
from time import perf_counter
from typing import Any, TypeVar

from securefl.cli.output import console, write_json

Result = TypeVar("Result")


def command_line(description: str | None, argv: list[str] | None = None) -> argparse.Namespace:
    """``quick`` and ``json`` as ``securefl bench`` passes them on; prints the machine.

    With ``--json -`` standard output is for the figures, and everything else goes to standard error.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: a check that it runs, not a figure")
    parser.add_argument("--json", metavar="PATH", help="also write the figures here; - is standard output")
    arguments = parser.parse_args(argv)
    if arguments.json == "-":
        console.stderr = True
    console.print(machine(), markup=False)
    return arguments


def timed(into: list[float], step: Callable[[], Result]) -> Result:
    """Do ``step`` and append its seconds to ``into``."""
    start = perf_counter()
    result = step()
    into.append(perf_counter() - start)
    return result


def write_figures(figures: dict[str, Any], target: str | None) -> None:
    """The figures and what they were measured on, as JSON, to where ``--json`` said."""
    write_json({"machine": machine(), **figures}, target)


def machine() -> str:
    """Processor, Python and the libraries that do the work."""
    model = next((line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), "")
    libraries = ", ".join(f"{name} {version(name)}" for name in ("numpy", "cryptography"))
    return f"{model or platform.machine()}, Python {platform.python_version()}, {libraries}, {_openssl()}"


def _openssl() -> str:
    """The OpenSSL that cryptography carries."""
    from cryptography.hazmat.backends.openssl import backend

    return backend.openssl_version_text()


def _cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return lines.read().splitlines()
    except OSError:  # not Linux
        return []
