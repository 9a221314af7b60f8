"""What a configuration will cost, before anything runs: lanes, bytes, headroom, expected error."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from securefl.ckks import CKKSSum
from securefl.ckks import Params as CKKSParams
from securefl.ckks.messages import EncryptedInput, PublicKey
from securefl.ckks.threshold import ThresholdParams
from securefl.ckks.threshold.messages import session_bytes
from securefl.encoding.compressor import Scale
from securefl.encoding.layout import Layout
from securefl.encoding.packing import Packing
from securefl.encoding.weights import WeightFormat
from securefl.errors import ConfigurationError
from securefl.fl.aggregator_choice import aggregator_of
from securefl.fl.compression import compression_of, pruning_of
from securefl.fl.config import Config
from securefl.fl.learning import algorithm_of, loss_of
from securefl.fl.models import tensors_of
from securefl.fl.private_run import privacy_of
from securefl.fl.protections import THRESHOLD, key_model_named, suite_named
from securefl.fl.robust_mean import RobustMean
from securefl.fl.workload import local_training, prepare
from securefl.machine import RoundContext
from securefl.mpc.summation.params import Params as SharedParams
from securefl.primitives.identity import SIGNATURE_BYTES
from securefl.primitives.kem import Suite
from securefl.secagg.messages import (
    AdvertiseKeys,
    Roster,
    UnmaskShares,
    pair_box_bytes,
    shares_box_bytes,
)
from securefl.secagg.params import Params
from securefl.types import Tensors
from securefl.wire import OVERHEAD_BYTES

__all__ = ["PlannedSum", "RunPlan", "plan"]


@dataclass(frozen=True, slots=True)
class PlannedSum:
    """One secure sum of a round at full attendance. Bytes are per client, frames included.

    ``headroom_bits``: unused bits of the sum's lane, 0 to 1 in a radix lane. ``exact``: whether the lanes hold every
    possible sum; otherwise a sum outside the window fails the round.
    """

    integers: int
    max_value: int
    lanes_per_word: int
    bits_per_value: float
    headroom_bits: float
    exact: bool
    vector_bytes: int


@dataclass(frozen=True, slots=True)
class RunPlan:
    """``sums``: those of a round once a scale is known, ``first``: those of the first. ``upload``, ``download``: bytes
    per client and round by protection, the model not included. ``model_bytes``: the model as it is downloaded.
    ``rounding_error``: largest standard deviation that rounding gives a value of the mean, in ``rounding_unit``.
    ``epsilon``: what the planned rounds cost at the least number of survivors; ``None`` without privacy.
    """

    parameters: int
    clients: int
    threshold: int
    first: tuple[PlannedSum, ...]
    sums: tuple[PlannedSum, ...]
    upload: dict[str, int]
    download: dict[str, int]
    model_bytes: int
    rounding_error: float
    rounding_unit: str
    epsilon: float | None = None
    noise_multiplier: float | None = None


def plan(config: Config) -> RunPlan:
    """The plan of a run. Raises :class:`ConfigurationError` for what cannot work."""
    if config.tiers is not None:
        raise ConfigurationError("with [tiers] every tier uploads its own: run one round and see its report")
    workload = prepare(config)
    tensors = tensors_of(workload.model)
    pruning = pruning_of(config.compression)
    if pruning is not None:  # the smallest mask is the one to plan for
        pruning.advance(config.compression.end_round, tensors)
    max_weight = config.protection.max_weight_for(workload.weights.values())
    training = local_training(config)
    privacy = privacy_of(config, workload, training)
    aggregator = aggregator_of(config, max_weight, privacy=privacy, pruning=pruning)
    if isinstance(aggregator, RobustMean):
        raise ConfigurationError("a plan is of a sum; [robust] computes on shares: run one round and see its report")
    clients = tuple(sorted(workload.weights))
    sent = algorithm_of(config, workload, training).sends(tensors)
    loss = loss_of(config, workload)
    if loss is not None:
        sent = loss.sends(sent)
    aggregator.check(sent, clients)
    first = aggregator.contexts(sent, clients, None)
    later = aggregator.contexts(sent, clients, Scale(1.0, _typical_sum(len(clients))))
    bits = config.compression.download_bits
    suite = suite_named(config.protection.suite)
    upload, download = {}, {}
    methods: tuple[tuple[str, Callable[[RoundContext], tuple[int, int]]], ...] = (
        ("masked", partial(_masked_bytes, suite=suite)),
        ("shared", partial(_shared_bytes, suite=suite)),
        ("ckks", partial(_ckks_bytes, config=config)),
    )
    for name, sizes in methods:
        try:
            each = [sizes(context) for context in later]
        except ConfigurationError:  # a minority threshold: not for the masked sum
            if name == config.protection.method:
                raise
            continue
        upload[name], download[name] = sum(up for up, _ in each), sum(down for _, down in each)
    vectors = sum(8 * Packing.of_context(context).words + OVERHEAD_BYTES for context in later)
    error, unit = _rounding_error(config, len(clients))
    return RunPlan(
        parameters=sum(value.size for value in tensors.values()),
        clients=len(clients),
        threshold=later[0].threshold,
        first=tuple(map(_planned, first)),
        sums=tuple(map(_planned, later)),
        upload={"plain": vectors, **upload},
        download={"plain": 0, **download},
        model_bytes=_model_bytes(tensors, bits),
        rounding_error=error,
        rounding_unit=unit,
        epsilon=None if privacy is None else privacy.planned_epsilon(config.training.rounds),
        noise_multiplier=None if privacy is None else privacy.noise_multiplier,
    )


def _rounding_error(config: Config, clients: int) -> tuple[float, str]:
    chosen = compression_of(config.compression)
    if chosen.quantizer is not None and config.compression.chain:
        variance = chosen.quantizer.noise(Scale(1.0, 0.0))
        return math.sqrt(variance / clients), "the root mean square of a client's values"
    step = 2 * config.protection.clip_range / (2**config.protection.value_bits - 2)
    return step / 2 / math.sqrt(clients), "the model's weights"


def _typical_sum(clients: int) -> float:
    """The mean square of a sum where half of each update is common to all: (n + n²) / 2 of a client's."""
    return (clients + clients**2) / 2


def _planned(context: RoundContext) -> PlannedSum:
    packing = Packing.of_context(context)
    segment, lanes, clients = packing.segments[0], packing.lanes[0], len(context.clients)
    largest = clients * segment.max_value
    room = segment.window or 2**packing.bits
    return PlannedSum(
        integers=packing.dimension,
        max_value=segment.max_value,
        lanes_per_word=lanes.per_word,
        bits_per_value=64 / lanes.per_word,
        headroom_bits=math.log2(room / (largest + 1)),
        exact=room > largest,
        vector_bytes=8 * packing.words + OVERHEAD_BYTES,
    )


def _shared_bytes(context: RoundContext, suite: Suite) -> tuple[int, int]:
    """As :func:`_masked_bytes`: a sealed seed and the vector up, the second server's key down."""
    params = SharedParams(context, suite)
    return params.box_bytes + params.vector_bytes + 2 * OVERHEAD_BYTES, suite.public_bytes + OVERHEAD_BYTES


def _ckks_bytes(context: RoundContext, config: Config) -> tuple[int, int]:
    """As :func:`_masked_bytes`: the ciphertexts up, the key holder's key down; or one attempt of threshold."""
    chosen = config.protection
    if chosen.key_model == THRESHOLD:
        return session_bytes(ThresholdParams.of(context))
    sets = CKKSSum.default_parameters(chosen.flooding)
    session = CKKSParams.of(context, sets, key_model_named(chosen.key_model), flooded=chosen.flooding)
    up, down = EncryptedInput.length(session), PublicKey.length(session)
    return up + SIGNATURE_BYTES + OVERHEAD_BYTES, down + SIGNATURE_BYTES + OVERHEAD_BYTES


def _masked_bytes(context: RoundContext, suite: Suite) -> tuple[int, int]:
    """Upload (mean over clients) and download of one client at full attendance, from the messages' lengths."""
    params = Params.of(context, suite)
    n = len(params.clients)
    boxes = 4 + (n - 1) * (4 + shares_box_bytes(params)) + (n - 1) * pair_box_bytes(params) // 2
    up = AdvertiseKeys.length(params) + boxes + 8 * params.lanes.words + UnmaskShares.limit(params)
    down = Roster.limit(params) + boxes + 8 + 4 * n
    return up + 4 * OVERHEAD_BYTES, down + 3 * OVERHEAD_BYTES


def _model_bytes(tensors: Tensors, bits: Literal[4, 8, 32]) -> int:
    if bits == 32:
        return sum(value.nbytes for value in tensors.values())
    return WeightFormat(bits).length(Layout.of(tensors))
