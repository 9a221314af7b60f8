"""Checkpoints of a run: a directory with ``state.json`` and ``tensors-<round>.npz``.

Atomic: the tensors are written first, under a name of their own, and ``state.json``, which names them, is then
replaced by one rename. A crash at any point leaves the checkpoint before or the one after. Nothing is pickled.
``state.json`` carries a SHA-256 of itself and of the tensors against damage (not against forgery: who can write the
directory can write both).
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, DecodeError
from securefl.fl.interfaces import RoundPrivacy, RoundRecord
from securefl.types import ClientId, Tensors

__all__ = ["RunState", "exists", "load", "load_as", "save"]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

RecordT = TypeVar("RecordT", bound="DataclassInstance")
_FORMAT: Final = "securefl-checkpoint-2"
_STATE: Final = "state.json"


@dataclass(frozen=True, slots=True, eq=False)
class RunState(Generic[RecordT]):
    """A run after ``len(records)`` rounds: the global model (float32 arrays in order) and the records so far.

    ``state``: further arrays that the next round depends on (of a stateful aggregator), by name.
    """

    tensors: Tensors = field(repr=False)
    records: tuple[RecordT, ...] = field(repr=False)
    state: Mapping[str, NDArray[np.generic]] = field(default_factory=dict, repr=False)

    @property
    def round(self) -> int:
        """Rounds done."""
        return len(self.records)


def exists(directory: Path) -> bool:
    """Whether ``directory`` holds a checkpoint, sound or not."""
    return (directory / _STATE).is_file()


def save(directory: Path, state: RunState[RecordT], fingerprint: str) -> None:
    """Write ``state`` into ``directory`` (made if needed), replacing the checkpoint there.

    ``fingerprint``: names the run that may resume it (``FedAvg.fingerprint``).
    Raises :class:`~securefl.errors.ConfigurationError` when the directory cannot be written.
    """
    buffer = io.BytesIO()
    # Numbered members: a parameter may have any name, a member of an archive may not.
    members: dict[str, NDArray[Any]] = {f"t{i}": value for i, value in enumerate(state.tensors.values())}
    members |= {f"s{i}": np.asarray(value) for i, value in enumerate(state.state.values())}
    np.savez(buffer, allow_pickle=False, **members)
    content = buffer.getbuffer()
    body = {
        "format": _FORMAT,
        "fingerprint": fingerprint,
        "tensors": f"tensors-{state.round}.npz",
        "tensors_sha256": hashlib.sha256(content).hexdigest(),
        "names": list(state.tensors),
        "state_names": list(state.state),
        "records": [dataclasses.asdict(record) for record in state.records],
    }
    document = {"state": body, "sha256": _digest(body)}
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(directory / f"tensors-{state.round}.npz", content)
        _write(directory / _STATE, json.dumps(document, allow_nan=False, indent=1).encode("utf-8"))
        for old in directory.glob("tensors-*.npz"):
            if old.name != body["tensors"]:
                old.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot write the checkpoint {directory}: {error.strerror}") from error


def load(directory: Path, fingerprint: str) -> RunState[RoundRecord]:
    """The checkpoint of federated averaging in ``directory``. Raises as :func:`load_as`."""
    return load_as(directory, fingerprint, _record)


def load_as(directory: Path, fingerprint: str, record: Callable[[dict[str, Any]], RecordT]) -> RunState[RecordT]:
    """The checkpoint in ``directory``, whose records ``record`` makes of their fields.

    Raises :class:`~securefl.errors.ConfigurationError` when there is none or it belongs to another run,
    :class:`~securefl.errors.DecodeError` when it is truncated or damaged.
    """
    try:
        text = (directory / _STATE).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"no checkpoint in {directory}: {error.strerror}") from error
    try:
        document = json.loads(text)
        body = document["state"]
        sound = document["sha256"] == _digest(body)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DecodeError(f"the checkpoint {directory / _STATE} is truncated or damaged") from error
    if not sound:
        raise DecodeError(f"the checkpoint {directory / _STATE} is damaged: its digest does not match")
    if not isinstance(body, dict) or body.get("format") != _FORMAT:
        raise DecodeError(f"{directory / _STATE} is not a checkpoint of this version")
    if body.get("fingerprint") != fingerprint:
        raise ConfigurationError(
            f"the checkpoint in {directory} belongs to another run (configuration, data or seed differ); "
            "choose another directory or remove it"
        )
    try:
        tensors, state = _arrays(directory, body)
        return RunState(tensors, tuple(record(fields) for fields in body["records"]), state)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DecodeError(f"the checkpoint in {directory} is damaged: {error}") from error


def _arrays(directory: Path, body: dict[str, Any]) -> tuple[Tensors, dict[str, NDArray[np.generic]]]:
    name = body["tensors"]
    if Path(name).name != name:
        raise ValueError("the name of the tensors is a path")
    content = (directory / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != body["tensors_sha256"]:
        raise ValueError(f"the digest of {name} does not match")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        tensors = {key: archive[f"t{i}"] for i, key in enumerate(body["names"])}
        state = {key: archive[f"s{i}"] for i, key in enumerate(body["state_names"])}
    if any(value.dtype != np.float32 for value in tensors.values()):
        raise ValueError("a tensor is not float32")
    return tensors, state


def _record(values: dict[str, Any]) -> RoundRecord:
    privacy = values.get("privacy")
    survivors = tuple(ClientId(client) for client in values["survivors"])
    return RoundRecord(
        **{**values, "survivors": survivors, "privacy": None if privacy is None else RoundPrivacy(**privacy)}
    )


def _digest(body: object) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode("utf-8")).hexdigest()


def _write(path: Path, content: bytes | memoryview) -> None:
    """Replace ``path`` so that, after a crash, it holds either the old content or the new, whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY)  # the rename itself must reach the disk, too
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
