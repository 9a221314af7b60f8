"""protocols/compression: the reference's vectors are current, and securefl agrees with each."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from securefl.encoding.hadamard import Rotation
from securefl.encoding.layout import Layout
from securefl.encoding.lowrank import PowerSGD, _orthonormal
from securefl.encoding.project import RandomProjection
from securefl.encoding.public import PublicRandomness
from securefl.encoding.radix import RadixLanes, digits_per_word, widest_window
from securefl.encoding.rotate import RotatedGrid, RotatedQuantizer
from securefl.encoding.sparsify import random_support
from securefl.encoding.tail import Tail
from securefl.encoding.weights import WeightFormat
from securefl.errors import SecureFLError
from securefl.machine import Segment, extra_fields

FOLDER = Path(__file__).parents[2] / "protocols" / "compression"


def context(_, given):
    segments = tuple(Segment(*segment) for segment in given["segments"])
    return [part.hex() for part in extra_fields(segments, bytes.fromhex(given["encoding"]))]


def radix(_, given):
    rows = np.array(given["rows"], dtype=np.uint64)
    lanes = RadixLanes(rows.shape[1], given["max_value"], len(rows), given["window"])
    packed = [lanes.pack(row) for row in rows]
    total = np.sum(packed, axis=0, dtype=np.uint64)
    words = {"first_words": packed[0], "total_words": total, "sums": lanes.unpack(total, len(rows))}
    return {name: list(map(str, value.tolist())) for name, value in words.items()}


def widest(_, given):
    return {"per_word": digits_per_word(given["window"]), "widest": widest_window(given["window"])}


def public(params, round):
    return PublicRandomness(bytes.fromhex(params["seed"]), round)


def public_key(params, given):
    return public(params, given["round"]).key(given["purpose"]).hex()


def rotate(params, given):
    x = np.array(given["values"], dtype=np.float32)
    rotation = Rotation(x.size, public(params, 1).key("rotation 0"))
    y = np.empty((rotation.block, rotation.blocks))
    for columns, _, piece in rotation.forward(x):
        y[:, columns] = piece
    return y.reshape(-1).astype(int).tolist()


def rotated(params, given):
    x = np.array(given["values"], dtype=np.float32)
    RotatedQuantizer(given["levels"])
    rotation = Rotation(x.size, public(params, 1).key("rotation 0"))
    grid = RotatedGrid(rotation, given["levels"] - 1, float.fromhex(given["clip_range"]), 1000)
    out = np.empty(rotation.padded, dtype=np.uint64)
    grid.encode(x, seed=bytes.fromhex(params["secret"]), out=out)
    return {
        "integers": out.tolist(),
        "decoded": [(float(v) + 0.0).hex() for v in grid.decode(3 * out, 3)],
    }  # the sign of zero is open


def support(params, given):
    positions, sizes = random_support(given["dimension"], given["kept"], public(params, given["round"]), "random_k")
    return {"positions": positions.tolist(), "sizes": sizes.tolist()}


def projection(params, given):
    x = np.array(given["values"], dtype=np.float32)
    stage = RandomProjection(given["kept"] / x.size).at(((x.size,),), public(params, given["round"]))
    return [float(v).hex() for v in stage.project(x, 0)]


def powersgd_start(params, given):
    shapes = tuple((1000, columns) for columns in given["columns"])
    stage = PowerSGD(given["rank"]).at(shapes, public(params, given["round"]))
    return [[[float(v).hex() for v in row] for row in matrix] for matrix in stage.bases]


def tail(params, given):
    values = np.array(given["values"], dtype=np.uint64)
    segment = Segment(values.size, params["max_value"])
    made = Tail(given["max_weight"], segment if given["check"] else None)
    out = np.empty(made.segment.size, dtype=np.uint64)
    made.encode(given["weight"], float.fromhex(given["energy"]), values, out)
    return out.tolist()


def weights(_, given):
    model = {"w": np.array([[float.fromhex(v) for v in given["values"]]], dtype=np.float32)}
    form = WeightFormat(given["bits"])
    data = form.encode(model)
    assert form.encode(form.decode(data, Layout.of(model))) == data
    return data.hex()


def cases():
    for path in sorted((FOLDER / "vectors").glob("*.json")):
        for group in json.loads(path.read_text())["groups"]:
            for test in group["tests"]:
                yield pytest.param(group["operation"], group["params"], test, id=f"{path.stem}-{test['id']}")


@pytest.mark.parametrize(("operation", "params", "test"), list(cases()))
def test_securefl_agrees(operation, params, test):
    if operation == "orthonormal":
        expected = [[float.fromhex(v) for v in row] for row in test["expected"]]
        found = _orthonormal(np.array(test["input"]["matrix"], dtype=np.float32))
        assert np.allclose(found, expected, atol=1e-6)
    elif "error" in test:
        with pytest.raises(SecureFLError) as caught:
            globals()[operation](params, test["input"])
        assert type(caught.value).__name__ == test["error"]["type"]
    else:
        assert globals()[operation](params, test["input"]) == test["expected"]


def test_the_vectors_are_what_the_reference_makes(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    import compression_vectors

    for name, body in compression_vectors.files().items():
        assert json.loads((FOLDER / name).read_text())["groups"] == json.loads(json.dumps(body["groups"]))
