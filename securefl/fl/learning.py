"""From a configuration to the parts of a run: server step, cohort, the clients' algorithm, their own models."""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING

from securefl.fl.algorithms import Averaging, LocalAlgorithm
from securefl.fl.cohort import Cohort
from securefl.fl.local_head import LocalHead
from securefl.fl.local_metrics import MaskedLoss
from securefl.fl.models import head_of, tensors_of
from securefl.fl.personalization import Ditto, FineTune, Interpolate, Personalizer
from securefl.fl.poison import Poison
from securefl.fl.scaffold import Scaffold
from securefl.fl.server_optimizer import AdaptiveServer, AveragingServer, ServerOptimizer
from securefl.fl.stragglers import Stragglers
from securefl.fl.tiers import TierPlan, assign
from securefl.fl.training import LocalTraining, steps_per_round
from securefl.fl.workload import Workload

if TYPE_CHECKING:
    from securefl.fl.config import Config, TrainingConfig

__all__ = [
    "algorithm_of",
    "cohort_of",
    "loss_of",
    "personalizer_of",
    "poison_of",
    "server_of",
    "stragglers_of",
    "tiers_of",
]


def server_of(chosen: TrainingConfig) -> ServerOptimizer:
    """The server's step."""
    if chosen.server_optimizer == "sgd":
        return AveragingServer(chosen.server_learning_rate, chosen.server_momentum)
    return AdaptiveServer(
        chosen.server_learning_rate,
        chosen.server_beta1,
        chosen.server_beta2,
        chosen.server_tau,
        yogi=chosen.server_optimizer == "yogi",
    )


def tiers_of(config: Config, workload: Workload) -> TierPlan | None:
    """Who holds which slice, or ``None`` without [tiers]."""
    chosen = config.tiers
    if chosen is None:
        return None
    tiers = assign(list(workload.weights), chosen.shares)
    return TierPlan(
        workload.model, workload.train.input_shape, chosen.slices, chosen.sizes, tiers, nested=chosen.nested
    )


def cohort_of(config: Config) -> Cohort:
    """Who is invited: by [privacy], whose sampling is accounted for, or by [training]."""
    if config.privacy is not None:
        return Cohort(config.privacy.sampling_probability)
    return Cohort(config.training.cohort_probability, config.training.cohort_size)


def algorithm_of(config: Config, workload: Workload, settings: LocalTraining) -> LocalAlgorithm:
    """What clients are asked for. ``settings``: how they train.

    The average client's steps, which scaffold needs, are public in a deployment too: a sum of weights tells them.
    """
    chosen = config.training
    if chosen.algorithm == "scaffold":
        steps = fmean(steps_per_round(len(rows), settings) for rows in workload.rows)
        return Scaffold(settings, steps, len(workload.rows))
    averaging = Averaging(chosen.proximal if chosen.algorithm == "fedprox" else 0.0)
    if config.personalization is not None and config.personalization.method == "fedper":
        return LocalHead(frozenset(head_of(tensors_of(workload.model))), averaging)
    return averaging


def personalizer_of(config: Config) -> Personalizer | None:
    """What each client makes of the global model; a private head is an algorithm instead."""
    chosen = config.personalization
    if chosen is None or chosen.method == "fedper":
        return None
    if chosen.method == "ditto":
        return Ditto(chosen.pull)
    rate = config.training.learning_rate if chosen.learning_rate is None else chosen.learning_rate
    tune = FineTune(chosen.steps, rate, head=chosen.layers == "head")
    return tune if chosen.method == "fine_tune" else Interpolate(tune, chosen.alpha, chosen.choose_alpha)


def stragglers_of(config: Config) -> Stragglers | None:
    """Who is slow, in a simulation."""
    chosen = config.faults
    return Stragglers(chosen.stragglers, chosen.straggler_work) if chosen.stragglers else None


def poison_of(config: Config) -> Poison | None:
    """Who poisons its updates, in a simulation."""
    chosen = config.faults
    return Poison(chosen.poisoned, chosen.poison_factor) if chosen.poisoned else None


def loss_of(config: Config, workload: Workload) -> MaskedLoss | None:
    """The training loss inside the protected vector: up to four times that of guessing."""
    if not config.training.train_loss:
        return None
    return MaskedLoss(4 * math.log(workload.train.classes), config.protection.clip_range)
