"""The mode ``ckks``: a linear body evaluated on ciphertexts, forward and backward.

Real numbers become integers on public grids before encryption and are read off the lattice exactly afterwards
(``securefl.ckks.linear``), so the only error is that of the grids:

    activations   step activation_range / limit; beyond the range is an error (the learner clamps)
    weights       step 2^e / limit, with 2^e the least power of two that holds them; e stands before every answer
    gradients     step max|dz| / limit; the client's own, since the product with W is linear: it is never sent

Keys belong to the client: a fresh pair for every session, the public half is the set-up message.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securefl.ckks.linear import LinearClient, LinearLayer, LinearServer
from securefl.ckks.params import parameter_set
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError, LocalProtocolError
from securefl.split.body import linear_of
from securefl.split.engine import ClientEngine, PayloadLimits, Rows, ServerEngine, check_rows
from securefl.wire import Buffer

__all__ = ["CIPHERTEXTS", "EncryptedClient", "EncryptedMode", "EncryptedServer"]

#: name → (parameter set, bits of activations, of weights, of gradients)
CIPHERTEXTS: Final = {"wide": ("n8192-q112", 12, 14, 16), "compact": ("n4096-q60", 9, 10, 11)}
_EXPONENT_BYTES: Final = 1


@dataclass(frozen=True, slots=True)
class EncryptedMode:
    """One run's encrypted linear body. ``ciphertexts``: a key of :data:`CIPHERTEXTS`; ``body``: one linear layer."""

    ciphertexts: str
    activation_range: float
    layer: LinearLayer
    body: nn.Linear

    @classmethod
    def of(cls, ciphertexts: str, activation_range: float, body: nn.Module, max_batch: int) -> EncryptedMode:
        """Raises :class:`ConfigurationError` for a body that is not one linear layer and sizes that do not fit."""
        linear = linear_of(body)
        if linear is None:
            raise ConfigurationError(
                "protect = 'ckks' evaluates one linear layer: cut so that the body is exactly one torch.nn.Linear"
            )
        if ciphertexts not in CIPHERTEXTS:
            raise ConfigurationError(f"no ciphertexts {ciphertexts!r}; there are {', '.join(CIPHERTEXTS)}")
        name, *bits = CIPHERTEXTS[ciphertexts]
        layer = LinearLayer(parameter_set(name), linear.in_features, linear.out_features, max_batch, *bits)
        return cls(ciphertexts, activation_range, layer, linear)

    @property
    def text(self) -> str:
        layer = self.layer
        bits = f"{layer.activation_bits} {layer.weight_bits} {layer.gradient_bits}"
        return f"ckks {layer.parameters.name} {bits} {self.activation_range!r}"

    @property
    def clamps(self) -> float:
        return self.activation_range

    @property
    def hides_gradients(self) -> bool:
        return True

    @property
    def limits(self) -> PayloadLimits:
        """Sizes for the largest batch."""
        layer, most = self.layer, self.layer.max_batch
        return PayloadLimits(
            setup=layer.public_key_bytes,
            activations=layer.encrypted_bytes(layer.polynomials),
            outputs=_EXPONENT_BYTES + layer.answer_bytes(layer.output_answers, layer.outputs * most),
            gradient=layer.encrypted_bytes(layer.gradient_polynomials),
            input_gradient=_EXPONENT_BYTES + layer.answer_bytes(layer.gradient_answers, layer.features * most),
        )

    def client(self) -> ClientEngine:
        return EncryptedClient(self)

    def server(self) -> ServerEngine:
        return EncryptedServer(self)


class EncryptedClient:
    """The client's engine: it has the key."""

    def __init__(self, mode: EncryptedMode) -> None:
        self._mode = mode
        self._linear = LinearClient(mode.layer)
        self._step = mode.activation_range / mode.layer.activation_limit
        self._gradient_step = 0.0

    @property
    def limits(self) -> PayloadLimits:
        return self._mode.limits

    def setup(self) -> bytes:
        return self._linear.public_key()

    def activations(self, rows: Rows) -> bytes:
        check_rows(rows, self._mode.layer.features, "activations", largest=self._mode.activation_range)
        return self._linear.encrypt_activations(np.rint(rows / self._step).astype(np.int64))

    def outputs(self, payload: Buffer, batch: int) -> Rows:
        weight_step, answer = _weight_step(payload, self._mode.layer)
        return (self._linear.decrypt_outputs(answer, batch) * (self._step * weight_step)).astype(np.float32)

    def gradient(self, rows: Rows) -> bytes:
        layer = self._mode.layer
        check_rows(rows, layer.outputs, "gradients")
        largest = float(np.abs(rows).max())
        self._gradient_step = largest / layer.gradient_limit if largest > 0 else 1.0
        return self._linear.encrypt_gradient(np.rint(rows / self._gradient_step).astype(np.int64))

    def input_gradient(self, payload: Buffer, batch: int) -> Rows:
        if not self._gradient_step:
            raise LocalProtocolError("no gradient was sent yet")
        weight_step, answer = _weight_step(payload, self._mode.layer)
        scale = self._gradient_step * weight_step
        return (self._linear.decrypt_input_gradient(answer, batch) * scale).astype(np.float32)


class EncryptedServer:
    """The server's engine: it has the weights, and the client's public key to re-randomise with."""

    def __init__(self, mode: EncryptedMode) -> None:
        self._mode = mode
        self._linear: LinearServer | None = None

    @property
    def limits(self) -> PayloadLimits:
        return self._mode.limits

    def setup(self, payload: Buffer) -> None:
        self._linear = LinearServer(self._mode.layer, payload)

    def forward(self, payload: Buffer, batch: int, *, train: bool) -> bytes:
        weights, exponent = self._weights()
        bias = np.zeros(self._mode.layer.outputs)
        if self._mode.body.bias is not None:
            bias = self._mode.body.bias.detach().numpy().astype(np.float64)
        step = self._mode.activation_range / self._mode.layer.activation_limit * _step_of(exponent, self._mode.layer)
        integers = np.rint(bias / step).astype(np.int64)
        return _exponent_byte(exponent) + self._ready().forward(payload, weights, integers, batch)

    def backward(self, payload: Buffer, batch: int) -> bytes:
        weights, exponent = self._weights()
        return _exponent_byte(exponent) + self._ready().backward(payload, weights, batch)

    def view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        return self._ready().view(payload, batch)

    def gradient_view(self, payload: Buffer, batch: int) -> NDArray[np.float64]:
        return self._ready().gradient_view(payload, batch)

    def _ready(self) -> LinearServer:
        if self._linear is None:
            raise LocalProtocolError("the client's public key has not come yet")
        return self._linear

    def _weights(self) -> tuple[NDArray[np.int64], int]:
        """int64[O, F] on the grid, and the exponent e of the grid's range 2^e."""
        weights = self._mode.body.weight.detach().numpy().astype(np.float64)
        largest = float(np.abs(weights).max())
        if not math.isfinite(largest):
            raise InvalidInputError("the body's weights are no longer finite; lower the learning rate")
        exponent = min(127, max(-128, math.ceil(math.log2(largest)))) if largest > 0 else 0
        return np.rint(weights / _step_of(exponent, self._mode.layer)).astype(np.int64), exponent


def _step_of(exponent: int, layer: LinearLayer) -> float:
    return math.ldexp(1.0, exponent) / layer.weight_limit


def _exponent_byte(exponent: int) -> bytes:
    return exponent.to_bytes(_EXPONENT_BYTES, "big", signed=True)


def _weight_step(payload: Buffer, layer: LinearLayer) -> tuple[float, memoryview]:
    view = memoryview(payload)
    if view.nbytes < _EXPONENT_BYTES:
        raise DecodeError("an answer begins with the exponent of its weights")
    return _step_of(int.from_bytes(view[:_EXPONENT_BYTES], "big", signed=True), layer), view[_EXPONENT_BYTES:]
