"""The masked sum, narrated: four exchanges with their bytes, what the server saw, the check against the plain sum."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from securefl.cli.output import bytes_text, console, print_table
from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError
from securefl.fl.protections import suite_named
from securefl.fl.seeds import SeedTree
from securefl.machine import RoundContext
from securefl.secagg import MaskedSum, Params
from securefl.secagg.messages import Kind
from securefl.transport.memory import Faults, run_session
from securefl.transport.transcript import Transcript
from securefl.types import SERVER, ClientId, PartyId
from securefl.wire import HEADER_BYTES

__all__ = ["narrate"]

_STEPS = (
    (
        "Advertise keys",
        (Kind.ADVERTISE_KEYS, Kind.ROSTER),
        "each client draws fresh keys; the server hands the list round",
    ),
    ("Share keys", (Kind.SHARE_KEYS, Kind.DELIVER_SHARES), "each client shares its two seeds with the others, sealed"),
    ("Masked input", (Kind.MASKED_INPUT,), "each client sends its integers plus masks; the server adds"),
    ("Unmask", (Kind.UNMASK_REQUEST, Kind.UNMASK_SHARES), "survivors give one kind of share per client, never both"),
)


def narrate(clients: int, drop: int, dimension: int, suite: str, *, quiet: bool = False) -> dict[str, Any]:
    """Run one session on made-up updates and tell it; returns the figures.

    Raises :class:`ConfigurationError` when the numbers cannot work; ``drop`` beyond what the threshold allows is let
    through, to show the refusal (:class:`TooFewClientsError`).
    """
    if clients < 2 or dimension < 1:
        raise ConfigurationError("--clients must be at least 2 and --values at least 1")
    if not 0 <= drop <= clients:
        raise ConfigurationError(f"--drop must be 0 to {clients} (the number of clients) and --values at least 1")
    ids = tuple(PartyId(i) for i in range(1, clients + 1))
    grid = FixedPoint(clip_range=1.0, value_bits=16)
    seeds = SeedTree(0)
    updates = {i: seeds.child("update", i).numpy().normal(0, 0.1, dimension).clip(-1, 1) for i in ids}
    integers = {i: grid.encode(updates[i], seed=seeds.child("rounding", i).bytes(32)).values for i in ids}
    context = RoundContext(b"demo", 1, ids, dimension, grid.max_value, clients // 2 + 1, bytes(32))
    protection = MaskedSum(suite_named(suite))
    params = Params.of(context, protection.suite)
    gone = ids[clients - drop :]
    transcript = Transcript()
    faults = Faults(drop_after=dict.fromkeys(gone, protection.vector_frame))
    if not quiet:
        console.print(
            f"{clients} clients, {dimension} values of 16 bits each, threshold {params.threshold}, {suite}; "
            f"lanes of {params.lanes.bits} bits, {params.lanes.per_word} to a 64-bit word",
            markup=False,
        )
        if gone:
            console.print(f"clients {_list(gone)} will share their keys and then fall silent", markup=False)
    outcome = run_session(protection, context, lambda i: integers[i], faults=faults, observe=transcript)
    figures = _figures(transcript, params)
    if not quiet:
        _tell(transcript, figures, params)
    result = outcome.unwrap()
    plain = np.sum([integers[i] for i in result.survivors], axis=0, dtype=np.uint64)
    exact = bool((plain == result.values).all())
    if not quiet:
        _view(transcript, params, integers[ids[0]], ids[0])
        console.print(
            f"sum over {len(result.survivors)} survivors ({_list(result.survivors)}): "
            f"{'equal to the plain sum in every integer' if exact else 'NOT the plain sum'}",
            markup=False,
        )
        mean_error = np.abs(
            grid.decode(result.values, len(result.survivors)) - sum(updates[i] for i in result.survivors)
        )
        console.print(f"largest error of the decoded sum, from rounding alone: {mean_error.max():.2e}", markup=False)
    return {
        "clients": clients,
        "dropped": list(gone),
        "survivors": list(result.survivors),
        "threshold": params.threshold,
        "suite": suite,
        "exact": exact,
        "upload_bytes_per_client": float(np.mean([outcome.uploaded[i] for i in ids])),
        "vector_bytes": 8 * params.lanes.words,
        "exchanges": figures,
    }


def _list(clients: tuple[ClientId, ...]) -> str:
    return ", ".join(map(str, clients))


def _figures(transcript: Transcript, params: Params) -> list[dict[str, Any]]:
    sizes: Counter[int] = Counter()
    counts: Counter[int] = Counter()
    for entry in transcript:
        sizes[entry.kind] += len(entry.frame)
        counts[entry.kind] += 1
    return [
        {
            "exchange": name,
            "messages": {Kind(kind).name: counts[kind] for kind in kinds},
            "bytes": {Kind(kind).name: sizes[kind] for kind in kinds},
        }
        for name, kinds, _ in _STEPS
    ]


def _tell(transcript: Transcript, figures: list[dict[str, Any]], params: Params) -> None:
    rows = []
    for at, ((name, kinds, what), figure) in enumerate(zip(_STEPS, figures, strict=True), start=1):
        console.print(f"{at}. {name}: {what}", markup=False)
        for kind in kinds:
            count, size = figure["messages"][kind.name], figure["bytes"][kind.name]
            arrow = "client → server" if kind in _TO_SERVER else "server → client"
            rows.append((kind.name.lower().replace("_", " "), arrow, count, bytes_text(size / count) if count else "-"))
    print_table("frames", ("message", "way", "number", "bytes each"), rows)


_TO_SERVER = {Kind.ADVERTISE_KEYS, Kind.SHARE_KEYS, Kind.MASKED_INPUT, Kind.UNMASK_SHARES}


def _view(
    transcript: Transcript, params: Params, integers: np.ndarray[Any, np.dtype[np.uint64]], client: ClientId
) -> None:
    """The first words that one client packed beside the words that the server received."""
    for entry in transcript:
        if entry.sender == client and entry.recipient == SERVER and entry.kind == Kind.MASKED_INPUT:
            received = np.frombuffer(entry.frame, dtype="<u8", offset=HEADER_BYTES, count=params.lanes.words)
            packed = params.lanes.pack(integers)
            shown = min(4, packed.size)
            print_table(
                f"client {client}, the first {shown} words",
                ("word", "packed update", "what the server saw"),
                [(i, f"{int(packed[i]):016x}", f"{int(received[i]):016x}") for i in range(shown)],
            )
