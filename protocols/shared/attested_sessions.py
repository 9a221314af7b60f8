"""The vectors of the attested form of the shared sum: sessions, refusals, and whom the first server leaves out."""

from __future__ import annotations

from typing import Any

from attested_drops import of_first, of_unknown, out_of_turn
from attested_forgeries import later_ones_count, of_clients, of_second
from attested_recording import Recording, known_to, params
from shared_ref import SECOND

SPEC = "protocols/shared/SPEC.md §9"
#: The sessions of shared_recording that are played in this form too.
PLAYED = ("three-of-three", "one-drops", "hybrid")
BASE = "three-of-three"


def attested_file(played: dict[str, Any]) -> dict[str, Any]:
    made = {name: Recording(name, played[name]) for name in PLAYED}
    base = made[BASE]
    p, me = base.p, base.p.clients[0]
    groups = [(made[name].p, made[name].known, made[name].accepted()) for name in PLAYED]
    groups.append((p, base.known, [*later_ones_count(base), *of_clients(base), *of_second(base)]))
    groups.append((p, base.known, [*of_first(base), *out_of_turn(base)]))
    without = known_to(p, SECOND)
    unknown = base.refused_by_client(
        "second-server-unknown",
        "the client was not given the second server's public key",
        "AuthenticationError",
        base.attested[me],
        base.keys[me],
        known=without,
    )
    groups.append((p, without, [unknown]))
    without = known_to(p, p.clients[1])
    frames = (*base.signed.values(), base.session["request"])
    unknown = base.refused_by_second(
        "client-unknown", "nobody gave client 2's public key", "AuthenticationError", *frames, known=without
    )
    groups.append((p, without, [unknown, *of_unknown(base)]))
    return {
        "spec": SPEC,
        "description": (
            "One role of a session between parties with known keys, as in roles.json. input.identity: the 32 bytes of "
            "the role's Ed25519 key; params.directory: the public keys that it was given. A role sends expected.sent; "
            "the first server, which has no key, ends with expected.sum over expected.survivors. A step with refused "
            "is refused with that error, and changes nothing. With error, the last of input.steps is refused, or ends "
            "the session, with error.type. All other steps are accepted."
        ),
        "groups": [{"operation": "attested", "params": params(p, known), "tests": tests} for p, known, tests in groups],
    }
