"""Combinations that are refused, with the reason; each by a rule of its own that a named flag switches off.

Measured in ``benchmarks/compression.py`` or cited; the flags are keys of ``[compression]``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from securefl.errors import ConfigurationError

__all__ = ["RULES", "Plan", "Rule", "check", "require_contributors"]

#: Server momentum from which on error feedback was seen to diverge.
_MOMENTUM_LIMIT = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """What the rules look at. ``positions``: who chooses the kept values; ``scale``: whose range the grid has."""

    protect: str
    error_feedback: bool = False
    server_momentum: float = 0.0
    adaptive_server: bool = False
    positions: str = "public"
    scale: str = "common"
    two_sums: bool = False
    privacy: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """``flag``: the key that allows the combination nevertheless. ``reason``: one sentence."""

    flag: str
    reason: str

    def applies(self, plan: Plan) -> bool:
        """Whether ``plan`` is such a combination."""
        return bool(_APPLIES[self.flag](plan))


_APPLIES = {
    "allow_error_feedback_with_server_momentum": lambda p: p.error_feedback and p.server_momentum > _MOMENTUM_LIMIT,
    "allow_error_feedback_with_adaptive_server": lambda p: p.error_feedback and p.adaptive_server,
    "allow_positions_in_the_clear": lambda p: p.positions == "client" and p.protect != "plain",
    "allow_per_client_scales": lambda p: p.scale == "client" and p.protect != "plain",
    "allow_two_releases_with_privacy": lambda p: p.two_sums and p.privacy,
}

RULES: tuple[Rule, ...] = (
    Rule(
        "allow_error_feedback_with_server_momentum",
        "error feedback sends old updates late, and a server momentum above 0.5 adds them up again: training diverges; "
        "set error_feedback = false or lower the momentum",
    ),
    Rule(
        "allow_error_feedback_with_adaptive_server",
        "an adaptive server optimizer divides by the size of what arrives, which error feedback makes uneven: training "
        "diverges; set error_feedback = false or use plain averaging",
    ),
    Rule(
        "allow_positions_in_the_clear",
        "positions that a client chooses by its own data (top-k) tell that data, and values with one contributor are "
        "revealed by the sum; use random_k, whose support is public",
    ),
    Rule(
        "allow_per_client_scales",
        "integers on grids of different scale do not add up to the sum; use rotated, whose scale is common",
    ),
    Rule(
        "allow_two_releases_with_privacy",
        "a coder with two sums releases the round twice, and the noise is calibrated for one release; use a coder "
        "with one sum",
    ),
)


def check(plan: Plan, allowed: Collection[str] = ()) -> None:
    """Raises :class:`ConfigurationError` for the first rule that applies and whose flag is not in ``allowed``."""
    for rule in RULES:
        if rule.applies(plan) and rule.flag not in allowed:
            raise ConfigurationError(f"{rule.reason} (or, knowing that, {rule.flag} = true)")


def require_contributors(positions: Mapping[int, Collection[int]], minimum: int) -> None:
    """For supports that are not shared: every position of any client must be in at least ``minimum`` clients'.

    ``positions``: client → the positions it sends. Raises :class:`ConfigurationError` naming the first position with
    fewer: its sum would be the value of those few. Shared supports always have all survivors as contributors.
    """
    counts: dict[int, int] = {}
    for sent in positions.values():
        for position in set(sent):
            counts[position] = counts.get(position, 0) + 1
    short = min((position for position, count in counts.items() if count < minimum), default=None)
    if short is not None:
        raise ConfigurationError(
            f"index {short} has {counts[short]} contributors; at least {minimum} are needed so that a sum hides them"
        )
