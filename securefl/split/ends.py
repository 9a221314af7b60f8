"""Fronts and heads at the end of a round: averaged by the protected sum, or handed on, sealed. [torch]"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from securefl.encoding.quantize import FixedPoint
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.interfaces import Contribution
from securefl.fl.models import load_tensors, model_hash, tensors_of
from securefl.fl.protections import protection_named
from securefl.fl.seeds import SeedTree
from securefl.split.member import Member
from securefl.split.settings import SplitSettings
from securefl.types import ClientId, Tensors

__all__ = ["average", "averaging", "hand_over", "trains_ends"]

#: Range of a front's update in the protected average; beyond it values are clipped.
_UPDATE_RANGE = 4.0

Members = Mapping[ClientId, Member]


def trains_ends(members: Members) -> bool:
    """Whether fronts or heads have anything to learn."""
    ends = next(iter(members.values())).ends
    return any(parameter.requires_grad for parameter in ends.parameters())


def averaging(
    members: Members, settings: SplitSettings, threshold: int, suite: str, session: bytes
) -> ProtectedAggregator | None:
    """The protected average of parallel clients; ``None`` where nothing is averaged.

    Raises :class:`~securefl.errors.ConfigurationError` when the ends cannot be summed.
    """
    if settings.order == "sequential" or len(members) < 2 or not trains_ends(members):
        return None
    weights = [len(member.labels) for member in members.values()]
    aggregator = ProtectedAggregator(
        protection_named(settings.sum_protection, suite),
        threshold=threshold,
        grid=FixedPoint(_UPDATE_RANGE, 24),
        max_weight=1 << (max(weights) - 1).bit_length(),
        session=session,
    )
    aggregator.check(tensors_of(next(iter(members.values())).ends), list(members))
    return aggregator


def average(
    aggregator: ProtectedAggregator,
    members: Members,
    number: int,
    start: Mapping[ClientId, Tensors],
    seeds: SeedTree,
) -> None:
    """Give everybody the mean of what all made of their ends in round ``number``. ``start``: the ends before it."""
    now = {client: tensors_of(member.ends) for client, member in members.items()}
    common = model_hash(next(iter(start.values())))
    contributions = {
        client: Contribution(
            {name: value - start[client][name] for name, value in now[client].items()},
            len(member.labels),
            seeds.child("rounding", number, client).bytes(32),
        )
        for client, member in members.items()
    }
    result = aggregator.aggregate(number, common, contributions)
    for client, member in members.items():
        mean = {name: (start[client][name] + value).astype(np.float32) for name, value in result.mean.items()}
        load_tensors(member.ends, mean)
        member.other_bytes += result.upload_bytes.get(client, 0)


def hand_over(members: Members, sender: ClientId, receiver: ClientId, number: int) -> None:
    """The receiver goes on with the sender's ends, which the server passes on without reading them."""
    giver, taker = members[sender], members[receiver]
    like = tensors_of(taker.ends)
    sealed = giver.mailbox.seal(tensors_of(giver.ends), number, receiver, taker.mailbox.public)
    giver.other_bytes += len(sealed)
    load_tensors(taker.ends, taker.mailbox.open(sealed, number, sender, like))
