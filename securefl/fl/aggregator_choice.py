"""The aggregator that a configuration describes."""

from __future__ import annotations

from securefl.encoding import rules
from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError
from securefl.fl.aggregators import ProtectedAggregator
from securefl.fl.compressed import CompressedAggregator
from securefl.fl.compression import compression_of
from securefl.fl.config import Config
from securefl.fl.dropouts import Dropouts
from securefl.fl.interfaces import RunPrivacy
from securefl.fl.protections import protection_named
from securefl.fl.pruning import Pruning
from securefl.fl.robust_mean import RobustMean
from securefl.fl.seeds import SeedTree
from securefl.fl.tiered import TieredAggregator
from securefl.fl.tiers import TierPlan

__all__ = ["aggregator_of"]


def aggregator_of(
    config: Config,
    max_weight: int,
    *,
    privacy: RunPrivacy | None = None,
    pruning: Pruning | None = None,
    record_view: bool = False,
    shadow: bool = False,
    tiers: TierPlan | None = None,
) -> ProtectedAggregator | CompressedAggregator | TieredAggregator | RobustMean:
    """The aggregator that ``config`` describes. Raises :class:`ConfigurationError` for combinations that are refused.

    ``privacy``: of the run, its ledger opened by the caller. ``pruning``: the object whose mask the round loop moves
    on, where the chain prunes. ``shadow``: measure the error of each aggregate. ``tiers``: those of [tiers].
    """
    protection, chosen = config.protection, config.compression
    seeds = SeedTree(config.data.seed)
    dropout = config.faults.dropout
    grid = FixedPoint(protection.clip_range, protection.value_bits)
    dropouts = Dropouts(dropout, seeds.child("dropouts")) if dropout else None
    shared = protection_named(
        protection.method, protection.suite, key_model=protection.key_model, flooding=protection.flooding
    )
    if config.robust is not None:
        return RobustMean(
            config.robust.rule,
            protection.threshold_count,
            grid,
            norm_bound=config.robust.norm_bound,
            faulty=config.robust.faulty,
            dropouts=dropouts,
        )
    if config.tiers is not None:
        if shadow:
            raise ConfigurationError("--shadow is not for [tiers]: the plain mean differs shell by shell")
        if tiers is None:
            raise ConfigurationError("[tiers] needs the run's model: give the plan of its tiers")
        return TieredAggregator(
            shared,
            protection.threshold_count,
            tiers,
            config.tiers.minimum_holders,
            grid,
            max_weight,
            dropouts=dropouts,
            record_view=record_view,
        )
    if not chosen.chain:
        return ProtectedAggregator(
            shared,
            protection.threshold_count,
            grid,
            max_weight,
            dropouts=dropouts,
            privacy=privacy,
            record_view=record_view,
            shadow=shadow,
        )
    if privacy is not None:
        raise ConfigurationError("differential privacy does not go with a [compression] chain in this version")
    compression = compression_of(chosen)
    plan = rules.Plan(
        protect=protection.method,
        error_feedback=compression.feeds_back,
        server_momentum=config.training.server_momentum,
        adaptive_server=config.training.server_optimizer != "sgd",
        two_sums=compression.sums > 1,
    )
    rules.check(plan, chosen.flags)
    return CompressedAggregator(
        shared,
        protection.threshold_count,
        compression,
        grid,
        max_weight,
        seeds.child("compression").bytes(32),
        dropouts=dropouts,
        record_view=record_view,
        shadow=shadow,
        prune=pruning.restrict if pruning is not None else None,
    )
