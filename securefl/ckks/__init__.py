"""Sums under CKKS ciphertexts, exact: the aggregator adds what it cannot read, a key holder opens only the sum.

A sum needs no slots and no multiplications, so integers stand in the *coefficients* of a CKKS plaintext, several to a
coefficient: there the noise has a bound that no data can exceed, and the decrypted sum is read exactly or refused.
SPEC: protocols/ckks-sum/SPEC.md.

``CKKSSum``                          the protection, for ``run_session`` and the pipeline
``Client``, ``Server``, ``KeyHolder`` one role each; ``Params``, ``Identity``, ``Directory``, ``KeyRing`` what they take
``KeyModel``, ``PARAMETER_SETS``      the choices
"""

from securefl.ckks.client import Client
from securefl.ckks.key_holder import KeyHolder
from securefl.ckks.keys import KeyRing
from securefl.ckks.params import KEY_HOLDER, PARAMETER_SETS, KeyModel, Params, Release, parameter_set
from securefl.ckks.protection import CKKSSum
from securefl.ckks.server import Server
from securefl.primitives.identity import Directory, Identity

__all__ = [
    "KEY_HOLDER",
    "PARAMETER_SETS",
    "CKKSSum",
    "Client",
    "Directory",
    "Identity",
    "KeyHolder",
    "KeyModel",
    "KeyRing",
    "Params",
    "Release",
    "Server",
    "parameter_set",
]
