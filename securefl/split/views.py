"""What the server, or one of the servers, holds of activations and gradients under a mode: for leakage figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError
from securefl.split.engine import Rows
from securefl.split.modes import FramedMode
from securefl.split.shared import SharedMode
from securefl.split.shared_view import server_view

__all__ = ["View", "observer"]

#: float64[B, k], one row per example.
View: TypeAlias = NDArray[np.float64]


def observer(mode: FramedMode | SharedMode) -> Callable[[Rows, Rows | None], tuple[View, View | None]]:
    """A function from a batch's activations and gradient at the outputs to what of each a server holds.

    The gradient is ``None`` where the server has the labels; of several servers it is one.
    """
    if isinstance(mode, SharedMode):
        return lambda activations, gradient: _of_shares(mode, activations, gradient)
    client, server = mode.client(), mode.server()
    server.setup(client.setup())

    def of_payloads(activations: Rows, gradient: Rows | None) -> tuple[View, View | None]:
        view = server.view(client.activations(activations), len(activations))
        return view, None if gradient is None else server.gradient_view(client.gradient(gradient), len(gradient))

    return of_payloads


def _of_shares(mode: SharedMode, activations: Rows, gradient: Rows | None) -> tuple[View, View]:
    if gradient is None:
        raise ConfigurationError("labels stay with the client under protect = 'shared'")
    view = server_view(mode, activations, gradient)
    return view.activations, view.gradients
