"""The downloaded model in 8 or 4 bits."""

import numpy as np
import pytest

from securefl.encoding.layout import Layout
from securefl.encoding.weights import WeightFormat
from securefl.errors import ConfigurationError, DecodeError, InvalidInputError

RNG = np.random.default_rng(0)
MODEL = {
    "a": RNG.normal(size=(13, 11)).astype(np.float32),
    "b": RNG.normal(size=13).astype(np.float32),
    "c": np.zeros((3, 50), dtype=np.float32),
}


@pytest.mark.parametrize(("bits", "half"), [(8, 127), (4, 7)])
def test_a_model_comes_back_within_half_a_step(bits, half):
    form = WeightFormat(bits)
    back, size = form.round_trip(MODEL)
    flat = np.append(MODEL["a"].reshape(-1), np.zeros(64 * 3 - 143, dtype=np.float32)).reshape(3, 64)
    bound = np.repeat(np.abs(flat).max(axis=1) / (2 * half), 64)[:143].reshape(13, 11)
    assert (np.abs(back["a"] - MODEL["a"]) <= bound * 1.0001).all()
    assert (back["b"] == MODEL["b"]).all()
    assert not back["c"].any()
    assert size == 3 * 4 + -(-143 * bits // 8) + 13 * 4 + 3 * 4 + -(-150 * bits // 8) == form.length(Layout.of(MODEL))
    again, _ = form.round_trip(back)
    assert all(np.allclose(again[name], back[name], rtol=1e-6) for name in MODEL)


def test_damaged_models_are_refused():
    form, layout = WeightFormat(4), Layout.of(MODEL)
    data = form.encode(MODEL)
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(DecodeError):
            form.decode(wrong, layout)
    with pytest.raises(DecodeError, match="code beyond 14"):
        form.decode(data[:12] + b"\xff" + data[13:], layout)
    with pytest.raises(DecodeError, match="not finite"):
        form.decode(np.float32(np.nan).tobytes() + data[4:], layout)
    with pytest.raises(InvalidInputError):
        form.encode({"a": np.full((2, 2), np.inf, dtype=np.float32)})
    with pytest.raises(ConfigurationError):
        WeightFormat(2)
