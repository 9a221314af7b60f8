"""Decoders of secret-shared computation: whatever the bytes, a command and a network, or a DecodeError."""

import json
import struct
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from securefl.cluster.control import answer
from securefl.cluster.servers import _add
from securefl.errors import DecodeError, SecureFLError
from securefl.mpc.channel import memory_channels
from securefl.mpc.graph import Graph
from securefl.mpc.service import FIELDS, decode_command

leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
data = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)
FIELD_NAMES = sorted({field for fields in FIELDS.values() for field in fields})


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes(raw: bytes) -> None:
    with suppress(DecodeError):
        decode_command(raw)


@given(st.sampled_from(sorted(FIELDS)), st.dictionaries(st.sampled_from(FIELD_NAMES), data))
@settings(max_examples=300, deadline=None)
def test_commands_with_any_fields(operation: str, fields: dict) -> None:
    raw = json.dumps({"do": operation, **fields}).encode()
    try:
        command = decode_command(raw)
    except DecodeError:
        return
    assert set(command) == {"do", *FIELDS[operation]}


@given(
    st.lists(
        st.fixed_dictionaries(
            {"kind": st.sampled_from(["input", "linear", "relu", "add", "conv2d"])},
            optional={"inputs": data, "name": data, "parameters": data, "gain": data, "offset": data, "window": data},
        ),
        max_size=4,
    )
    | data
)
@settings(max_examples=300, deadline=None)
def test_networks_of_any_data(layers: object) -> None:
    try:
        graph = Graph.from_data(layers)
    except DecodeError:
        return
    assert Graph.from_data(graph.to_data()) == graph


@given(st.lists(st.binary(max_size=80), min_size=3, max_size=3))
@settings(max_examples=200, deadline=None)
def test_answers_of_any_bytes(replies: list[bytes]) -> None:
    with suppress(DecodeError):
        _add([memoryview(reply) for reply in replies])


@given(st.integers(0, 2**64 - 1), st.binary(max_size=60))
@settings(max_examples=100, deadline=None)
def test_reports_of_any_bytes(status: int, body: bytes) -> None:
    party, client = memory_channels(2, deadline=1.0)
    party.send(1, struct.pack(">Q", status), body)
    with suppress(SecureFLError):
        answer(client, 0, 40)
