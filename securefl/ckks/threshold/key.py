"""One party's key share: it makes its public part, and opens one sum, once. SPEC: protocols/ckks-threshold/SPEC.md §5.

A second decryption share under the same key would break it: two shares of one ciphertext differ by fresh noise only, so
that averaging removes the flooding, and shares of two ciphertexts are two equations for one secret. So the object that
holds the secret gives one share and forgets the secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from securefl.ckks.ring import noise
from securefl.ckks.threshold import sampling, wide
from securefl.ckks.threshold.params import MAX_CIPHERTEXTS, ThresholdParams
from securefl.ckks.threshold.sampling import Purpose, stream_key
from securefl.errors import LocalProtocolError

__all__ = ["PartyKey", "encrypt"]


class PartyKey:
    """s_i and b_i = −a·s_i + e_i of one attempt.

    ``seed``: 32 secret random bytes, fresh for this attempt. ``context``: the attempt's hash. It never prints.
    """

    def __init__(self, seed: bytes, context: bytes) -> None:
        self._seed, self._context = seed, context
        self.reference = wide.image(sampling.reference(context))
        self._secret: wide.Image | None = wide.ternary_image(
            sampling.ternary(stream_key(seed, context, Purpose.SECRET))
        )
        limbs = -wide.product(self.reference, self._secret)
        limbs[0] += noise(stream_key(seed, context, Purpose.KEY_NOISE), wide.DEGREE)
        #: b_i, canonical limbs.
        self.public: wide.Limbs = wide.carry(limbs)

    def open_once(self, sums: Iterable[wide.Limbs], params: ThresholdParams) -> wide.Words:
        """uint64[2, C]: the high 128 bits of c1·s_i + E for every summed c1, E uniform on [−2^f, 2^f).

        ``sums``: limb sums [8, N] of each ciphertext, not reduced. The secret is gone afterwards. Raises
        :class:`LocalProtocolError` the second time, and for more ciphertexts than a key may open.
        """
        secret, self._secret = self._secret, None
        if secret is None:
            raise LocalProtocolError("this key has opened its sum: a second decryption share would give the key away")
        out = np.empty((2, params.coefficients), dtype=np.uint64)
        for index, limbs in enumerate(sums):
            if index >= min(params.ciphertexts, MAX_CIPHERTEXTS):
                raise LocalProtocolError(f"a key opens at most {min(params.ciphertexts, MAX_CIPHERTEXTS)} ciphertexts")
            share = wide.product(wide.image(wide.carry(limbs.astype(np.int64))), secret)
            sampling.add_flood(share, stream_key(self._seed, self._context, Purpose.FLOOD, index), params.flood_bits)
            piece = out[:, index * wide.DEGREE : (index + 1) * wide.DEGREE]
            piece[...] = wide.top(wide.carry(share))[:, : piece.shape[1]]
        self._seed = b""
        return out

    def forget(self) -> None:
        """Drop the secret without opening anything."""
        self._secret, self._seed = None, b""

    def __repr__(self) -> str:
        return "<PartyKey>"


def encrypt(
    joint: wide.Image, reference: wide.Image, seed: bytes, context: bytes, plaintext: wide.Words
) -> Iterator[tuple[wide.Words, wide.Words]]:
    """Per ciphertext: c0 = b·u + e0 + m (high 128 bits of the coefficients in use), c1 = a·u + e1 (words).

    ``joint``, ``reference``: images of b and a. ``plaintext``: uint64[2, C]. The coins come from ``seed``, fresh for
    this attempt. Yields (uint64[2, up to N], uint64[4, N]). [Lyubashevsky, Peikert, Regev 2010]
    """
    for index in range(-(-plaintext.shape[1] // wide.DEGREE)):
        coins = wide.ternary_image(_ternary(seed, context, index))
        c0, c1 = wide.product(joint, coins), wide.product(reference, coins)
        c0[0] += noise(stream_key(seed, context, Purpose.NOISE_0, index), wide.DEGREE)
        c1[0] += noise(stream_key(seed, context, Purpose.NOISE_1, index), wide.DEGREE)
        piece = plaintext[:, index * wide.DEGREE : (index + 1) * wide.DEGREE]
        high = wide.top(wide.carry(c0))[:, : piece.shape[1]]
        wide.add_words(high, piece)
        yield high, wide.words_of(wide.carry(c1))


def _ternary(seed: bytes, context: bytes, index: int) -> NDArray[np.int8]:
    return sampling.ternary(stream_key(seed, context, Purpose.EPHEMERAL, index))
