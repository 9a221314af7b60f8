"""What a run tells while it goes on: one line of JSON per round, always; TensorBoard and MLflow where asked for.

What is told is what the server knows: figures of the global model and of the sum, nothing of a client.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol

from securefl.errors import ConfigurationError, MissingExtraError
from securefl.fl.interfaces import RoundRecord

__all__ = ["JsonLines", "MLflow", "TensorBoard", "Tracker", "figures"]

_FIGURES: Final = (
    "accuracy",
    "balanced_accuracy",
    "test_loss",
    "upload_bytes_per_client",
    "vector_bytes_per_client",
    "clipped_fraction",
    "seconds",
)


def figures(record: RoundRecord) -> dict[str, float]:
    """The numbers of a round that there are, by name."""
    found = {name: getattr(record, name) for name in _FIGURES}
    found["survivors"] = len(record.survivors)
    found["epsilon"] = None if record.privacy is None else record.privacy.epsilon
    found |= record.metrics or {}
    return {name: float(value) for name, value in found.items() if value is not None}


class Tracker(Protocol):
    """Takes the rounds of a run, in order."""

    def begin(self, records: Sequence[RoundRecord]) -> None:
        """The rounds done before this process: none, or those of the checkpoint that it goes on from."""
        ...

    def add(self, record: RoundRecord) -> None: ...
    def close(self) -> None: ...


class JsonLines:
    """``path``: one JSON object per round, every field of its record, written through when the round is done.

    A resumed run begins the file anew with the rounds of its checkpoint, so no round is there twice.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, records: Sequence[RoundRecord]) -> None:
        """See :class:`Tracker`. Raises :class:`~securefl.errors.ConfigurationError` when it cannot be written."""
        text = "".join(map(_line, records))
        temporary = self.path.with_name(f".{self.path.name}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            os.replace(temporary, self.path)
        except OSError as error:
            raise ConfigurationError(f"cannot write {self.path}: {error.strerror}") from None

    def add(self, record: RoundRecord) -> None:
        """See :class:`Tracker`. Raises as :meth:`begin`."""
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(_line(record))
        except OSError as error:
            raise ConfigurationError(f"cannot write {self.path}: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is open."""


def _line(record: RoundRecord) -> str:
    return json.dumps(dataclasses.asdict(record), allow_nan=False) + "\n"


class TensorBoard:
    """Event files in ``folder``. Raises :class:`~securefl.errors.MissingExtraError` without tensorboard."""

    def __init__(self, folder: Path) -> None:
        try:
            self._writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))
        except ImportError as error:
            raise MissingExtraError("--tensorboard needs it: pip install 'securefl[tensorboard]'") from error

    def begin(self, records: Sequence[RoundRecord]) -> None:
        """See :class:`Tracker`: earlier rounds are in the folder already, or are written now."""
        for record in records:
            self.add(record)

    def add(self, record: RoundRecord) -> None:
        """See :class:`Tracker`."""
        for name, value in figures(record).items():
            self._writer.add_scalar(name, value, record.round)

    def close(self) -> None:
        """Flush."""
        self._writer.close()


class MLflow:
    """A run at the tracking server ``uri`` (a URL, or a folder), with ``parameters`` logged once.

    Raises :class:`~securefl.errors.MissingExtraError` without mlflow.
    """

    def __init__(self, uri: str, parameters: dict[str, Any]) -> None:
        try:
            self._mlflow: Any = import_module("mlflow")
        except ImportError as error:
            raise MissingExtraError("--mlflow needs it: pip install 'securefl[mlflow]'") from error
        self._mlflow.set_tracking_uri(uri)
        self._mlflow.start_run()
        self._mlflow.log_params(parameters)

    def begin(self, records: Sequence[RoundRecord]) -> None:
        """See :class:`Tracker`."""
        for record in records:
            self.add(record)

    def add(self, record: RoundRecord) -> None:
        """See :class:`Tracker`."""
        self._mlflow.log_metrics(figures(record), step=record.round)

    def close(self) -> None:
        """End the run at the server."""
        self._mlflow.end_run()
