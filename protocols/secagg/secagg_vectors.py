"""What is generated for the masked sum: vectors, transcript, and the state diagrams and lengths in SPEC.md."""

from __future__ import annotations

from typing import Any

import session_ref as session
from secagg_faults import faults_file
from secagg_known_answers import masking_file, params_file, shamir_file
from secagg_recording import DROPOUTS, SESSIONS, dropouts, session_file, sessions
from secagg_ref import Params
from signed_known_answers import signed_file
from signed_recording import signed_sessions_file

TRANSCRIPT = "x25519-dropped-after-sharing"


def files() -> dict[str, Any]:
    answered, dropped = list(sessions()), list(dropouts())
    recorded = {recording.name: recording for recording in (*answered, *dropped)}
    return {
        "vectors/params.json": params_file(),
        "vectors/shamir.json": shamir_file(),
        "vectors/masking.json": masking_file(),
        "vectors/session.json": session_file(answered, SESSIONS),
        "vectors/dropouts.json": session_file(dropped, DROPOUTS),
        "vectors/faults.json": faults_file(recorded),
        "vectors/signed.json": signed_file(),
        "vectors/signed_sessions.json": signed_sessions_file(),
        "transcript.jsonl": recorded[TRANSCRIPT].transcript(),
        "transcript.md": recorded[TRANSCRIPT].story(),
    }


def blocks() -> dict[str, str]:
    from securefl.secagg.client import CLIENT_TRANSITIONS
    from securefl.secagg.server import SERVER_TRANSITIONS

    return {
        "client states": diagram(CLIENT_TRANSITIONS),
        "server states": diagram(SERVER_TRANSITIONS),
        "lengths": lengths(),
    }


def diagram(table: Any) -> str:
    """A mermaid state diagram of a transition table."""
    states = list(table)
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {states[0].name}"]
    for state in states:
        edges: dict[str, list[str]] = {}
        for trigger, after in table[state].items():
            edges.setdefault(after.name, []).append(trigger)
        lines += [f"    {state.name} --> {after}: {', '.join(triggers)}" for after, triggers in edges.items()]
    lines += [f"    {state.name} --> [*]" for state in states if state.name in ("FINISHED", "ABORTED")]
    return "\n".join([*lines, "```"])


def lengths() -> str:
    """Frame bytes of every message when nobody drops, 16-bit values, one million integers."""
    columns = [(suite, n) for suite in ("x25519", "mlkem768-x25519") for n in (32, 100)]
    rows: dict[tuple[str, str], list[int]] = {}
    for suite, n in columns:
        p = Params(tuple(range(1, n + 1)), 1_000_000, 2**16 - 2, n // 2 + 1, b"x", 0, bytes(32), suite)
        key, shares, pair, words = session.sizes(p)
        boxes = 4 + (n - 1) * (4 + shares) + (n - 1) * pair // 2  # on average, half of the boxes go to a higher id
        up = {"ADVERTISE_KEYS": 2 * key + 32, "SHARE_KEYS (mean)": boxes, "UNMASK_SHARES": 4 + 34 * n}
        down = {"ROSTER": 4 + n * (2 * key + 36), "DELIVER_SHARES (mean)": boxes, "UNMASK_REQUEST": 8 + 4 * n}
        up, down = ({name: size + 72 for name, size in way.items()} for way in (up, down))
        for way, sizes in (
            ("up", up | {"**keys and shares up**": sum(up.values())}),
            ("up", {"**MASKED_INPUT**": 8 * words + 72}),
            ("down", down | {"**keys and shares down**": sum(down.values())}),
        ):
            for name, size in sizes.items():
                rows.setdefault((name, way), []).append(size)
    table = [
        "| message | way | " + " | ".join(f"{suite}, n = {n}" for suite, n in columns) + " |",
        "|---|---|" + "---:|" * len(columns),
    ]
    table += [
        f"| {name} | {way} | " + " | ".join(f"{size:,}" for size in sizes) + " |" for (name, way), sizes in rows.items()
    ]
    return "\n".join(table)
