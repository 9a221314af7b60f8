"""Vectors of the shared sum: parameters, and one role at a time from recorded randomness. SPEC: protocols/shared."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from securefl.audit.checks import Case, Check
from securefl.audit.checks.attested import play_attested
from securefl.audit.checks.sessions import Replay, check_params, context_of, play
from securefl.mpc.summation import FirstServer, Params, SecondServer, SharedClient
from securefl.primitives.kem import Suite
from securefl.types import PartyId

__all__ = ["CHECKS"]


def params_of(given: Mapping[str, Any]) -> Params:
    """The parameters of a vector. Raises :class:`~securefl.errors.ConfigurationError` when they cannot work."""
    return Params(context_of(given), next(suite for suite in Suite if suite.label == given["suite"]))


def _play(case: Case) -> None:
    params, given = params_of(case.params), case.input
    replay = Replay(given["tokens"], given["seals"])
    role: SharedClient | FirstServer | SecondServer
    if given["role"] == "client":
        role = SharedClient(params, PartyId(given["me"]), entropy=replay)
    elif given["role"] == "second":
        role = SecondServer(params, entropy=replay)
    else:
        role = FirstServer(params)
    play(role, case)


CHECKS: Final[Mapping[str, Check]] = {
    "params": partial(check_params, params_of),
    "play": _play,
    "attested": play_attested,
}
