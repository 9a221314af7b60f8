"""Opening the seeds at the server, checking them, naming who lied, and taking the masks off the sum.

SPEC: protocols/secagg/SPEC.md §5.4. [BIK+17, Fig. 4, round 4]; commitments and the search for wrong shares are ours.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice
from typing import Final

from securefl.errors import AuthenticationError, DecodeError, FaultyClientError
from securefl.primitives import shamir
from securefl.primitives.kem import unseal
from securefl.primitives.shamir import SECRET_BYTES
from securefl.secagg import masking
from securefl.secagg.messages import AdvertiseKeys, Sealed, UnmaskShares
from securefl.secagg.params import Params
from securefl.types import ClientId, RingVector

__all__ = ["OpenedSeeds", "open_seeds", "remove_masks", "share_places"]

#: Subsets tried, among the trusted and then among all, when shares are wrong: enough for one liar at any threshold t
#: (t + 1 of them), or two among 60 responders; with large t fewer than 2,048, since each costs t² products.
_MAX_SUBSETS: Final = 2048
_MAX_PRODUCTS: Final = 2**27


def _most_subsets(threshold: int) -> int:
    return max(threshold + 2, min(_MAX_SUBSETS, _MAX_PRODUCTS // threshold**2))


@dataclass(frozen=True, slots=True, repr=False)
class OpenedSeeds:
    """``self_seeds`` of the survivors, ``mask_seeds`` of the dropped, and the clients whose shares did not fit.

    A survivor's entry has 32 bytes for each opened shell that it holds, ascending.
    """

    self_seeds: dict[ClientId, bytes]
    mask_seeds: dict[ClientId, bytes]
    suspects: tuple[ClientId, ...] = field(default=())


def share_places(
    params: Params, sharing: Sequence[ClientId], survivors: Collection[ClientId]
) -> list[tuple[ClientId, int]]:
    """What the shares of an answer belong to, in order: ``(dealer, shell)``, shell 0 for a dropped client's mask seed.

    SPEC §6.7, shells §5.
    """
    opened = params.opened(sorted(survivors))
    places: list[tuple[ClientId, int]] = []
    for dealer in sharing:
        if dealer in survivors:
            places += [(dealer, shell) for shell in opened if shell <= params.tier(dealer)]
        else:
            places.append((dealer, 0))
    return places


def open_seeds(
    params: Params,
    keys: Mapping[ClientId, AdvertiseKeys],
    sharing: Sequence[ClientId],
    survivors: Sequence[ClientId],
    responses: Mapping[ClientId, UnmaskShares],
) -> OpenedSeeds:
    """Reconstruct one seed per client that shared keys (with shells: per opened shell), each checked against what the
    client committed to.

    Raises :class:`FaultyClientError` naming the dealer when no set of ``threshold`` shares gives its seed.
    """
    alive = frozenset(survivors)
    solver = _Solver(params)
    self_seeds: dict[ClientId, bytes] = {}
    mask_seeds: dict[ClientId, bytes] = {}
    for at, (dealer, shell) in enumerate(share_places(params, sharing, alive)):
        shares: dict[int, int] = {}
        for responder, response in responses.items():
            raw = response.shares[at]
            if raw is None:
                continue
            try:
                shares[params.point(responder)] = shamir.share_from_bytes(raw)
            except DecodeError:
                solver.suspect(responder)
        if shell:
            seed = solver.open(dealer, shares, _self_check(params, dealer, keys, shell))
            self_seeds[dealer] = self_seeds.get(dealer, b"") + seed
        else:
            mask_seeds[dealer] = solver.open(dealer, shares, _mask_check(params, dealer, keys))
    return OpenedSeeds(self_seeds, mask_seeds, solver.suspects)


def _self_check(
    params: Params, dealer: ClientId, keys: Mapping[ClientId, AdvertiseKeys], shell: int
) -> Callable[[bytes], bool]:
    promised = keys[dealer].commitment_of(shell)
    return lambda seed: hmac.compare_digest(masking.self_commitment(params, dealer, seed, shell), promised)


def _mask_check(params: Params, dealer: ClientId, keys: Mapping[ClientId, AdvertiseKeys]) -> Callable[[bytes], bool]:
    return lambda seed: hmac.compare_digest(masking.mask_key_pair(params, dealer, seed)[1].raw, keys[dealer].mask_key)


class _Solver:
    """Interpolates many secrets over mostly the same points: coefficients are computed once per set of points."""

    def __init__(self, params: Params) -> None:
        self._params = params
        self._cache: dict[tuple[int, ...], shamir.Interpolation] = {}
        self._suspects: set[ClientId] = set()

    @property
    def suspects(self) -> tuple[ClientId, ...]:
        return tuple(sorted(self._suspects))

    def suspect(self, client: ClientId) -> None:
        self._suspects.add(client)

    def open(self, dealer: ClientId, shares: Mapping[int, int], check: Callable[[bytes], bool]) -> bytes:
        """The dealer's seed. Points that do not lie on the opened polynomial become suspects."""
        for points in self._subsets(sorted(shares)):
            interpolation = self._at(points)
            try:
                seed = interpolation.secret(shares)
            except AuthenticationError:
                continue
            if check(seed):
                if points != tuple(sorted(shares))[: self._params.threshold]:
                    self._name_liars(interpolation, shares)
                return seed
        needed = self._params.threshold
        # with no share to spare, a liar among those who answered cannot be told from the dealer
        others = [self._params.clients[x - 1] for x in shares] if len(shares) == needed else []
        raise FaultyClientError(
            f"the seed of client {dealer} cannot be opened: {len(shares)} shares came, {needed} right ones are needed; "
            "the client dealt wrong shares or others returned them",
            [dealer, *self._suspects, *others],
        )

    def _subsets(self, points: Sequence[int]) -> Iterator[tuple[int, ...]]:
        """Sets of t points, each once: the lowest t that are not suspected, then those that leave out one, two …

        Sets with suspects come last: a dealer's wrong shares make honest clients suspects, and one may be needed.
        """
        t = self._params.threshold
        most = _most_subsets(t)
        trusted = [x for x in points if self._params.clients[x - 1] not in self._suspects]
        yield from islice(_windows(trusted, t), most)
        if self._suspects:
            yield from (c for c in islice(_windows(points, t), most) if not set(c) <= set(trusted))

    def _at(self, points: tuple[int, ...]) -> shamir.Interpolation:
        if points not in self._cache:
            self._cache[points] = shamir.Interpolation(points)
        return self._cache[points]

    def _name_liars(self, interpolation: shamir.Interpolation, shares: Mapping[int, int]) -> None:
        for x, value in shares.items():
            if x not in interpolation.points and interpolation.value_at(x, shares) != value:
                self.suspect(self._params.clients[x - 1])


def _windows(pool: Sequence[int], t: int) -> Iterator[tuple[int, ...]]:
    """Sets of ``t`` of the points, each once, those that leave out few of the lowest points first."""
    for left_out in range(len(pool) - t + 1):
        # the last point of the window is always taken: without it the set came up before
        *head, last = pool[: t + left_out]
        for out in combinations(head, left_out):
            yield (*(x for x in head if x not in out), last)


def remove_masks(
    params: Params,
    total: RingVector,
    boxes: Mapping[ClientId, Mapping[ClientId, Sealed]],
    roster_hash: bytes,
    survivors: Sequence[ClientId],
    opened: OpenedSeeds,
) -> None:
    """Take the survivors' self masks, and what the dropped clients' pairwise masks left, off ``total``, in place.

    Raises :class:`FaultyClientError` naming the sender of a pair box that does not open.
    """
    masks, shells = masking.Masks(params), params.opened(survivors)
    for i, seeds in opened.self_seeds.items():
        for at, shell in enumerate(shell for shell in shells if shell <= params.tier(i)):
            masks.own(i, shell, seeds[at * SECRET_BYTES : (at + 1) * SECRET_BYTES], add=False)
    for gone, seed in opened.mask_seeds.items():
        private, _ = masking.mask_key_pair(params, gone, seed)
        for i in survivors:
            if i < gone:
                # i added the mask; its secret is in the box that i sealed to the dropped client's mask key
                sealed = boxes[i][gone].pair or b""
                try:
                    secret = unseal(private, sealed, masking.pair_box_info(params, roster_hash, i, gone))
                except AuthenticationError:
                    raise FaultyClientError(
                        f"the mask secret of client {i} for client {gone} does not open", [i]
                    ) from None
                masks.pair(secret, i, gone, add=False)
            else:
                # i subtracted the mask, whose secret comes from the dropped client's own seed
                masks.pair(masking.pair_secret(params, seed, gone, i), gone, i, add=True)
    masks.apply(total)
