"""The CKKS sum, narrated: who holds which key, messages and bytes, the check against the plain sum, the attack."""

from __future__ import annotations

from typing import Any

import numpy as np

from securefl.ckks import CKKSSum
from securefl.ckks.messages import Kind
from securefl.cli.output import bytes_text, console, print_table
from securefl.encoding.quantize import FixedPoint
from securefl.errors import ConfigurationError
from securefl.fl.protections import key_model_named
from securefl.fl.seeds import SeedTree
from securefl.machine import RoundContext
from securefl.transport.memory import Faults, run_session
from securefl.transport.transcript import Transcript
from securefl.types import PartyId

__all__ = ["narrate"]

_STEPS = (
    (Kind.PUBLIC_KEY, "the key holder's key, signed, to every client"),
    (Kind.KEY_NOTICE, "which key it is, to the server"),
    (Kind.ENCRYPTED_INPUT, "each client's integers, encrypted and signed; the server adds and forgets"),
    (Kind.ENCRYPTED_SUM, "the sum of the ciphertexts, to the key holder"),
    (Kind.RESULT, "exact integers, rounded to the lattice, back to the server"),
)


def narrate(
    clients: int, drop: int, dimension: int, key_model: str, *, flooding: bool, attack: bool, quiet: bool = False
) -> dict[str, Any]:
    """Run one session on made-up updates and tell it; returns the figures.

    Raises :class:`ConfigurationError` when the numbers cannot work; ``drop`` beyond what the threshold allows is let
    through, to show the refusal (:class:`~securefl.errors.TooFewClientsError`).
    """
    if clients < 2 or dimension < 1:
        raise ConfigurationError("--clients must be at least 2 and --values at least 1")
    if not 0 <= drop <= clients:
        raise ConfigurationError(f"--drop must be 0 to {clients} (the number of clients)")
    ids = tuple(PartyId(i) for i in range(1, clients + 1))
    grid, seeds = FixedPoint(clip_range=1.0, value_bits=16), SeedTree(0)
    updates = {i: seeds.child("update", i).numpy().normal(0, 0.1, dimension).clip(-1, 1) for i in ids}
    integers = {i: grid.encode(updates[i], seed=seeds.child("rounding", i).bytes(32)).values for i in ids}
    context = RoundContext(b"demo", 1, ids, dimension, grid.max_value, clients // 2 + 1, bytes(32))
    protection = CKKSSum(key_model_named(key_model), flooding=flooding)
    params = protection.params(context)
    lattice, chosen = params.lattice, params.parameters
    if not quiet:
        console.print(f"key model {key_model}: {protection.trust}", markup=False)
        console.print(
            f"{clients} clients, {dimension} values of 16 bits; parameter set {chosen.name}: {chosen.security}",
            markup=False,
        )
        console.print(
            f"{lattice.runs[0].digits} integers per coefficient, {params.ciphertexts} ciphertexts per client; lattice "
            f"2^{lattice.scale.bit_length() - 1}, noise of the sum at most 2^{params.noise_bound.bit_length()}"
            + (" after flooding" if flooding else ""),
            markup=False,
        )
    transcript = Transcript()
    gone = ids[clients - drop :]
    faults = Faults(drop_after=dict.fromkeys(gone, protection.vector_frame))
    outcome = run_session(protection, context, lambda i: integers[i], faults=faults, observe=transcript)
    rows = []
    for kind, what in _STEPS:
        frames = [entry for entry in transcript if entry.kind == kind]
        if frames:
            rows.append((kind.name, len(frames), bytes_text(sum(len(entry.frame) for entry in frames)), what))
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
    figures: dict[str, Any] = {
        "clients": clients,
        "survivors": list(result.survivors),
        "key_model": key_model,
        "trust": protection.trust,
        "parameter_set": chosen.name,
        "exact": exact,
        "ciphertexts": params.ciphertexts,
        "vector_bytes": outcome.vector_bytes[ids[0]],
        "messages": [{"message": name, "frames": count} for name, count, _size, _what in rows],
    }
    if attack:
        figures["attacks"] = _attacks(clients, quiet=quiet)
    return figures


def _attacks(clients: int, *, quiet: bool) -> list[dict[str, Any]]:
    import dataclasses

    from securefl.audit.key_recovery import attack_ours, attack_usual

    tried = [attack_usual(clients), attack_ours(clients, rounding=False), attack_ours(clients)]
    if not quiet:
        console.print(
            "key recovery from ciphertexts and their decryption (Li and Micciancio 2021): c0 + c1 s = what was "
            "decrypted, solved for s",
            markup=False,
        )
        print_table(
            "attack",
            ("path", "ciphertexts", "seconds", "secret key", "ternary part", "error on another's update"),
            [
                (
                    one.path,
                    one.ciphertexts,
                    f"{one.seconds:.2f}",
                    "RECOVERED" if one.recovered else "not recovered",
                    f"{one.ternary:.0%}",
                    "-" if one.error is None else f"{one.error:.1e}",
                )
                for one in tried
            ],
        )
        console.print(
            "what is released here are the integers of the last row; the row before shows what the rounding withholds",
            markup=False,
        )
    return [dataclasses.asdict(one) for one in tried]
