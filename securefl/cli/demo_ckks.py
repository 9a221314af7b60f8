"""The CKKS sum, narrated: who holds which key, messages and bytes, the check against the plain sum, the attack."""

from __future__ import annotations

from typing import Any

from securefl.ckks import CKKSSum
from securefl.ckks.messages import Kind
from securefl.cli.demo_sum import DemoSum
from securefl.cli.output import console, print_table
from securefl.fl.protections import key_model_named

__all__ = ["narrate"]

_STEPS = {
    Kind.PUBLIC_KEY: "the key holder's key, signed, to every client",
    Kind.KEY_NOTICE: "which key it is, to the server",
    Kind.ENCRYPTED_INPUT: "each client's integers, encrypted and signed; the server adds and forgets",
    Kind.ENCRYPTED_SUM: "the sum of the ciphertexts, to the key holder",
    Kind.RESULT: "exact integers, rounded to the lattice, back to the server",
}


def narrate(
    clients: int, drop: int, dimension: int, key_model: str, *, flooding: bool, attack: bool, quiet: bool = False
) -> dict[str, Any]:
    """Run one session on made-up updates and tell it; returns the figures.

    Raises :class:`ConfigurationError` when the numbers cannot work; ``drop`` beyond what the threshold allows is let
    through, to show the refusal (:class:`~securefl.errors.TooFewClientsError`).
    """
    demo = DemoSum(clients, drop, dimension)
    protection = CKKSSum(key_model_named(key_model), flooding=flooding)
    params = protection.params(demo.context)
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
    figures: dict[str, Any] = {
        "key_model": key_model,
        "trust": protection.trust,
        "parameter_set": chosen.name,
        "ciphertexts": params.ciphertexts,
        **demo.play(protection, _STEPS, quiet=quiet),
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
