"""Split learning's decoders take what encodes to itself, or raise a named error; no other error, no big allocation."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.errors import SecureFLError
from securefl.split.coding import GridRows
from securefl.split.messages import SplitContext, decode_batch, encode_batch
from securefl.types import PartyId

ROOT = Path(__file__).resolve().parents[2]
CONTEXT = SplitContext(b"session", PartyId(3), "plain", 2, 2, 4, 5)


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=60), labelled=st.booleans(), with_loss=st.booleans())
def test_bodies(body: bytes, labelled: bool, with_loss: bool) -> None:
    step = int.from_bytes(body[:8], "big")
    try:
        found = decode_batch(body, CONTEXT, step=step, labelled=labelled, with_loss=with_loss)
    except SecureFLError:
        return
    assert encode_batch(found) == body


@settings(max_examples=200, deadline=None)
@given(bits=st.integers(2, 16), batch=st.integers(1, 3), width=st.integers(1, 4), data=st.data())
def test_grid_rows(bits: int, batch: int, width: int, data: st.DataObject) -> None:
    coding = GridRows(1.0, bits)
    payload = data.draw(st.binary(min_size=coding.size(batch, width), max_size=coding.size(batch, width)))
    try:
        rows = coding.decode(payload, batch, width)
    except SecureFLError:
        return
    assert np.abs(rows).max() <= 1.0


@cache
def _server() -> tuple[object, bytes, np.ndarray, np.ndarray]:
    from securefl.ckks.linear import LinearClient, LinearLayer, LinearServer
    from securefl.ckks.params import parameter_set

    layer = LinearLayer(parameter_set("n4096-q60"), 3, 2, 4, 9, 10, 11)
    client = LinearClient(layer)
    server = LinearServer(layer, client.public_key())
    return (
        server,
        client.encrypt_activations(np.ones((2, 3), np.int64)),
        np.ones((2, 3), np.int64),
        np.zeros(2, np.int64),
    )


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 2**16), flip=st.integers(1, 255), cut=st.integers(0, 40))
def test_ciphertexts(at: int, flip: int, cut: int) -> None:
    pytest.importorskip("tenseal")
    server, good, weights, bias = _server()
    bad = bytearray(good)
    bad[at % len(bad)] ^= flip
    payload = bytes(bad[: len(bad) - cut])
    try:
        answer = server.forward(payload, weights, bias, 2)  # type: ignore[attr-defined]
    except SecureFLError:
        return
    assert len(answer) == server.layer.answer_bytes(1, 4)  # type: ignore[attr-defined]


def test_the_recorded_session_has_the_kinds_of_the_table() -> None:
    lines = (ROOT / "protocols" / "split" / "transcript.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == [1, 2, 7, 5, 8, 6]
