"""The aggregator of a simulated run whose updates are shared among computing parties, under a rule that bears poison.

Clients share one word per coordinate between the two servers (the shares of the shared sum, SPEC shared §4); the
parties vet the updates and run the rule of :mod:`securefl.mpc.robust`. Every client counts once: a weight would be a
lever.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from securefl.cluster.threads import run_parties
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError
from securefl.fl.dropouts import Dropouts, require_cohort, threshold_of
from securefl.fl.interfaces import Aggregate, Contribution
from securefl.machine import RoundContext
from securefl.mpc.gemm import Words
from securefl.mpc.party import Party
from securefl.mpc.robust import accepted_sum, median, multi_krum, trimmed_sum, vet
from securefl.mpc.shared import Shared
from securefl.mpc.summation.params import SEED_BYTES, Params
from securefl.primitives.prg import Keystream
from securefl.types import ClientId, Tensors
from securefl.wire import OVERHEAD_BYTES

__all__ = ["RULES", "RobustMean"]

RULES: Final = ("norm_bound", "median", "trimmed_mean", "multi_krum")


@dataclass
class RobustMean:
    """An :class:`~securefl.fl.interfaces.Aggregator` under ``rule``, one of :data:`RULES`.

    ``threshold``: least number of accepted updates, or a function of the cohort's size that gives it. ``norm_bound``:
    ℓ2 bound of an update, in its own units; beyond it an update is dropped; ``None``: the range alone is checked.
    ``faulty``: share of the clients that trimmed mean and multi-Krum are to bear, in [0, 1/2). ``refused``: round →
    whom the servers dropped, which only they know.

    Raises :class:`ConfigurationError` for a rule that is none, or bounds that cannot work.
    """

    rule: str
    threshold: int | Callable[[int], int]
    grid: FixedPoint
    norm_bound: float | None = None
    faulty: float = 0.2
    dropouts: Dropouts | None = None
    session: bytes = field(default_factory=lambda: os.urandom(16))
    refused: dict[int, tuple[ClientId, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ConfigurationError(f"unknown rule {self.rule!r}; there are {', '.join(RULES)}")
        if self.norm_bound is None and self.rule == "norm_bound":
            raise ConfigurationError("the rule norm_bound needs a norm_bound")
        if self.norm_bound is not None and not 0 < self.norm_bound < float("inf"):
            raise ConfigurationError(f"norm_bound is a positive number, not {self.norm_bound}")
        if not 0 <= self.faulty < 0.5:
            raise ConfigurationError(f"faulty is a share of the clients from 0 to below 1/2, not {self.faulty}")

    @property
    def largest(self) -> int:
        """The size of a coordinate in integers, less the middle of the grid."""
        return self.grid.max_value // 2

    def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
        """One round. Raises :class:`TooFewClientsError` when fewer than ``threshold`` updates are accepted."""
        everyone = tuple(sorted(contributions))
        require_cohort(self.threshold, len(everyone))
        threshold = threshold_of(self.threshold, len(everyone))
        layout = Layout.of(contributions[everyone[0]].tensors)
        params = self._params(round, model_hash, layout, everyone)
        clients = self._alive(round, everyone)
        parts, clipped = self._share(params, layout, {client: contributions[client] for client in clients})
        accepted, _, _ = run_parties(lambda party: vet(_matrix(party, parts), self.largest, self._bound()))
        if accepted is None:  # pragma: no cover - a server has its verdicts
            raise InvalidInputError("the servers gave no verdicts")
        survivors = tuple(client for client, ok in zip(clients, accepted, strict=True) if ok)
        self.refused[round] = tuple(client for client in clients if client not in survivors)
        if len(survivors) < threshold:
            raise TooFewClientsError(f"{len(survivors)} updates were accepted; the threshold is {threshold}")
        total, count = self._apply([part[accepted] for part in parts])
        flat = total * (self.grid.clip_range / self.largest / count)
        upload = 8 * layout.dimension + params.box_bytes + 2 * OVERHEAD_BYTES
        return Aggregate(
            mean=layout.unflatten(flat),
            survivors=survivors,
            total_weight=len(survivors),
            upload_bytes=dict.fromkeys(clients, upload),
            vector_bytes=dict.fromkeys(clients, 8 * layout.dimension + OVERHEAD_BYTES),
            download_bytes=dict.fromkeys(everyone, params.suite.public_bytes + OVERHEAD_BYTES),
            clipped_fraction=clipped / (layout.dimension * len(clients)),
        )

    def check(self, tensors: Tensors, clients: Sequence[ClientId]) -> None:
        """Raises :class:`ConfigurationError` when updates like ``tensors`` of these clients cannot be vetted."""
        layout = Layout.of(tensors)
        self._params(0, bytes(32), layout, tuple(sorted(clients)))
        if layout.dimension * self.largest**2 >= 1 << 60:
            raise ConfigurationError(
                f"{layout.dimension} squares of {self.grid.value_bits}-bit values do not fit the parties' words: use "
                "fewer value bits"
            )

    def _params(self, round: int, model_hash: bytes, layout: Layout, clients: tuple[ClientId, ...]) -> Params:
        return Params(
            RoundContext(
                session=self.session,
                round=round,
                clients=clients,
                dimension=layout.dimension,
                max_value=self.grid.max_value,
                threshold=threshold_of(self.threshold, len(clients)),
                model_hash=model_hash,
                encoding=layout.schema_hash,
            )
        )

    def _alive(self, round: int, clients: tuple[ClientId, ...]) -> tuple[ClientId, ...]:
        if self.dropouts is None:
            return clients
        sent = self.dropouts.faults(round, clients, 1).drop_after  # the seal, then the vector
        alive = tuple(client for client in clients if sent.get(client, 2) > 1)
        threshold = threshold_of(self.threshold, len(clients))
        if len(alive) < threshold:
            raise TooFewClientsError(f"{len(alive)} clients are left; the threshold is {threshold}")
        return alive

    def _share(
        self, params: Params, layout: Layout, contributions: Mapping[ClientId, Contribution]
    ) -> tuple[list[Words], int]:
        """The two servers' matrices [clients, dimension], and how many values were clipped."""
        shape = (len(contributions), layout.dimension)
        parts, clipped = [np.empty(shape, np.uint64) for _ in range(2)], 0
        for row, (client, contribution) in enumerate(contributions.items()):
            try:
                flat = layout.flatten(contribution.tensors)
                encoded = self.grid.encode(flat, seed=contribution.seed, clip=True)
            except InvalidInputError as error:
                raise InvalidInputError(f"client {client}: {error}") from None
            clipped += encoded.clipped
            Keystream(params.share_key(client, os.urandom(SEED_BYTES))).fill(parts[1][row])
            np.subtract(encoded.values, parts[1][row], out=parts[0][row])
            parts[0][row] -= np.uint64(self.largest)
        return parts, clipped

    def _bound(self) -> int | None:
        """The squared norm bound in units of the grid, squared."""
        if self.norm_bound is None:
            return None
        return min(int((self.norm_bound / self.grid.clip_range * self.largest) ** 2), (1 << 62) - 1)

    def _apply(self, parts: list[Words]) -> tuple[NDArray[np.int64], int]:
        """The rule over vetted rows: a sum, and over how many it is."""
        n = len(parts[0])
        faulty = int(self.faulty * n)
        programs: dict[str, tuple[Any, int]] = {
            "norm_bound": (lambda p, x: accepted_sum(x, None if p.is_helper else np.ones(n, dtype=bool)), n),
            "median": (lambda p, x: median(x), 2),
            "trimmed_mean": (lambda p, x: trimmed_sum(x, faulty), n - 2 * faulty),
            "multi_krum": (lambda p, x: multi_krum(x, faulty, n - faulty, self.largest), n - faulty),
        }
        program, count = programs[self.rule]
        opened, _, _ = run_parties(lambda party: program(party, _matrix(party, parts)))
        return opened, count


def _matrix(party: Party, parts: list[Words]) -> Shared:
    return Shared(party, parts[0].shape, 0, None if party.is_helper else parts[party.me])
