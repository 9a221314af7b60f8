"""Who holds which examples. Every example goes to exactly one client; the seed tree fixes the outcome.

What clients differ in: nothing (iid), sizes (quantity), classes (shards), classes and sizes (dirichlet), inputs
(features), or whatever the data say (natural).

All functions return one int64 array of ascending row numbers per client, and raise
:class:`~securefl.errors.ConfigurationError` for requests that cannot be met. :func:`vertical` divides columns instead.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.data import Dataset
from securefl.fl.seeds import SeedTree

__all__ = ["NAMES", "dirichlet", "features", "iid", "natural", "partition", "quantity", "shards", "vertical"]

Rows: TypeAlias = NDArray[np.int64]

NAMES = ("iid", "shards", "dirichlet", "quantity", "features", "natural")


def partition(
    name: str,
    dataset: Dataset,
    clients: int,
    seeds: SeedTree,
    *,
    alpha: float = 0.5,
    shards_per_client: int = 2,
    exponent: float = 1.0,
    minimum: int | None = None,
) -> list[Rows]:
    """The partition called ``name``, one of ``NAMES``, of a dataset; the others' arguments are unused."""
    targets = dataset.targets
    if name == "iid":
        return iid(targets, clients, seeds)
    if name == "shards":
        return shards(targets, clients, seeds, shards_per_client=shards_per_client)
    if name == "dirichlet":
        return dirichlet(targets, clients, seeds, alpha=alpha, minimum=minimum)
    if name == "quantity":
        return quantity(targets, clients, seeds, exponent=exponent, minimum=minimum)
    if name == "features":
        return features(dataset.inputs, clients, seeds, alpha=alpha, minimum=minimum)
    if name == "natural":
        if dataset.groups is None:
            raise ConfigurationError(f"the dataset {dataset.name!r} has no groups of its own; choose another partition")
        return natural(dataset.groups, clients)
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
    minimum = _minimum(targets, clients, minimum)
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
    return _by_owner(owner, clients)


def quantity(
    targets: NDArray[np.integer], clients: int, seeds: SeedTree, *, exponent: float = 1.0, minimum: int | None = None
) -> list[Rows]:
    """Random examples, sizes by a power law: the k-th largest client has a share proportional to k^-exponent.

    ``exponent`` >= 0; 0 gives equal sizes. ``minimum``: as for :func:`dirichlet`. Which client is large is random.
    """
    if not 0 <= exponent < np.inf:
        raise ConfigurationError(f"exponent is a number from 0, not {exponent}")
    minimum = _minimum(targets, clients, minimum)
    rng = seeds.numpy()
    shares = np.arange(1, clients + 1, dtype=np.float64) ** -exponent
    cuts = np.round(np.cumsum(rng.permutation(shares / shares.sum()))[:-1] * len(targets))
    owner = np.empty(len(targets), dtype=np.int64)
    owner[rng.permutation(len(targets))] = np.searchsorted(cuts, np.arange(len(targets)), side="right")
    _top_up(owner, clients, minimum, rng)
    return _by_owner(owner, clients)


def features(
    inputs: NDArray[np.floating],
    clients: int,
    seeds: SeedTree,
    *,
    alpha: float = 0.5,
    bins: int = 10,
    minimum: int | None = None,
) -> list[Rows]:
    """Clients differ in their inputs: Dirichlet proportions over ``bins`` equal parts along the main direction.

    The direction is the first principal component of the inputs, so a client sees, for instance, mostly dark pictures;
    what an input means is the same everywhere. Covariate shift, in the terms of Kairouz et al. 2021 (section 3.1).
    """
    flat = inputs.reshape(len(inputs), -1).astype(np.float64)
    if bins < 1 or len(flat) < bins:
        raise ConfigurationError(f"{len(flat)} examples cannot be cut into {bins} bins")
    flat = flat - flat.mean(axis=0)
    _, _, directions = np.linalg.svd(flat[:: max(1, len(flat) // 4096)], full_matrices=False)
    along = flat @ directions[0]
    bin_of = np.empty(len(flat), dtype=np.int64)
    for number, members in enumerate(np.array_split(np.argsort(along, kind="stable"), bins)):
        bin_of[members] = number
    return dirichlet(bin_of, clients, seeds, alpha=alpha, minimum=minimum)


def natural(groups: NDArray[np.integer], clients: int) -> list[Rows]:
    """Whole groups that come with the data (documents, banks): the largest first, each to the client with least."""
    _check(groups, clients, 1)
    ids, sizes = np.unique(groups, return_counts=True)
    if len(ids) < clients:
        raise ConfigurationError(f"the data come in {len(ids)} groups, too few for {clients} clients")
    held = np.zeros(clients, dtype=np.int64)
    owner = np.empty(len(groups), dtype=np.int64)
    for at in np.argsort(-sizes, kind="stable"):
        client = int(held.argmin())
        owner[groups == ids[at]] = client
        held[client] += sizes[at]
    return _by_owner(owner, clients)


def vertical(columns: int, parties: int, seeds: SeedTree) -> list[Rows]:
    """Columns per party: every party has all examples and some of their features, as many as the others, within one."""
    if not 1 <= parties <= columns:
        raise ConfigurationError(f"{columns} columns cannot be divided among {parties} parties")
    return [np.sort(part) for part in np.array_split(seeds.numpy().permutation(columns), parties)]


def _minimum(targets: NDArray[np.integer], clients: int, minimum: int | None) -> int:
    if minimum is None:
        minimum = max(1, min(10, len(targets) // (2 * max(clients, 1))))
    if minimum < 1:
        raise ConfigurationError(f"every client needs at least 1 example, not {minimum}")
    _check(targets, clients, minimum)
    return minimum


def _by_owner(owner: NDArray[np.int64], clients: int) -> list[Rows]:
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
