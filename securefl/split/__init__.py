"""Split learning: the client holds the ends of a model, the server its middle. The modules, lowest first:

    settings     what a run is asked to do
    engine       the four conversions that a mode of protection is
    coding       rows in the clear, on a grid, or clipped and noised
    messages     the frames and their context
    client, server   the roles: bytes in, bytes out
    cutting      any module cut by the names of its layers [torch]
    encrypted    a linear body on ciphertexts [torch, ckks]
    clear        modes in which the server computes on what it can read [torch]
    modes        from a mode's name to the engines
    learner      one client over any channel [torch]
    channel      the server behind a queue, in this process
    body         the server's part of the model and its optimizer [torch]
    weights      how a weight gradient leaves clients that hide their gradients
    handover     fronts and heads sealed from one sequential client to the next
    privacy      what is released about one example, calibrated and charged
    training     many clients, parallel or sequential [torch]
    leakage      what a server's view gives away: reconstruction, distance correlation, label AUC
    attacks      activations from weight gradients
    series       synthetic series that look like heartbeats

SPEC: protocols/split/SPEC.md. Plain split learning offers **no privacy** against the server.

``import securefl.split`` imports none of them: names are resolved on first use (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from securefl.split.cutting import Cut as Cut
    from securefl.split.cutting import cut as cut
    from securefl.split.leakage import LeakageFigures as LeakageFigures
    from securefl.split.leakage import leakage_of as leakage_of
    from securefl.split.settings import SplitSettings as SplitSettings
    from securefl.split.training import SplitRound as SplitRound
    from securefl.split.training import SplitTraining as SplitTraining

#: Public name → the module that defines it.
_HOME = {
    "Cut": "cutting",
    "LeakageFigures": "leakage",
    "SplitRound": "training",
    "SplitSettings": "settings",
    "SplitTraining": "training",
    "cut": "cutting",
    "leakage_of": "leakage",
}

__all__ = ["Cut", "LeakageFigures", "SplitRound", "SplitSettings", "SplitTraining", "cut", "leakage_of"]


def __getattr__(name: str) -> Any:
    try:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
