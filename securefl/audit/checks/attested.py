"""Vectors of the attested form of the shared sum: one role at a time, with its key and those it was given.

The roles are those that engines carry; nothing of an engine is needed. SPEC: protocols/shared/SPEC.md §9.
"""

from __future__ import annotations

from securefl.audit.checks import Case
from securefl.audit.checks.sessions import Replay, context_of, play
from securefl.integrations.attested import AttestedClient, AttestedSecond
from securefl.integrations.attested_first import AttestedFirst
from securefl.mpc.summation import Params, SecondServer
from securefl.primitives.identity import Directory, Identity
from securefl.primitives.kem import Suite
from securefl.types import PartyId

__all__ = ["play_attested"]


def play_attested(case: Case) -> None:
    """Raises as :func:`~securefl.audit.checks.sessions.play` does."""
    given = case.input
    params = Params(context_of(case.params), next(suite for suite in Suite if suite.label == case.params["suite"]))
    known = Directory({PartyId(item["party"]): bytes.fromhex(item["key"]) for item in case.params["directory"]})
    if given["role"] == "first":  # it draws nothing and signs nothing
        play(AttestedFirst(params, known), case)
        return
    identity, replay = Identity(case.bytes("identity")), Replay(given["tokens"], given["seals"])
    role: AttestedClient | AttestedSecond
    if given["role"] == "client":
        role = AttestedClient(params, PartyId(given["me"]), identity, known, entropy=replay)
    else:
        role = AttestedSecond(params, SecondServer(params, entropy=replay), identity, known)
    play(role, case)
