"""The roles without torch: an engine that keeps what it is given, and every fault by name."""

from __future__ import annotations

import numpy as np
import pytest

from securefl.errors import (
    ConfigurationError,
    DecodeError,
    FaultyClientError,
    FaultyServerError,
    InvalidInputError,
    LocalProtocolError,
)
from securefl.machine import Send
from securefl.split.client import GradientIn, OutputsIn, SplitClient
from securefl.split.engine import PayloadLimits, float32_bytes, float32_rows
from securefl.split.messages import SplitContext
from securefl.split.server import BatchDone, SplitServer, WeightsIn
from securefl.types import PartyId

W = np.arange(6, dtype=np.float32).reshape(2, 3)


class Linear:
    """Both sides of a mode whose body is z = W a, in the clear."""

    limits = PayloadLimits(5, 4 * 4 * 3, 4 * 4 * 2, 4 * 4 * 2, 4 * 4 * 3)

    def __init__(self) -> None:
        self.got_setup = b""

    def setup(self, payload: bytes | None = None) -> bytes:
        if payload is not None:
            self.got_setup = bytes(payload)
        return b"hello"

    def activations(self, rows: np.ndarray) -> bytes:
        return float32_bytes(rows)

    def outputs(self, payload: bytes, batch: int) -> np.ndarray:
        return float32_rows(payload, batch, 2, "outputs")

    def gradient(self, rows: np.ndarray) -> bytes:
        return float32_bytes(rows)

    def input_gradient(self, payload: bytes, batch: int) -> np.ndarray:
        return float32_rows(payload, batch, 3, "gradients")

    def forward(self, payload: bytes, batch: int, *, train: bool) -> bytes:
        return float32_bytes(float32_rows(payload, batch, 3, "a") @ W.T)

    def backward(self, payload: bytes, batch: int) -> bytes:
        return float32_bytes(float32_rows(payload, batch, 2, "dz") @ W)

    def learn(self, payload: bytes, labels: np.ndarray) -> tuple[float, bytes]:
        return float(labels.sum()), payload


def _context(**changes: object) -> SplitContext:
    fields = {"session": b"s", "client": PartyId(7), "mode": "m", "activations": 3, "outputs": 2, "max_batch": 4}
    return SplitContext(**{**fields, **changes})  # type: ignore[arg-type]


def _pair(**changes: object) -> tuple[SplitClient, SplitServer]:
    client, server = SplitClient(_context(**changes), Linear()), SplitServer(_context(**changes), Linear())
    (hello,) = client.start()
    assert isinstance(hello, Send)
    assert server.receive(hello.frame) == ()
    return client, server


A = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
DZ = np.array([[1, -1], [0.5, 0]], np.float32)


def _frame(events: object) -> bytes:
    sends = [event for event in events if isinstance(event, Send)]  # type: ignore[attr-defined]
    assert len(sends) == 1
    return bytes(sends[0].frame)


def test_a_batch_goes_forward_and_backward() -> None:
    client, server = _pair()
    for _ in range(2):
        (outputs,) = client.receive(_frame(server.receive(_frame(client.forward(A)))))
        assert isinstance(outputs, OutputsIn)
        assert outputs.train
        assert np.array_equal(outputs.rows, A @ W.T)
        events = server.receive(_frame(client.backward(DZ)))
        assert events[1] == BatchDone(2)
        (gradient,) = client.receive(_frame(events))
        assert isinstance(gradient, GradientIn)
        assert gradient.loss is None
        assert np.array_equal(gradient.rows, DZ @ W)


def test_a_probe_needs_no_gradient() -> None:
    client, server = _pair()
    (outputs,) = client.receive(_frame(server.receive(_frame(client.probe(A)))))
    assert isinstance(outputs, OutputsIn)
    assert not outputs.train
    client.forward(A)


def test_labels_go_where_the_server_has_the_loss() -> None:
    client, server = _pair(classes=3)
    (gradient,) = client.receive(_frame(server.receive(_frame(client.labelled(A, np.array([2, 1]))))))
    assert isinstance(gradient, GradientIn)
    assert gradient.loss == 3.0
    with pytest.raises(ConfigurationError):
        client.forward(A)
    with pytest.raises(InvalidInputError):
        client.labelled(A, np.array([3, 0]))
    with pytest.raises(ConfigurationError):
        _pair()[0].labelled(A, np.array([0, 0]))


def test_a_released_gradient_arrives() -> None:
    client, server = _pair()
    gradient = np.arange(8, dtype=np.float32).reshape(2, 4)
    (event,) = server.receive(_frame(client.release(gradient, 2)))
    assert isinstance(event, WeightsIn)
    assert np.array_equal(event.gradient, gradient)
    with pytest.raises(InvalidInputError):
        client.release(gradient[:, :3], 2)


def test_out_of_turn_is_refused_and_changes_nothing() -> None:
    client, server = _pair()
    with pytest.raises(LocalProtocolError):
        client.backward(DZ)
    with pytest.raises(LocalProtocolError):
        client.start()
    up = _frame(client.forward(A))
    with pytest.raises(LocalProtocolError):
        client.forward(A)
    down = _frame(server.receive(up))
    with pytest.raises(FaultyClientError) as caught:
        server.receive(up)  # again
    assert caught.value.clients == (7,)
    client.receive(down)
    with pytest.raises(FaultyServerError):
        client.receive(down)
    client.receive(_frame(server.receive(_frame(client.backward(DZ)))))


def test_a_batch_beyond_the_packing_is_refused_and_the_session_goes_on() -> None:
    client, _ = _pair()
    with pytest.raises(InvalidInputError, match="larger than the packing of 4"):
        client.forward(np.zeros((5, 3), np.float32))
    client.forward(A)


def test_a_gradient_of_another_batch_is_refused() -> None:
    client, server = _pair()
    client.receive(_frame(server.receive(_frame(client.forward(A)))))
    with pytest.raises(InvalidInputError):
        client.backward(DZ[:1])


@pytest.mark.parametrize("change", [{"session": b"t"}, {"mode": "n"}, {"outputs": 3}, {"client": PartyId(8)}])
def test_frames_of_another_session_are_refused(change: dict[str, object]) -> None:
    client, _ = _pair()
    _, other = _pair(**change)
    with pytest.raises(DecodeError):
        other.receive(_frame(client.forward(A)))


def test_every_flipped_bit_is_found() -> None:
    client, server = _pair()
    frame = _frame(client.forward(A))
    for at in range(0, 8 * len(frame), 13):
        damaged = bytearray(frame)
        damaged[at // 8] ^= 1 << at % 8
        with pytest.raises(DecodeError):
            server.receive(bytes(damaged))
    server.receive(frame)


def test_an_older_step_is_refused() -> None:
    client, server = _pair()
    old = _frame(client.probe(A))
    client.receive(_frame(server.receive(old)))
    with pytest.raises(DecodeError, match="step 1"):
        server.receive(old)


def test_roles_print_no_values() -> None:
    client, server = _pair()
    client.forward(A)
    assert repr(client) == "<SplitClient FORWARD>"
    assert repr(server) == "<SplitServer READY>"


@pytest.mark.parametrize(
    "change", [{"session": b""}, {"session": bytes(65)}, {"client": PartyId(0)}, {"max_batch": 0}, {"outputs": 0}]
)
def test_contexts_that_cannot_be(change: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        _context(**change)
