"""Tags of whole messages: GMAC (NIST SP 800-38D §6.4), AES-128-GCM over associated data alone, at memory speed."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM

__all__ = ["TAG_BYTES", "TAG_KEY_BYTES", "gmac"]

TAG_KEY_BYTES: Final = 16
TAG_BYTES: Final = 16
_NONCE: Final = bytes(12)
#: OpenSSL takes less than 2^31 bytes at one time.
_PIECE: Final = 1 << 30


def gmac(key: bytes, *parts: bytes | bytearray | memoryview) -> bytes:
    """16 bytes: the tag of the parts, one after the other. ``key``: 16 bytes, for this one message (nonce of zeros).

    Two different messages of at most n bytes have the same tag with a chance of at most (n/16 + 1) · 2^-128 over the
    key, however they were chosen by somebody who does not know it. Under a known key it finds accidents only.
    """
    state = Cipher(AES(key), GCM(_NONCE)).encryptor()
    for part in parts:
        view = memoryview(part)
        for at in range(0, view.nbytes, _PIECE):
            state.authenticate_additional_data(view[at : at + _PIECE])
    state.finalize()
    return state.tag
