"""The n-of-n CKKS sum, narrated: keys, checks, who leaves when, what a server would have to forge."""

from __future__ import annotations

from typing import Any

import numpy as np

from securefl.ckks.threshold import ThresholdSum
from securefl.ckks.threshold.messages import Kind
from securefl.ckks.threshold.params import SECURITY
from securefl.cli.output import bytes_text, console, print_table
from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError
from securefl.fl.seeds import SeedTree
from securefl.machine import RoundContext
from securefl.transport.memory import Faults, run_session
from securefl.transport.transcript import Transcript
from securefl.types import PartyId

__all__ = ["narrate_threshold"]

_WHAT = {
    Kind.KEY_SHARE: "each client's share of the public key, b_i = -a s_i + e_i; s_i never leaves it",
    Kind.JOINT_KEY: "their sum, to everybody",
    Kind.CONFIRM_KEY: "a signed fingerprint of what this client sent",
    Kind.KEY_CONFIRMED: "all of them: every client checks that the joint key is their sum",
    Kind.INPUT: "each client's integers, encrypted under the joint key; the server adds and forgets",
    Kind.SUM: "the second half of the summed ciphertexts, to everybody",
    Kind.CONFIRM_SUM: "again a signed fingerprint: nobody helps to open anything but the sum",
    Kind.SUM_CONFIRMED: "all of them",
    Kind.SHARE: "one partial decryption each, drowned in noise; the key is forgotten",
    Kind.RESTART: "somebody is gone and nothing was opened: again, under fresh keys",
    Kind.ABORT: "the end without a sum",
}


def narrate_threshold(clients: int, drop: int, dimension: int, *, quiet: bool = False) -> dict[str, Any]:
    """Run one session on made-up updates, the last ``drop`` clients leaving before they encrypt; returns the figures.

    Raises :class:`ConfigurationError` when the numbers cannot work, :class:`~securefl.errors.TooFewClientsError` when
    fewer than a majority are left.
    """
    if dimension < 1 or not 0 <= drop <= clients:
        raise ConfigurationError(f"--values must be at least 1, and --drop 0 to {clients} (the number of clients)")
    ids = tuple(PartyId(i) for i in range(1, clients + 1))
    grid, seeds = FixedPoint(clip_range=1.0, value_bits=16), SeedTree(0)
    updates = {i: seeds.child("update", i).numpy().normal(0, 0.1, dimension).clip(-1, 1) for i in ids}
    integers = {i: grid.encode(updates[i], seed=seeds.child("rounding", i).bytes(32)).values for i in ids}
    context = RoundContext(b"demo", 1, ids, dimension, grid.max_value, max(2, clients // 2 + 1), bytes(32))
    protection = ThresholdSum()
    params = protection.params(context)
    if not quiet:
        console.print(f"key model threshold: {protection.trust}", markup=False)
        console.print(f"{clients} clients, {dimension} values of 16 bits; {SECURITY}", markup=False)
        console.print(
            f"{params.runs[0].digits} integers per coefficient, {params.ciphertexts} ciphertexts per client; noise of "
            f"the sum below 2^{params.noise_bound.bit_length()}, flooding 2^{params.flood_bits}: "
            f"{params.achieved_bits:.1f} bits of statistical security over all that the key opens",
            markup=False,
        )
    transcript = Transcript()
    faults = Faults(drop_after=dict.fromkeys(ids[clients - drop :], protection.vector_frame))
    outcome = run_session(protection, context, lambda i: integers[i], faults=faults, observe=transcript)
    rows = [
        (kind.name, len(frames), bytes_text(sum(len(entry.frame) for entry in frames)), what)
        for kind, what in _WHAT.items()
        if (frames := [entry for entry in transcript if entry.kind == kind])
    ]
    if not quiet:
        print_table("messages", ("message", "frames", "bytes", "what it is"), rows)
    result = outcome.unwrap()
    plain = np.sum([integers[i] for i in result.survivors], axis=0, dtype=np.uint64)
    exact = bool((plain == result.values).all())
    if not quiet:
        console.print(
            f"sum over {len(result.survivors)} survivors: "
            f"{'equal to the plain sum in every integer' if exact else 'NOT the plain sum'}",
            markup=False,
        )
    return {
        "clients": clients,
        "survivors": list(result.survivors),
        "key_model": "threshold",
        "trust": protection.trust,
        "exact": exact,
        "ciphertexts": params.ciphertexts,
        "statistical_bits": params.achieved_bits,
        "vector_bytes": outcome.vector_bytes[ids[0]],
        "messages": [{"message": name, "frames": count} for name, count, _size, _what in rows],
    }
