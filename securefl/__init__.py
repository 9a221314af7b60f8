"""Cryptographic privacy for federated learning: protected sums of model updates.

    import numpy as np, securefl
    total = securefl.secure_sum({"a": np.ones(5), "b": 2 * np.ones(5), "c": np.ones(5)},
                                protect="masked", clip_range=4.0, threshold=2, dropped={"c"})

The packages, lowest first (an import only goes down):

    errors, types   exceptions; identifiers and array aliases
    primitives      key derivation, HPKE, mask streams, Shamir sharing
    wire, machine   strict frames; protocol machines without IO
    encoding        updates to integers and back
    secagg, plain   pairwise-masked sums; the unprotected sum they are compared with
    mpc             three parties compute on shares; models run and train on them
    transport       carrying frames between roles
    fl              the pipeline, FedAvg, data and training
    integrations    inside Flower, NVFLARE and anything else
    audit           vectors, reports
    cli             the command line

Importing securefl loads none of them: names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from securefl import audit as audit
    from securefl import encoding as encoding
    from securefl import errors as errors
    from securefl import fl as fl
    from securefl import mpc as mpc
    from securefl import secagg as secagg
    from securefl import transport as transport
    from securefl.fl.summation import Sum as Sum
    from securefl.fl.summation import secure_sum as secure_sum

__version__ = "0.1.0"

#: Public name → the module that defines it; packages stand for themselves.
_HOME = {"Sum": "securefl.fl.summation", "secure_sum": "securefl.fl.summation"}
_PACKAGES = ("audit", "encoding", "errors", "fl", "mpc", "secagg", "transport")

__all__ = ["Sum", "__version__", "audit", "encoding", "errors", "fl", "mpc", "secagg", "secure_sum", "transport"]


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return import_module(f"securefl.{name}")
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'securefl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
