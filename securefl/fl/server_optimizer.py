"""The server's step: from the weighted mean of the updates to the next global model.

Legend: x the model, Δ the mean of the updates (after - before), η the server learning rate, β momentum, τ the degree of
adaptivity. [Reddi et al. 2021, "Adaptive Federated Optimization", Algorithms 1 and 2]

    averaging   m ← β m + Δ                        x ← x + η m         (β = 0: FedAvg; β > 0: FedAvgM)
    Adam        m ← β₁ m + (1 - β₁) Δ              x ← x + η m / (√v + τ)
                v ← β₂ v + (1 - β₂) Δ²
    Yogi        v ← v - (1 - β₂) Δ² sign(v - Δ²)   m, x as Adam

with m₀ = 0 and v₀ = τ². All of it is a function of the mean, so it works under any protection and costs no privacy.
All in float64, rounded once to float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.types import Tensors

__all__ = ["AdaptiveServer", "AveragingServer", "ServerOptimizer"]

_Moments = dict[str, NDArray[np.float64]]


class ServerOptimizer(Protocol):
    """Takes the mean of a round; keeps arrays between rounds."""

    def step(self, tensors: Tensors, mean: Tensors) -> Tensors:
        """The next model; new float32 arrays for the names in ``mean``, the others as they are.

        ``mean``: names are among the model's, shapes are its. Raises :class:`InvalidInputError` when the result is not
        finite; then nothing has changed.
        """
        ...

    def describe(self) -> dict[str, object]:
        """Every setting, JSON-ready: part of a run's fingerprint."""
        ...

    def state(self) -> dict[str, NDArray[np.generic]]: ...
    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None: ...


@dataclass
class AveragingServer:
    """Averaging with learning rate η > 0 and momentum β in [0, 1)."""

    learning_rate: float = 1.0
    momentum: float = 0.0
    _velocity: _Moments = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)
        if not 0 <= self.momentum < 1:
            raise ConfigurationError(f"server_momentum lies in [0, 1), not {self.momentum}")

    def step(self, tensors: Tensors, mean: Tensors) -> Tensors:
        """See :class:`ServerOptimizer`."""
        velocity = {name: value.astype(np.float64) for name, value in mean.items()}
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name
            if self.momentum and self._velocity:
                velocity = {name: self.momentum * self._velocity[name] + value for name, value in velocity.items()}
            moved = _moved(tensors, {name: self.learning_rate * value for name, value in velocity.items()})
        if self.momentum:
            self._velocity = velocity
        return moved

    def describe(self) -> dict[str, object]:
        """See :class:`ServerOptimizer`."""
        return {"name": "averaging", "learning_rate": self.learning_rate, "momentum": self.momentum}

    def state(self) -> dict[str, NDArray[np.generic]]:
        """The velocity."""
        return {f"server m {name}": value for name, value in self._velocity.items()}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up :meth:`state`."""
        self._velocity = _taken(saved, "server m ")


@dataclass
class AdaptiveServer:
    """Adam, or with ``yogi`` Yogi: η > 0, β₁ and β₂ in [0, 1), τ > 0."""

    learning_rate: float = 0.03
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3
    yogi: bool = False
    _first: _Moments = field(default_factory=dict, init=False, repr=False)
    _second: _Moments = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_rate(self.learning_rate)
        if not (0 <= self.beta1 < 1 and 0 <= self.beta2 < 1):
            raise ConfigurationError(f"server_beta1 and server_beta2 lie in [0, 1), not {self.beta1} and {self.beta2}")
        if not 0 < self.tau < np.inf:
            raise ConfigurationError(f"server_tau is a positive number, not {self.tau}")

    def step(self, tensors: Tensors, mean: Tensors) -> Tensors:
        """See :class:`ServerOptimizer`."""
        first: _Moments = {}
        second: _Moments = {}
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused by name
            for name, value in mean.items():
                delta = value.astype(np.float64)
                square = np.square(delta)
                m = self._first.get(name, np.zeros_like(delta))
                v = self._second.get(name, np.full_like(delta, self.tau**2))
                first[name] = self.beta1 * m + (1 - self.beta1) * delta
                if self.yogi:
                    second[name] = v - (1 - self.beta2) * square * np.sign(v - square)
                else:
                    second[name] = self.beta2 * v + (1 - self.beta2) * square
            steps = {name: self.learning_rate * first[name] / (np.sqrt(second[name]) + self.tau) for name in first}
            moved = _moved(tensors, steps)
        self._first, self._second = first, second
        return moved

    def describe(self) -> dict[str, object]:
        """See :class:`ServerOptimizer`."""
        name = "yogi" if self.yogi else "adam"
        return {
            "name": name,
            "learning_rate": self.learning_rate,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "tau": self.tau,
        }

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Both moments."""
        saved: dict[str, NDArray[np.generic]] = {f"server m {name}": value for name, value in self._first.items()}
        return saved | {f"server v {name}": value for name, value in self._second.items()}

    def restore(self, saved: Mapping[str, NDArray[np.generic]]) -> None:
        """Take up :meth:`state`."""
        self._first, self._second = _taken(saved, "server m "), _taken(saved, "server v ")


def _taken(saved: Mapping[str, NDArray[np.generic]], prefix: str) -> _Moments:
    return {
        name.removeprefix(prefix): np.asarray(value, dtype=np.float64)
        for name, value in saved.items()
        if name.startswith(prefix)
    }


def _check_rate(learning_rate: float) -> None:
    if not 0 < learning_rate < np.inf:
        raise ConfigurationError(f"server_learning_rate is a positive number, not {learning_rate}")


def _moved(tensors: Tensors, steps: Mapping[str, NDArray[np.float64]]) -> Tensors:
    """In float64 and rounded once. New arrays: results and checkpoints given out before stay as they were."""
    moved = {
        name: np.asarray(value + steps[name], dtype=np.float32) if name in steps else value
        for name, value in tensors.items()
    }
    if not all(np.isfinite(moved[name]).all() for name in steps):
        raise InvalidInputError("the aggregator's mean, applied to the model, is not finite")
    return moved
