"""From ``[privacy]`` to the privacy of a run."""

from __future__ import annotations

from securefl.fl.config import Config
from securefl.fl.example_privacy import ExamplePrivacy
from securefl.fl.models import tensors_of
from securefl.fl.privacy import UserPrivacy
from securefl.fl.training import LocalTraining
from securefl.fl.workload import Workload

__all__ = ["privacy_of"]


def privacy_of(config: Config, workload: Workload, training: LocalTraining) -> UserPrivacy | ExamplePrivacy | None:
    """The run's privacy, its ledger not yet open. Raises :class:`ConfigurationError` when no noise meets the budget."""
    chosen = config.privacy
    if chosen is None:
        return None
    dimension = sum(tensor.size for tensor in tensors_of(workload.model).values())
    rounds = config.training.rounds
    if chosen.unit == "example":
        examples = workload.weights.values()
        return ExamplePrivacy(chosen, dimension=dimension, examples=examples, training=training, rounds=rounds)
    expected = int((chosen.sampling_probability or 1.0) * config.data.clients)
    return UserPrivacy(
        chosen,
        dimension=dimension,
        population=config.data.clients,
        minimum_survivors=config.protection.threshold_count(max(2, expected)),
        rounds=rounds,
        value_bits=config.protection.value_bits,
    )
