"""Keys and how often they opened something. SPEC: protocols/ckks-sum/SPEC.md §7.

A key opens one ciphertext vector per session and round, and no more ciphertexts than its parameter set allows; then the
ring makes a new one. Nothing here writes a secret key: a new process starts with new keys and a count of zero, unless
the caller keeps what :meth:`Key.to_bytes` gives, the count included.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.backend import engine
from securefl.ckks.params import PARAMETER_SETS, KeyModel, ParameterSet, Params
from securefl.ckks.residues import pack_residues
from securefl.ckks.ring import Multiplier, Residues
from securefl.errors import ConfigurationError, DecodeError, ProtocolError
from securefl.primitives.kdf import Label, tuple_hash

__all__ = ["Key", "KeyRing", "key_id_of"]

#: Sessions that may be under way at a time; the oldest is forgotten, and its roles keep their key.
_SESSIONS: Final = 256
#: Of a key as bytes: version, parameter set, key model, count.
_VERSION: Final = 1
_HEAD_BYTES: Final = 11


def key_id_of(parameters: ParameterSet, model: KeyModel, public: bytes | bytearray | memoryview) -> bytes:
    """32 bytes: hash of the parameter set, the key model and the wire form of the public key."""
    return tuple_hash(Label.CKKS_KEY, bytes([parameters.code, model.code]), bytes(public))


class Key:
    """A key pair and its count of opened ciphertexts. It never prints.

    ``secret``: int8[N], ternary. ``public``: uint64[2, primes and special primes, N], coefficient form.
    """

    def __init__(self, parameters: ParameterSet, model: KeyModel, secret: NDArray[np.int8], public: Residues) -> None:
        moduli = parameters.primes + parameters.special
        half = parameters.public_key_bytes // 2
        self.public = bytearray(parameters.public_key_bytes)
        for at in range(2):
            pack_residues(public[at], moduli, memoryview(self.public)[at * half : (at + 1) * half])
        self._take(parameters, model, secret)

    def _take(self, parameters: ParameterSet, model: KeyModel, secret: NDArray[np.int8]) -> None:
        self.parameters, self.model = parameters, model
        self.id: bytes = key_id_of(parameters, model, self.public)
        self.secret = secret
        self.multiplier = Multiplier(secret)
        self.opened = 0
        self._done: set[bytes] = set()

    def to_bytes(self) -> bytes:
        """The key pair, secret included: for a key holder's own file or memory, never for the wire.

        u8 version · u8 parameter set · u8 key model · u64 opened · N bytes secret (0, 1, 2 for 0, 1, −1) · public key.
        """
        head = bytes([_VERSION, self.parameters.code, self.model.code]) + self.opened.to_bytes(8, "big")
        return head + (self.secret % 3).astype(np.uint8).tobytes() + bytes(self.public)

    @classmethod
    def of_bytes(cls, data: bytes) -> Key:
        """The key that :meth:`to_bytes` gave ``data``. Raises :class:`DecodeError` for other bytes."""
        if len(data) < _HEAD_BYTES or data[0] != _VERSION:
            raise DecodeError("these bytes are no CKKS key of this version")
        parameters = next((item for item in PARAMETER_SETS.values() if item.code == data[1]), None)
        model = next((item for item in KeyModel if item.code == data[2]), None)
        if parameters is None or model is None:
            raise DecodeError("the CKKS key is of an unknown parameter set or key model")
        middle = _HEAD_BYTES + parameters.degree
        secret = np.frombuffer(data[_HEAD_BYTES:middle], dtype=np.uint8)
        if len(data) != middle + parameters.public_key_bytes or secret.max() > 2:
            raise DecodeError("the CKKS key is damaged")
        key = cls.__new__(cls)
        key.public = bytearray(data[middle:])
        key._take(parameters, model, np.where(secret == 2, -1, secret).astype(np.int8))
        key.opened = int.from_bytes(data[3:_HEAD_BYTES], "big")
        return key

    def charge(self, context: bytes, ciphertexts: int, cap: int) -> None:
        """Count an opening *before* it happens. Raises :class:`ProtocolError` for a second one, or one over ``cap``."""
        if context in self._done:
            raise ProtocolError("this key has opened a sum for this session and round already: it opens one")
        if self.opened + ciphertexts > cap:
            raise ProtocolError(
                f"this key has opened {self.opened} of at most {cap} ciphertexts: the next session gets a new one"
            )
        self._done.add(context)
        self.opened += ciphertexts

    def __repr__(self) -> str:
        return f"Key({self.id.hex()[:16]}, <redacted>)"


class KeyRing:
    """The key holder's keys: the present one, replaced before it is spent. It never prints.

    ``decryptions``: ciphertexts per key; default, and at most, what the parameter set allows. ``key``: the first one;
    made when it is needed otherwise.
    Raises :class:`~securefl.errors.MissingExtraError` without TenSEAL.
    """

    def __init__(
        self, parameters: ParameterSet, model: KeyModel, *, decryptions: int | None = None, key: Key | None = None
    ) -> None:
        self.cap = parameters.decryptions if decryptions is None else decryptions
        if not 1 <= self.cap <= parameters.decryptions:
            raise ConfigurationError(
                f"a key of {parameters.name} may open 1 to {parameters.decryptions} ciphertexts, got {self.cap}"
            )
        self.parameters = parameters
        self.model = model
        self._key = key
        self._reserved = 0
        self._allotted: dict[bytes, Key] = {}

    def key_for(self, params: Params) -> Key:
        """The key of a session: always the same one for the same session. A key without room for it is replaced.

        Raises :class:`ConfigurationError` for a vector of more ciphertexts than any key may open.
        """
        if params.context_hash in self._allotted:
            return self._allotted[params.context_hash]
        if params.parameters != self.parameters or params.key_model is not self.model:
            raise ConfigurationError("the session is for another parameter set or key model than the keys")
        needed = params.ciphertexts
        if needed > self.cap:
            raise ConfigurationError(f"the vector takes {needed} ciphertexts; a key may open {self.cap}")
        if self._key is None or self._reserved + needed > self.cap:
            self.rotate()
        assert self._key is not None  # noqa: S101 - just made
        self._reserved += needed
        while len(self._allotted) >= _SESSIONS:
            del self._allotted[next(iter(self._allotted))]
        self._allotted[params.context_hash] = self._key
        return self._key

    def rotate(self) -> None:
        """Replace the present key by a fresh one."""
        pair = engine(self.parameters).generate()
        self._key, self._reserved = Key(self.parameters, self.model, pair.secret, pair.public), 0

    def __repr__(self) -> str:
        return "<KeyRing>"
