"""What reports have in common: the versions behind their figures, their templates, and the two files they become."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import securefl
from securefl.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["template", "versions", "write_files"]

_PACKAGES = ("numpy", "cryptography", "pycryptodome", "torch", "scikit-learn", "tenseal")


def versions() -> dict[str, str]:
    """Of securefl, Python and the packages that figures depend on."""
    found = {"securefl": securefl.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # pragma: no cover - an extra that is not installed
            continue
    return found


def template(name: str) -> Template:
    """A page of this package. Raises :class:`MissingExtraError` without jinja2, and matplotlib, which draws figures."""
    try:
        import matplotlib  # noqa: F401
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtraError(f"report.html needs {error.name}: pip install 'securefl[report]'") from error
    environment = Environment(
        loader=PackageLoader("securefl.audit"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(name)


def write_files(report: dict[str, Any], page: Callable[[], str], folder: Path) -> None:
    """``report.json``, then ``report.html`` as ``page`` gives it, in ``folder``.

    Raises :class:`ConfigurationError` when that cannot be.
    """
    try:
        (folder / "report.json").write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        (folder / "report.html").write_text(page(), encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write the report to {folder}: {error.strerror}") from None
