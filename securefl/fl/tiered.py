"""The protected sum of unequal clients: updates to shells of integers, and opened shells to a mean.

Each shell carries its values and, last, the client's weight; the server divides shell by shell. What is in a shell that
could not be opened has mean 0: the model keeps its old values there. SPEC: protocols/shells/SPEC.md.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.compressor import Scale
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint, Quantized
from securefl.errors import ConfigurationError, InvalidInputError, TooFewClientsError
from securefl.fl.collection import collect
from securefl.fl.dropouts import Dropouts, require_cohort, threshold_of
from securefl.fl.interfaces import Aggregate, Contribution
from securefl.fl.tiers import TierPlan
from securefl.machine import Protection, RoundContext, Shells, SumResult
from securefl.primitives.kdf import Label, tuple_hash
from securefl.types import ClientId, Tensors

__all__ = ["ShellCoder", "TieredAggregator"]


@dataclass(frozen=True, eq=False)
class ShellCoder:
    """Encodes the part of an update that a tier holds, and decodes the sums of the opened shells.

    ``positions``: shell by shell, places in the flat update. ``grid``, ``max_weight``: as in a
    :class:`~securefl.fl.pipeline.Pipeline`. Raises :class:`ConfigurationError` when a weight does not fit.
    """

    layout: Layout
    positions: tuple[NDArray[np.int64], ...]
    grid: FixedPoint
    max_weight: int

    def __post_init__(self) -> None:
        if not 1 <= self.max_weight <= self.grid.max_value:
            raise ConfigurationError(
                f"max_weight = {self.max_weight} does not fit the lane of {self.grid.value_bits} value bits "
                f"(1 to {self.grid.max_value}): raise value_bits to at least {self.max_weight.bit_length() + 1}"
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Integers per shell: its values and the weight."""
        return tuple(len(part) + 1 for part in self.positions)

    @property
    def encoding(self) -> bytes:
        """32 bytes over layout, grid, largest weight and the shells' places."""
        numbers = (self.grid.clip_range, float(self.grid.value_bits), float(self.max_weight))
        places = [part.astype(">u8").tobytes() for part in self.positions]
        fields = (b"shells", *(struct.pack(">d", number) for number in numbers), *places)
        return tuple_hash(Label.GRID, self.layout.schema_hash, *fields)

    def encode(self, contribution: Contribution, tier: int) -> Quantized:
        """uint64: the integers of shells 1 to ``tier``, and how many values lay beyond the clip range.

        Raises :class:`InvalidInputError` as :meth:`securefl.fl.pipeline.Pipeline.encode`.
        """
        weight = contribution.weight
        if isinstance(weight, bool) or not isinstance(weight, int) or not 1 <= weight <= self.max_weight:
            raise InvalidInputError(
                f"a weight must be an integer from 1 to {self.max_weight} (max_weight), got {weight!r}"
            )
        flat = self.layout.flatten(contribution.tensors)[np.concatenate(self.positions[:tier])]
        encoded = self.grid.encode(flat, seed=contribution.seed, scale=weight / self.max_weight, clip=True)
        values = np.empty(sum(self.sizes[:tier]), dtype=np.uint64)
        at = 0
        for low, high in self._ranges(tier):
            values[low : high - 1] = encoded.values[at : at + high - 1 - low]
            values[high - 1] = weight
            at += high - 1 - low
        return Quantized(values, encoded.clipped)

    def decode(self, result: SumResult, shells: Shells, tiers: Sequence[int]) -> tuple[Tensors, int]:
        """The weighted mean, in float64 per tensor, 0 in closed shells; and the survivors' weights.

        ``tiers``: of the survivors.
        """
        mean = np.zeros(self.layout.dimension)
        total = int(result.values[self.sizes[0] - 1])
        opened = shells.opened(tiers)
        for shell, (low, high) in enumerate(self._ranges(len(self.positions)), start=1):
            if shell not in opened:
                continue
            weight = int(result.values[high - 1])
            if weight < 1:
                raise TooFewClientsError(f"the weights of shell {shell} sum to zero: there is no mean")
            sums = self.grid.decode(result.values[low : high - 1], shells.holders(shell, tiers))
            mean[self.positions[shell - 1]] = sums * (self.max_weight / weight)
        return self.layout.unflatten(mean), total

    def _ranges(self, tier: int) -> list[tuple[int, int]]:
        return list(pairwise(accumulate(self.sizes[:tier], initial=0)))


@dataclass
class TieredAggregator:
    """The :class:`~securefl.fl.interfaces.Aggregator` of a simulated run with tiers.

    ``plan``: the tiers and slices. ``minimum_holders``: no shell is opened over fewer survivors, at least 2 and at most
    the threshold. The others: see :class:`~securefl.fl.aggregators.ProtectedAggregator`.
    """

    protection: Protection
    threshold: int | Callable[[int], int]
    plan: TierPlan
    minimum_holders: int
    grid: FixedPoint
    max_weight: int
    dropouts: Dropouts | None = None
    record_view: bool = False
    session: bytes = field(default_factory=lambda: os.urandom(16))

    def aggregate(self, round: int, model_hash: bytes, contributions: Mapping[ClientId, Contribution]) -> Aggregate:
        """One round. Raises what the session ended with; :class:`TooFewClientsError` leaves the run going."""
        clients = tuple(sorted(contributions))
        require_cohort(self.threshold, len(clients))
        coder, context = self._set_up(round, model_hash, contributions[clients[0]].tensors, clients)
        faults = self.dropouts.faults(round, clients, self.protection.vector_frame) if self.dropouts else None
        found = collect(
            self.protection,
            context,
            lambda client: coder.encode(contributions[client], self.plan.tiers[client]),
            faults=faults,
            watch=self.record_view,
        )
        result, outcome = found.result, found.outcome
        assert context.shells is not None  # noqa: S101 - set up above
        mean, total_weight = coder.decode(
            result, context.shells, [self.plan.tiers[client] for client in result.survivors]
        )
        return Aggregate(
            mean=mean,
            survivors=result.survivors,
            total_weight=total_weight,
            upload_bytes=dict(outcome.uploaded),
            vector_bytes=dict(outcome.vector_bytes),
            download_bytes=dict(outcome.downloaded),
            clipped_fraction=found.clipped / max(1, found.encoded),
            server_view=found.view,
        )

    def contexts(
        self, tensors: Tensors, clients: tuple[ClientId, ...], scale: Scale | None
    ) -> tuple[RoundContext, ...]:
        """The context of a round's sum, for plans."""
        return (self._set_up(1, bytes(32), tensors, clients)[1],)

    def check(self, tensors: Tensors, clients: Sequence[ClientId]) -> None:
        """Raises :class:`ConfigurationError` when updates like ``tensors`` of these clients cannot be summed."""
        _, context = self._set_up(1, bytes(32), tensors, tuple(sorted(clients)))
        self.protection.server(context)

    def _set_up(
        self, round: int, model_hash: bytes, tensors: Tensors, clients: tuple[ClientId, ...]
    ) -> tuple[ShellCoder, RoundContext]:
        # what everybody holds is opened or the round fails, also in a small sampled cohort
        threshold = max(threshold_of(self.threshold, len(clients)), self.minimum_holders)
        if threshold > len(clients):
            raise TooFewClientsError(
                f"{len(clients)} clients were sampled; nothing is opened over fewer than {threshold}"
            )
        coder = ShellCoder(Layout.of(tensors), self.plan.positions(round), self.grid, self.max_weight)
        tiers = tuple(self.plan.tiers[client] for client in clients)
        return coder, RoundContext(
            session=self.session,
            round=round,
            clients=clients,
            dimension=sum(coder.sizes),
            max_value=self.grid.max_value,
            threshold=threshold,
            model_hash=model_hash,
            encoding=coder.encoding,
            shells=Shells(coder.sizes, tiers, self.minimum_holders),
        )
