"""Signed fingerprints: every party learns that what the server announced is the sum of what the parties sent.

The server announces a sum of polynomials, limb by limb and without carries, so that it is a sum over the integers. A
challenge is derived from the announcement itself; each party gives the fingerprint of what *it* sent, a linear form of
it modulo p = 2^61 − 1 with the challenge's coefficients, and signs it together with the hash of the announcement. A
party goes on only when everybody signed for the announcement that it got itself and the fingerprints add up to the
announcement's own. A false announcement passes with probability below 2^-115 per try, the challenge being a random
oracle's; two parties can never be shown two announcements. SPEC: protocols/ckks-threshold/SPEC.md §6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from securefl.ckks.threshold.messages import Confirm, Kind
from securefl.ckks.threshold.wide import DEGREE, LIMBS, Limbs
from securefl.errors import AuthenticationError, FaultyServerError
from securefl.primitives.identity import Directory, Identity
from securefl.primitives.kdf import Label, tuple_hash
from securefl.primitives.prg import KEY_BYTES, Keystream
from securefl.types import SERVER, ClientId, PartyId
from securefl.wire import Buffer

__all__ = ["FINGERPRINT_BYTES", "Announcement", "Fingerprint"]

FINGERPRINT_BYTES: Final = 16
_P: Final = (1 << 61) - 1
_FORMS: Final = 2
_PARTS: Final = 4  # of 16 bits


class Fingerprint:
    """Two random linear forms modulo 2^61 − 1 of a sequence of polynomials: :meth:`add` each, then :meth:`value`.

    Limb l of polynomial c at coefficient i counts ρ_i·σ_(8c+l), with ρ and σ the words of the challenge's stream. The
    inner products are float64 matrix products of 16-bit parts: below 2^45, so exact.
    """

    def __init__(self, challenge: bytes) -> None:
        self._stream = Keystream(challenge[:KEY_BYTES])
        rho = self._draw(DEGREE)
        parts = [(rho >> np.uint64(16 * part)) & np.uint64(0xFFFF) for part in range(_PARTS)]
        self._matrix = np.concatenate(parts).astype(np.float64).T  # [N, parts × forms]
        self._sums = [0] * _FORMS

    def _draw(self, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
        words = np.empty(_FORMS * count, dtype=np.uint64)
        self._stream.fill(words)
        words &= np.uint64(_P)
        return words.reshape(_FORMS, count)

    def add(self, limbs: Limbs) -> None:
        """One polynomial: [8, N], limbs within [0, 2^32)."""
        low = (limbs & 0xFFFF).astype(np.float64) @ self._matrix
        high = (limbs >> 16).astype(np.float64) @ self._matrix
        sigma = self._draw(LIMBS).tolist()
        for limb, (small, large) in enumerate(zip(low.tolist(), high.tolist(), strict=True)):
            for form in range(_FORMS):
                inner = sum(
                    (int(small[at]) + (int(large[at]) << 16)) << 16 * part
                    for part, at in enumerate(range(form, _PARTS * _FORMS, _FORMS))
                )
                self._sums[form] = (self._sums[form] + sigma[form][limb] * inner) % _P

    def value(self) -> tuple[int, int]:
        """The two forms."""
        return self._sums[0], self._sums[1]


class Announcement:
    """One announced sum and what its confirmations must say.

    ``attempt``: the attempt's hash. ``kind``: of the announcing message. ``body``: its bytes. ``limbs``: the announced
    polynomials.
    """

    def __init__(self, attempt: bytes, kind: Kind, body: Buffer, limbs: Iterable[Limbs]) -> None:
        self._kind = int(kind)
        self._attempt = attempt
        self._digest = tuple_hash(Label.THRESHOLD_ANNOUNCED, attempt, bytes([kind]), hashlib.sha256(body).digest())
        self._challenge = tuple_hash(Label.THRESHOLD_CHALLENGE, self._digest)
        self._expected = self._of(limbs)

    def _of(self, limbs: Iterable[Limbs]) -> tuple[int, int]:
        fingerprint = Fingerprint(self._challenge)
        for polynomial in limbs:
            fingerprint.add(polynomial)
        return fingerprint.value()

    def _message(self, client: ClientId, fingerprint: bytes) -> tuple[bytes, int, ClientId, PartyId, bytes, bytes]:
        """What is signed, as :class:`Identity` and :class:`Directory` take it."""
        return self._attempt, self._kind, client, SERVER, self._digest, fingerprint

    def confirm(self, me: ClientId, identity: Identity, limbs: Iterable[Limbs]) -> Confirm:
        """This party's confirmation: of the polynomials ``limbs`` that it sent."""
        first, second = self._of(limbs)
        fingerprint = first.to_bytes(8, "big") + second.to_bytes(8, "big")
        return Confirm(fingerprint, identity.sign(*self._message(me, fingerprint)))

    def verify_one(self, client: ClientId, directory: Directory, confirm: Confirm) -> None:
        """Raises :class:`AuthenticationError` unless ``client`` signed for this very announcement."""
        try:
            directory.verify(confirm.signature, *self._message(client, confirm.fingerprint))
        except AuthenticationError:
            raise AuthenticationError(
                f"client {client} did not sign for this announcement: it was shown another one, or is not who it says"
            ) from None

    def verify_sum(self, confirms: Sequence[Confirm]) -> None:
        """Raises :class:`FaultyServerError` unless the fingerprints add up to the announcement's own."""
        for form in range(_FORMS):
            given = sum(int.from_bytes(item.fingerprint[8 * form : 8 * form + 8], "big") for item in confirms)
            if given % _P != self._expected[form]:
                raise FaultyServerError("the announced sum is not the sum of what the parties sent")

    def verify(self, parties: Sequence[ClientId], directory: Directory, confirms: Sequence[Confirm]) -> None:
        """All of it, for the confirmations of ``parties`` in their order."""
        for client, confirm in zip(parties, confirms, strict=True):
            self.verify_one(client, directory, confirm)
        self.verify_sum(confirms)
