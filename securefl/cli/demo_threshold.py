"""The n-of-n CKKS sum, narrated: keys, checks, who leaves when, what a server would have to forge."""

from __future__ import annotations

from typing import Any

from securefl.ckks.threshold import ThresholdSum
from securefl.ckks.threshold.messages import Kind
from securefl.ckks.threshold.params import SECURITY
from securefl.cli.demo_sum import DemoSum
from securefl.cli.output import console

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
    demo = DemoSum(clients, drop, dimension)
    protection = ThresholdSum()
    params = protection.params(demo.context)
    if not quiet:
        console.print(f"key model threshold: {protection.trust}", markup=False)
        console.print(f"{clients} clients, {dimension} values of 16 bits; {SECURITY}", markup=False)
        console.print(
            f"{params.runs[0].digits} integers per coefficient, {params.ciphertexts} ciphertexts per client; noise of "
            f"the sum below 2^{params.noise_bound.bit_length()}, flooding 2^{params.flood_bits}: "
            f"{params.achieved_bits:.1f} bits of statistical security over all that the key opens",
            markup=False,
        )
    return {
        "key_model": "threshold",
        "trust": protection.trust,
        "ciphertexts": params.ciphertexts,
        "statistical_bits": params.achieved_bits,
        **demo.play(protection, _WHAT, quiet=quiet),
    }
