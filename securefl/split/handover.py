"""Sequential clients pass their front and head on, sealed to the next client's key: the server relays bytes.

In the clear the front would let the server invert the activations it is sent. HPKE (securefl.primitives.kem), bound to
the session, the round and both clients.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from securefl.encoding.layout import Layout
from securefl.errors import DecodeError
from securefl.primitives.entropy import Entropy, SystemEntropy
from securefl.primitives.kdf import Label, info_bytes
from securefl.primitives.kem import PrivateKey, PublicKey, Suite, key_pair, unseal
from securefl.types import ClientId, Tensors

__all__ = ["Mailbox"]


class Mailbox:
    """One client's key pair for the models it takes over."""

    def __init__(self, session: bytes, me: ClientId, suite: Suite, entropy: Entropy | None = None) -> None:
        self._entropy = entropy if entropy is not None else SystemEntropy()
        self._session, self._me = session, me
        self._private: PrivateKey
        self._private, self.public = key_pair(suite, self._entropy.token(32))

    def seal(self, tensors: Mapping[str, np.ndarray], round: int, to: ClientId, key: PublicKey) -> bytes:
        """The tensors for client ``to``, whose authentic public key is ``key``."""
        flat = Layout.of(dict(tensors)).flatten(dict(tensors)).astype("<f4")
        return self._entropy.seal(key, flat.tobytes(), self._info(round, self._me, to))

    def open(self, sealed: bytes, round: int, sender: ClientId, like: Tensors) -> Tensors:
        """The tensors that ``sender`` sealed; names and shapes are those of ``like``.

        Raises :class:`~securefl.errors.AuthenticationError` for a seal of another sender, round or session, and
        :class:`DecodeError` for one of another size.
        """
        layout = Layout.of(like)
        raw = unseal(self._private, sealed, self._info(round, sender, self._me))
        if len(raw) != 4 * layout.dimension:
            raise DecodeError("the model that was handed over has another size")
        values = layout.unflatten(np.frombuffer(raw, "<f4"))
        return {name: value.astype(np.float32) for name, value in values.items()}

    def _info(self, round: int, sender: ClientId, to: ClientId) -> bytes:
        numbers = (round.to_bytes(8, "big"), sender.to_bytes(4, "big"), to.to_bytes(4, "big"))
        return info_bytes(Label.SPLIT_HANDOVER, self._session, *numbers)
