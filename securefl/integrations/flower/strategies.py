"""Which strategies a sum can serve, and how the strategy that is asking is found.

A protected round yields one mean (one per group), not one update per client. A strategy that compares, ranks, clips or
counts individual updates would run without complaint on copies of the mean and give a promise that it does not keep, so
it is refused by name. Strategies of the user's own are taken to need no more than the mean, which is what FedAvg's
descendants need; docs/flower.md says so.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Final

from flwr.serverapp.strategy import Strategy

from securefl.errors import ConfigurationError

__all__ = ["calling_strategy", "check_strategy", "momentum_of"]

#: Robust rules that make sense on the means of groups.
_OVER_GROUPS: Final = {"FedMedian", "FedTrimmedAvg"}
#: What the others need of each client.
_INDIVIDUAL: Final = {
    "Krum": "the distances between individual updates",
    "MultiKrum": "the distances between individual updates",
    "Bulyan": "the distances between individual updates",
    "QFedAvg": "each client's loss",
    "FedXgbBagging": "each client's trees",
    "FedXgbCyclic": "each client's trees",
    "DifferentialPrivacyClientSideAdaptiveClipping": "each client's norm bit; use privacy=…",
    "DifferentialPrivacyServerSideFixedClipping": "the norm of each update; use the client-side one, or privacy=…",
    "DifferentialPrivacyServerSideAdaptiveClipping": "the norm of each update; use privacy=…",
}
LEAST_GROUPS: Final = 3


def calling_strategy() -> Strategy | None:
    """The strategy whose method is running further up the stack: ``Strategy.start`` does not hand itself over."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        candidate = frame.f_locals.get("self")
        if isinstance(candidate, Strategy):
            return candidate
        frame = frame.f_back
    return None


def check_strategy(strategy: Strategy | None, groups: int) -> None:
    """Raises :class:`ConfigurationError` when ``strategy`` or what it wraps needs more than means of ``groups``."""
    while strategy is not None:
        names = [cls.__name__ for cls in type(strategy).__mro__]
        needs = next((_INDIVIDUAL[name] for name in names if name in _INDIVIDUAL), None)
        if needs is not None:
            raise ConfigurationError(
                f"{type(strategy).__name__} needs {needs}, which a protected sum does not give anyone: use a "
                "strategy that works on the mean, or FedMedian or FedTrimmedAvg over SecureGrid(groups=…)"
            )
        if _OVER_GROUPS & set(names) and groups < LEAST_GROUPS:
            raise ConfigurationError(
                f"{type(strategy).__name__} over one mean is that mean: ask for SecureGrid(groups=…) of at least "
                f"{LEAST_GROUPS}, and it works on the groups' means"
            )
        strategy = getattr(strategy, "strategy", None)


def momentum_of(strategy: Strategy | None) -> tuple[float, bool]:
    """The server momentum of ``strategy``, or of what it wraps, and whether it divides by the size of updates."""
    momentum, adaptive = 0.0, False
    while strategy is not None:
        momentum = max(momentum, float(getattr(strategy, "server_momentum", 0.0) or 0.0))
        adaptive = adaptive or "FedOpt" in {cls.__name__ for cls in type(strategy).__mro__}
        strategy = getattr(strategy, "strategy", None)
    return momentum, adaptive
