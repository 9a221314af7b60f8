"""Who holds which examples. Every example goes to exactly one client; the seed tree fixes the outcome.

All functions return one int64 array of ascending row numbers per client, and raise
:class:`~securefl.errors.ConfigurationError` for requests that cannot be met.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.seeds import SeedTree

__all__ = ["NAMES", "dirichlet", "iid", "partition", "shards"]

Rows: TypeAlias = NDArray[np.int64]

NAMES = ("iid", "shards", "dirichlet")


def partition(
    name: str,
    targets: NDArray[np.integer],
    clients: int,
    seeds: SeedTree,
    *,
    alpha: float = 0.5,
    shards_per_client: int = 2,
    minimum: int | None = None,
) -> list[Rows]:
    """The partition called ``name``: ``"iid"``, ``"shards"`` or ``"dirichlet"``; the others' arguments are unused."""
    if name == "iid":
        return iid(targets, clients, seeds)
    if name == "shards":
        return shards(targets, clients, seeds, shards_per_client=shards_per_client)
    if name == "dirichlet":
        return dirichlet(targets, clients, seeds, alpha=alpha, minimum=minimum)
    raise ConfigurationError(f"no partition {name!r}; there are {', '.join(NAMES)}")


def iid(targets: NDArray[np.integer], clients: int, seeds: SeedTree) -> list[Rows]:
    """Shuffle and cut into equal parts; sizes differ by at most one. [McMahan et al. 2017, section 3]"""
    _check(targets, clients, 1)
    order = seeds.numpy().permutation(len(targets))
    return [np.sort(part) for part in np.array_split(order, clients)]


def shards(targets: NDArray[np.integer], clients: int, seeds: SeedTree, *, shards_per_client: int = 2) -> list[Rows]:
    """Sort by class, cut into shards, deal ``shards_per_client`` to each. [McMahan et al. 2017, section 3]

    With 2 shards most clients see two classes only.
    """
    if shards_per_client < 1:
        raise ConfigurationError(f"a client gets at least 1 shard, not {shards_per_client}")
    _check(targets, clients, shards_per_client)
    rng = seeds.numpy()
    order = rng.permutation(len(targets))  # so that ties within a class are in random order
    by_class = order[np.argsort(targets[order], kind="stable")]
    pieces = np.array_split(by_class, clients * shards_per_client)
    deal = rng.permutation(len(pieces)).reshape(clients, shards_per_client)
    return [np.sort(np.concatenate([pieces[shard] for shard in hand])) for hand in deal]


def dirichlet(
    targets: NDArray[np.integer], clients: int, seeds: SeedTree, *, alpha: float = 0.5, minimum: int | None = None
) -> list[Rows]:
    """Divide each class by proportions drawn from Dirichlet(alpha, ..., alpha).

    As in Yurochkin et al. 2019 (section 4): clients differ in their classes and in their sizes. (Hsu et al. 2019 use
    the same law but draw class proportions per client of one size.) Small ``alpha``: strong skew; large: IID.
    ``minimum``: least number of examples per client; by default 10, or half an equal share where that is less. The
    usual cure, drawing again until it holds, need not end: here the largest clients give random examples to those
    below the minimum, so any request with ``clients * minimum <= n`` is met.
    """
    if not 0 < alpha < np.inf:
        raise ConfigurationError(f"alpha is a positive number, not {alpha}")
    if minimum is None:
        minimum = max(1, min(10, len(targets) // (2 * max(clients, 1))))
    if minimum < 1:
        raise ConfigurationError(f"every client needs at least 1 example, not {minimum}")
    _check(targets, clients, minimum)
    rng = seeds.numpy()
    owner = np.empty(len(targets), dtype=np.int64)
    for label in np.unique(targets):
        members = rng.permutation(np.flatnonzero(targets == label))
        proportions = rng.dirichlet(np.full(clients, alpha))
        if not np.isclose(proportions.sum(), 1.0):  # NaN, or all zero for an alpha near the end of the range
            raise ConfigurationError(f"alpha = {alpha} is outside what floating point can draw from")
        cuts = np.round(np.cumsum(proportions)[:-1] * len(members))
        owner[members] = np.searchsorted(cuts, np.arange(len(members)), side="right")
    _top_up(owner, clients, minimum, rng)
    return np.split(np.argsort(owner, kind="stable"), np.cumsum(np.bincount(owner, minlength=clients))[:-1])


def _top_up(owner: NDArray[np.int64], clients: int, minimum: int, rng: np.random.Generator) -> None:
    """Move random examples from the largest client to the smallest until all have ``minimum``, in place.

    Ends: while someone is below the minimum, the largest is above it (the mean is not below), gives at least one
    example and stays at the minimum or above, so the sum of the deficits falls with every turn.
    """
    counts = np.bincount(owner, minlength=clients)
    while counts.min() < minimum:
        poor, rich = int(counts.argmin()), int(counts.argmax())
        moved = min(minimum - counts[poor], counts[rich] - minimum)
        owner[rng.choice(np.flatnonzero(owner == rich), size=moved, replace=False)] = poor
        counts[rich] -= moved
        counts[poor] += moved


def _check(targets: NDArray[np.integer], clients: int, minimum: int) -> None:
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise InvalidInputError(f"targets are integers of shape [n], not {targets.dtype} of shape {targets.shape}")
    if clients < 1:
        raise ConfigurationError(f"at least 1 client is needed, not {clients}")
    if clients * minimum > len(targets):
        raise ConfigurationError(
            f"{len(targets)} examples cannot give {clients} clients at least {minimum} each; "
            "take fewer clients or more data"
        )
