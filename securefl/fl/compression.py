"""From ``[compression]`` to the objects of a run, with the refusals of ``encoding.rules``."""

from __future__ import annotations

from securefl.encoding.chain import Chain
from securefl.encoding.compressor import LinearCoder
from securefl.encoding.lowrank import PowerSGD
from securefl.encoding.project import RandomProjection
from securefl.encoding.rotate import RotatedQuantizer
from securefl.encoding.sparsify import RandomK
from securefl.fl.compressed import Compression
from securefl.fl.config import CompressionConfig
from securefl.fl.pruning import Pruning, Schedule

__all__ = ["compression_of", "pruning_of"]


def compression_of(config: CompressionConfig) -> Compression:
    """The compression that is the same in every round; a pruned support is added round by round.

    Raises :class:`ConfigurationError` for settings out of range.
    """
    feeds_back = config.feeds_back
    coders: list[LinearCoder] = []
    if "random_k" in config.chain:
        coders.append(RandomK(config.fraction, unbiased=not feeds_back))
    if "random_projection" in config.chain:
        coders.append(RandomProjection(config.fraction, unbiased=not feeds_back))
    if "powersgd" in config.chain:
        coders.append(PowerSGD(config.rank))
    quantizer = None
    if "rotated" in config.chain:
        quantizer = RotatedQuantizer(config.levels, config.width, config.clip_multiple)
    return Compression(Chain(tuple(coders)), quantizer, feeds_back, config.decay)


def pruning_of(config: CompressionConfig) -> Pruning | None:
    """The pruning that the chain asks for."""
    if "pruned" not in config.chain:
        return None
    schedule = Schedule(config.initial_sparsity, config.final_sparsity, config.begin_round, config.end_round)
    return Pruning(schedule, structured=config.structured)
