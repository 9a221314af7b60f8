"""The one secret key of ``key_model = "shared_key"`` in a file that the operators hand to one another.

Every client and the key holder have the same file; the server has none, and never carries it. Made by

    python -m securefl.integrations.keyfile FILE

The key holder counts, beside the file (FILE.opened), how many ciphertexts the key has opened: on the disk before the
opening, since the bound on them must hold over restarts.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from securefl.ckks.backend import engine
from securefl.ckks.keys import Key
from securefl.ckks.params import KeyModel, parameter_set
from securefl.errors import ConfigurationError, DecodeError, SecureFLError
from securefl.integrations.peers import private_file

__all__ = ["charge", "make_key", "read_key"]


def make_key(path: Path, parameters: str = "n4096-q60") -> Key:
    """Write a fresh key, mode 0600. Raises :class:`ConfigurationError` when the file is there or cannot be made."""
    chosen = parameter_set(parameters)
    pair = engine(chosen).generate()
    key = Key(chosen, KeyModel.SHARED_KEY, pair.secret, pair.public)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"the key {path} cannot be made: {error}") from None
    with os.fdopen(handle, "wb") as file:
        file.write(key.to_bytes())
    return key


def read_key(path: Path | None) -> Key:
    """The key in a file. Raises :class:`ConfigurationError` when there is none, or others may read it."""
    if path is None:
        raise ConfigurationError(
            'under key_model = "shared_key" every client and the key holder have the key in a file of their own: name '
            "it in securefl-ckks-key"
        )
    try:
        return Key.of_bytes(private_file(path, "the CKKS key"))
    except DecodeError as error:
        raise ConfigurationError(f"the CKKS key {path} cannot be used: {error}") from None


def charge(path: Path, ciphertexts: int, cap: int) -> None:
    """Count ``ciphertexts`` as opened, on the disk.

    Raises :class:`ConfigurationError` beyond ``cap``, and where the count cannot be kept: then nothing may be opened.
    """
    try:
        _charge(path, ciphertexts, cap)
    except OSError as error:
        raise ConfigurationError(f"the openings of the key {path} cannot be counted: {error}") from None


def _charge(path: Path, ciphertexts: int, cap: int) -> None:
    handle = os.open(path.with_name(path.name + ".opened"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        text = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "0"
        if not text.isdecimal():
            raise ConfigurationError(f"{path}.opened is damaged: make a new key")
        opened = int(text) + ciphertexts
        if opened > cap:
            raise ConfigurationError(f"the key {path} has opened {text} of at most {cap} ciphertexts: make a new one")
        os.pwrite(handle, f"{opened}\n".encode(), 0)
        os.fsync(handle)
    finally:
        os.close(handle)


def _main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m securefl.integrations.keyfile FILE\n")
        return 2
    try:
        key = make_key(Path(arguments[0]))
    except SecureFLError as error:
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        return 1
    sys.stdout.write(f"key {key.id.hex()[:16]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
