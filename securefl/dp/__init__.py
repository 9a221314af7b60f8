"""Differential privacy: accounted, calibrated, and never overspent. In topological order:

``events``        what was released, as data; the neighboring relation
``gaussian``      the Gaussian mechanism in closed form
``pld``           loss laws of subsampled Gaussian steps on a grid, dominating the true ones
``steering``      where on the loss axis to look: tilt, window, grid
``composition``   their composition by one FFT, every error on the safe side
``rdp``           Rényi bounds where the loss law is not known
``certificate``   the distance of integer noise to a rounded Gaussian
``accountant``    events → (ε, δ)
``calibration``   (ε, δ) → noise, rounds, sampling probability
``filters``       stopping rules for mechanisms chosen as the run goes
``ledger``        SQLite: a charge is committed before the release it pays for

``cohort``        Poisson sampling of clients
``weights``       integer weights of noise laws, by exact arithmetic
``sampler``       integer noise from an AES stream, exact up to a proven distance
``rounding``      a real update → integers of proven sensitivity
``distributed``   Skellam noise that the clients add inside the ring
``central``       noise that a trusted server adds to the sum
``local``         noise that each client adds for itself
``adaptive``      the clip norm learned privately

SPEC: protocols/dp/SPEC.md. Sans-IO, except for the ledger's file.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from securefl.dp.api import calibrate, delta, epsilon
    from securefl.dp.events import NeighboringRelation
    from securefl.dp.ledger import Ledger

__all__ = ["Ledger", "NeighboringRelation", "calibrate", "delta", "epsilon"]

_HOME = {
    "Ledger": "securefl.dp.ledger",
    "NeighboringRelation": "securefl.dp.events",
    "calibrate": "securefl.dp.api",
    "delta": "securefl.dp.api",
    "epsilon": "securefl.dp.api",
}


def __getattr__(name: str) -> Any:
    try:
        return getattr(importlib.import_module(_HOME[name]), name)
    except KeyError:
        raise AttributeError(f"module 'securefl.dp' has no attribute {name!r}") from None
