"""Which engine trains a run's clients: the one named, or the faster one by the shapes of model and batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from securefl.errors import ConfigurationError
from securefl.fl.data import Dataset
from securefl.fl.engine import Engine, SequentialEngine
from securefl.fl.training import LocalTraining

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EngineName", "choose_engine"]

EngineName = Literal["auto", "sequential", "stacked"]


def choose_engine(name: EngineName, module: nn.Module, dataset: Dataset, settings: LocalTraining) -> Engine:
    """The engine ``name``, training in the workspace ``module``.

    ``"auto"``: stacked where every layer is known to work stacked and a client's step is small. ``"stacked"``: also for
    modules of your own; what cannot be vmapped fails when it is trained.
    Raises :class:`~securefl.errors.ConfigurationError` for other names and for settings that do not stack.
    """
    from securefl.fl.stacked import StackedEngine, worth_stacking

    if name not in ("auto", "sequential", "stacked"):
        raise ConfigurationError(f"no engine {name!r}; there are auto, sequential, stacked")
    if name == "stacked" and settings.dpsgd is not None:
        raise ConfigurationError('example-level privacy trains one client at a time: engine = "sequential"')
    if name == "stacked" and settings.augmentation is not None:
        raise ConfigurationError('augmentation varies one client at a time: engine = "sequential"')
    if name == "stacked" or (
        name == "auto" and settings.augmentation is None and worth_stacking(module, dataset, settings)
    ):
        return StackedEngine(module, dataset)
    return SequentialEngine(module, dataset)
