"""The folder of a run: its configuration, to resume it by, and its privacy ledger, which is never written over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from securefl.errors import ConfigurationError
from securefl.fl.config import Config, parse

__all__ = ["LEDGER_FILE", "METRICS_FILE", "keep_config", "ledger_file", "saved_config"]

CONFIG_FILE: Final = "config.json"
LEDGER_FILE: Final = "ledger.sqlite"
METRICS_FILE: Final = "metrics.jsonl"


def saved_config(folder: Path) -> Config:
    """The configuration that a run left in its folder. Raises :class:`ConfigurationError` when there is none."""
    try:
        values = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{folder} holds no run to resume: {error}") from None
    return parse(values)


def keep_config(config: Config, folder: Path) -> None:
    """Write what ``config`` sets into ``folder``, made if needed. Raises :class:`ConfigurationError` if that fails."""
    text = json.dumps(config.model_dump(mode="json", exclude_unset=True), indent=2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot write to {folder}: {error.strerror}") from None


def ledger_file(folder: Path, *, resume: bool) -> Path:
    """Where the run's ledger is. An earlier run's is never overwritten: what it records was spent.

    Raises :class:`ConfigurationError` for a ledger that is there, unless its run is to be resumed.
    """
    path = folder / LEDGER_FILE
    if path.exists() and not resume:
        raise ConfigurationError(
            f"{path} is the privacy ledger of an earlier run: go on with it by --resume {folder}, "
            "or give this run another folder by --out"
        )
    return path
