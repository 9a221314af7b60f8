"""From updates to the decoded sum of many clients: exact integers all the way, and no more error than promised."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from securefl.encoding.clipping import clip_to_norm
from securefl.encoding.layout import Layout
from securefl.encoding.quantize import FixedPoint
from securefl.encoding.ring import Lanes
from securefl.errors import DecodeError

seeds = st.binary(min_size=32, max_size=32)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[FixedPoint, list[dict[str, np.ndarray]]]:
    """A grid and the models of some clients, all of one layout, with values up to twice the clip range."""
    grid = FixedPoint(draw(st.sampled_from([0.01, 0.1, 1.0, 3.7])), draw(st.integers(2, 20)))
    shapes = draw(st.dictionaries(st.sampled_from("abc"), hnp.array_shapes(max_dims=2, max_side=4), min_size=1))
    dtypes = {name: draw(st.sampled_from([np.float16, np.float32, np.float64])) for name in shapes}
    clients = draw(st.integers(1, 5))
    elements = st.floats(-2, 2, width=16)
    return grid, [
        {
            name: (draw(hnp.arrays(np.float64, shape, elements=elements)) * grid.clip_range).astype(dtypes[name])
            for name, shape in shapes.items()
        }
        for _ in range(clients)
    ]


@settings(max_examples=100, deadline=None)
@given(rounds(), st.lists(seeds, min_size=5, max_size=5))
def test_the_decoded_sum_is_the_sum_of_clipped_updates(
    drawn: tuple[FixedPoint, list[dict[str, np.ndarray]]], random: list[bytes]
) -> None:
    grid, models = drawn
    layout = Layout.of(models[0])
    lanes = Lanes(layout.dimension, grid.max_value, len(models))
    total, clipped = np.zeros(lanes.words, dtype=np.uint64), []
    for model, seed in zip(models, random, strict=False):
        assert Layout.of(model).schema_hash == layout.schema_hash
        flat = layout.flatten(model)
        quantized = grid.encode(flat, seed=seed, clip=True)
        lanes.check(quantized.values)
        total += lanes.pack(quantized.values)
        clipped.append(np.clip(flat.astype(np.float64), -grid.clip_range, grid.clip_range))
    decoded = grid.decode(lanes.unpack(total), len(models))
    assert np.all(np.abs(decoded - np.sum(clipped, axis=0)) <= len(models) * grid.step * (1 + 1e-9))
    back = layout.unflatten(decoded)
    assert {name: (t.shape, t.dtype) for name, t in back.items()} == {
        name: (t.shape, t.dtype) for name, t in models[0].items()
    }


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_what_is_added_to_a_packed_sum_is_added_to_its_integers(data: st.DataObject) -> None:
    """Packing commutes with sums of any subset of the cohort."""
    clients, largest = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 2**20))
    lanes = Lanes(data.draw(st.integers(1, 50)), largest, clients)
    values = st.lists(st.integers(0, largest), min_size=lanes.dimension, max_size=lanes.dimension)
    rows = [np.array(data.draw(values), dtype=np.uint64) for _ in range(data.draw(st.integers(0, clients)))]
    packed = sum((lanes.pack(row) for row in rows), np.zeros(lanes.words, dtype=np.uint64))
    expected = sum(rows, np.zeros(lanes.dimension, dtype=np.uint64))
    assert np.array_equal(lanes.unpack(packed), expected)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_words_are_a_packed_vector_or_refused(data: st.DataObject) -> None:
    """Unpack is injective: what it accepts is what pack makes of it."""
    lanes = Lanes(data.draw(st.integers(1, 30)), data.draw(st.integers(1, 2**40)), data.draw(st.integers(1, 20)))
    word = st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 2 ** (lanes.bits * lanes.per_word) - 1))
    words = np.array(data.draw(st.lists(word, min_size=lanes.words, max_size=lanes.words)), dtype=np.uint64)
    try:
        values = lanes.unpack(words)
    except DecodeError:
        return
    assert np.array_equal(lanes.pack(values), words)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(-1e6, 1e6)), st.floats(1e-6, 1e6), seeds)
def test_a_clipped_update_fits_a_grid_of_its_norm(update: np.ndarray, bound: float, seed: bytes) -> None:
    """No single value exceeds the ℓ2 norm, so a grid with that clip range takes every clipped update."""
    clipped = clip_to_norm(update, bound)
    grid = FixedPoint(bound * (1 + 1e-9), 16)
    quantized = grid.encode(clipped, seed=seed)
    assert quantized.clipped == 0
    assert np.all(np.abs(grid.decode(quantized.values, 1) - clipped) <= grid.step * (1 + 1e-9))
