"""Every known-answer vector in protocols/, run on the installed package; nothing else is needed, pytest included.

    result = run()
    result.passed, result.failed
    [(item.path, item.failed, item.first_failure) for item in result.files]

A checkout's ``protocols/`` is used when there is one, else the copy that was installed with the package. A vector that
fails is reported, not raised. What each operation asks stands in :mod:`securefl.audit.checks`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import securefl
from securefl.audit.checks import Case, Check, Mismatch
from securefl.errors import ConfigurationError, MissingExtraError

__all__ = ["VERSION", "FileResult", "SelfTest", "protocols_folder", "run"]

#: The version of the vector files that this package understands.
VERSION: Final = 1

#: The folder in protocols/ → the module with its table of operations, ``CHECKS``.
_CHECKS: Final = {
    "wire": "securefl.audit.checks.wire",
    "encoding": "securefl.audit.checks.encoding",
    "secagg": "securefl.audit.checks.secagg",
    "robust": "securefl.audit.checks.robust",
    "shared": "securefl.audit.checks.shared",
    "transport": "securefl.audit.checks.transport",
    "shells": "securefl.audit.checks.shells",
    "mpc": "securefl.audit.checks.mpc_session",
    "mpc-replicated": "securefl.audit.checks.replicated",
    "split": "securefl.audit.checks.split",
    "compression": "securefl.audit.checks.compression",
    "ckks-sum": "securefl.audit.checks.ckks",
    "ckks-threshold": "securefl.audit.checks.ckks_threshold",
    "dp": "securefl.audit.checks.dp",
}


@dataclass(frozen=True, slots=True)
class FileResult:
    """How one vector file fared. ``skipped``: tests that need an extra that is not installed."""

    path: str
    passed: int
    failed: int
    skipped: int = 0
    first_failure: str | None = None


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How all of them fared. ``folder``: where they were read from."""

    folder: str
    files: tuple[FileResult, ...]

    @property
    def passed(self) -> int:
        return sum(item.passed for item in self.files)

    @property
    def failed(self) -> int:
        return sum(item.failed for item in self.files)

    @property
    def skipped(self) -> int:
        return sum(item.skipped for item in self.files)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        totals = {"passed": self.passed, "failed": self.failed, "skipped": self.skipped}
        return {"folder": self.folder, **totals, "files": [asdict(item) for item in self.files]}


def protocols_folder() -> Path:
    """Where the vectors are: a checkout's ``protocols/``, else ``securefl/_protocols``.

    Raises :class:`ConfigurationError` when there are none.
    """
    package = Path(securefl.__file__).parent
    for folder in (package.parent / "protocols", package / "_protocols"):
        if (folder / "vectors.schema.json").is_file():
            return folder
    raise ConfigurationError("no vectors were found: install securefl again, or run from a checkout")


def run(folder: Path | None = None) -> SelfTest:
    """Run every vector file in ``folder`` (default: :func:`protocols_folder`)."""
    root = protocols_folder() if folder is None else folder
    results = []
    for protocol in sorted(path.parent for path in root.glob("*/vectors")):
        files = {path.name: path for path in sorted((protocol / "vectors").glob("*.json"))}
        documents: dict[str, Any] = {}
        for name, path in files.items():
            try:
                documents[name] = json.loads(path.read_text(encoding="utf-8"))
                _cases({name: documents[name]})
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                documents.pop(name, None)
                results.append(FileResult(str(path.relative_to(root)), 0, 1, 0, f"not a vector file: {error!r}"))
        cases = _cases(documents)
        results += [
            _run(f"{protocol.name}/vectors/{name}", protocol.name, document, cases, name)
            for name, document in documents.items()
        ]
    return SelfTest(str(root), tuple(results))


def _cases(documents: Mapping[str, Any]) -> dict[str, Case]:
    """Every test of a protocol, by ``file#id``."""
    cases: dict[str, Case] = {}
    for name, document in documents.items():
        for group in document["groups"]:
            for test in group["tests"]:
                key = f"{name}#{test['id']}"
                if key in cases:
                    raise KeyError(f"{key} twice")
                cases[key] = Case(group["params"], test, cases.__getitem__)
    return cases


def _run(path: str, protocol: str, document: Mapping[str, Any], cases: Mapping[str, Case], name: str) -> FileResult:
    passed = skipped = 0
    failures: list[str] = []
    for operation, case in _tests(document, cases, name):
        try:
            if (document["protocol"], document["version"]) != (protocol, VERSION):
                raise Mismatch("the file is of another protocol, or of a version that this package does not know")
            _check(protocol, operation)(case)
        except MissingExtraError:
            skipped += 1
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a vector is a failure of that vector
            kind = "" if isinstance(error, Mismatch) else f"unexpected {type(error).__name__}: "
            failures.append(f"{case.test['id']}: {kind}{error}")
        else:
            passed += 1
    return FileResult(path, passed, len(failures), skipped, failures[0] if failures else None)


def _tests(document: Mapping[str, Any], cases: Mapping[str, Case], name: str) -> Iterator[tuple[str, Case]]:
    for group in document["groups"]:
        for test in group["tests"]:
            yield group["operation"], cases[f"{name}#{test['id']}"]


def _check(protocol: str, operation: str) -> Check:
    if protocol not in _CHECKS:
        raise Mismatch(f"this package has no checks for the protocol {protocol!r}")
    checks: Mapping[str, Check] = import_module(_CHECKS[protocol]).CHECKS
    if operation not in checks:
        raise Mismatch(f"this package has no check for the operation {operation!r}")
    return checks[operation]
