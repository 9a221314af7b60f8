"""What one corrupted server of the mode ``shared`` holds of a batch: for leakage figures and for the attacks.

The servers' own programs run in threads of this process on a batch, and what is in one server's memory afterwards is
read out: its shares, and what both servers opened under masks. The helper gets keys of streams, and no message.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from securefl.cluster.threads import run_parties
from securefl.errors import InvalidInputError
from securefl.mpc.fixed import FRACTION, encode
from securefl.mpc.gemm import Words
from securefl.mpc.handover import Handed, hand_out, take
from securefl.mpc.network import Network
from securefl.mpc.party import Party
from securefl.mpc.shared import Shared
from securefl.primitives.entropy import SystemEntropy
from securefl.split.engine import Rows
from securefl.split.shared import SharedMode

__all__ = ["ServerView", "server_view"]

Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ServerView:
    """Ring elements as numbers of [−1, 1), one row per example: shares first, then what was opened under a mask.

    ``activations``, ``gradients``: float64[B, k]. ``weight_gradients``: by name, this server's share of each, summed
    over the batch.
    """

    activations: Values = field(repr=False)
    gradients: Values = field(repr=False)
    weight_gradients: dict[str, Values] = field(repr=False)


def server_view(mode: SharedMode, activations: Rows, gradients: Rows, server: int = 1) -> ServerView:
    """The view of server 0 or 1 of one batch forward and backward, with the body's initial weights.

    ``activations``: float32[B, F] within the range, ``gradients``: float32[B, O].
    """
    if server not in {0, 1}:
        raise InvalidInputError("servers 0 and 1 hold shares; the helper holds nothing that depends on a value")
    inputs = _handed(activations.reshape(-1, *mode.activation_shape))
    outputs = _handed(gradients.reshape(-1, *mode.output_shape))
    weights = {name: _handed(values) for name, values in mode.imported.parameters.items()}

    def program(party: Party) -> ServerView | None:
        def hold(handed: tuple[tuple[int, ...], list[Handed]]) -> Shared:
            shape, payloads = handed
            return take(party, shape, FRACTION, memoryview(b"".join(payloads[party.me])), opened=True)

        network = Network(mode.imported.graph, {name: hold(shares) for name, shares in weights.items()})
        x, delta = hold(inputs), hold(outputs)
        _, kept = network.begin(x)
        network.backward(kept, delta)
        if party.me != server:
            return None
        batch = x.shape[0]
        seen = [x, *(tensor for tensor in kept.tensors() if tensor is not x and tensor.shape[0] == batch)]
        own = {name: _numbers(gradient.words) for name, gradient in network.gradients.items()}
        return ServerView(_rows(seen), _rows([delta]), own)

    found = run_parties(program)[server]
    if found is None:
        raise AssertionError("the server gives its view")
    return found


def _handed(values: NDArray[np.floating]) -> tuple[tuple[int, ...], list[Handed]]:
    """Shape, and what a client sends each party."""
    words = encode(values, FRACTION)
    return words.shape, hand_out("dealer", words, SystemEntropy(), opened=True)


def _rows(tensors: list[Shared]) -> Values:
    arrays = [tensor.words for tensor in tensors]
    arrays += [tensor.opened.public for tensor in tensors if tensor.opened is not None]
    return np.concatenate([_numbers(array).reshape(len(array), -1) for array in arrays], axis=1)


def _numbers(words: Words) -> Values:
    return np.asarray(np.ascontiguousarray(words).view(np.int64) / 2.0**63, dtype=np.float64)
