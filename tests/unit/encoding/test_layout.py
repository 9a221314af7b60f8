"""Named tensors to one flat vector and back: nothing lost, nothing reordered, every difference named and hashed."""

import numpy as np
import pytest
from Crypto.Hash import TupleHash256
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from securefl.encoding.layout import Layout, TensorSpec
from securefl.errors import InvalidInputError

dtypes = st.sampled_from(["float16", "float32", "float64"])
models = st.dictionaries(
    st.text(max_size=8).filter(str.isprintable),
    dtypes.flatmap(
        lambda dtype: hnp.arrays(
            dtype,
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
            elements=st.floats(-1000, 1000, width=16),
        )
    ),
    max_size=5,
).filter(lambda tensors: any(tensor.size for tensor in tensors.values()))

MODEL = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "bias": np.array([10.0, 20.0]),
    "scale": np.array(7.0, dtype=np.float16),
    "nothing": np.zeros((0, 5), dtype=np.float32),
}


@settings(max_examples=150, deadline=None)
@given(models)
def test_flatten_and_unflatten_are_inverse(tensors: dict[str, np.ndarray]) -> None:
    layout = Layout.of(tensors)
    flat = layout.flatten(tensors)
    assert flat.shape == (layout.dimension,) == (sum(tensor.size for tensor in tensors.values()),)
    widest = max(["float32", *(tensor.dtype.name for tensor in tensors.values())], key=lambda name: int(name[5:]))
    assert flat.dtype.name == widest
    assert flat.tolist() == [float(value) for tensor in tensors.values() for value in tensor.ravel()]
    back = layout.unflatten(flat)
    assert list(back) == list(tensors)
    for name, tensor in tensors.items():
        assert (back[name].dtype, back[name].shape) == (tensor.dtype, tensor.shape)
        assert np.array_equal(back[name], tensor)


def test_a_known_model() -> None:
    layout = Layout.of(MODEL)
    assert layout.tensors == (
        TensorSpec("weight", (2, 3), "float32"),
        TensorSpec("bias", (2,), "float64"),
        TensorSpec("scale", (), "float16"),
        TensorSpec("nothing", (0, 5), "float32"),
    )
    assert layout.dimension == 9
    assert layout.flatten(MODEL).tolist() == [0, 1, 2, 3, 4, 5, 10, 20, 7]


def test_the_flat_vector_and_the_tensors_are_copies() -> None:
    layout = Layout.of(MODEL)
    flat = layout.flatten(MODEL)
    tensors = layout.unflatten(flat)
    flat[:] = -1
    assert MODEL["weight"][0, 0] == 0
    assert tensors["weight"][0, 0] == 0


def test_tensors_in_any_memory_order() -> None:
    tensors = {"a": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "b": np.arange(8.0)[::2]}
    assert Layout.of(tensors).flatten(tensors).tolist() == [0, 1, 2, 3, 4, 5, 0, 2, 4, 6]


def test_the_aggregate_may_be_wider_than_the_tensors() -> None:
    """A decoded sum is float64; each tensor gets its own dtype back."""
    back = Layout.of(MODEL).unflatten(np.linspace(0, 1, 9))
    assert [tensor.dtype.name for tensor in back.values()] == ["float32", "float64", "float16", "float32"]


# ---- the schema hash ----------------------------------------------------------------------------------------


def test_the_schema_hash_is_the_one_of_the_specification() -> None:
    """TupleHash256 over name, shape (each axis in 8 bytes) and dtype of each tensor, by pycryptodome."""
    hasher = TupleHash256.new(digest_bytes=32, custom=b"securefl/v1/encoding/schema")
    for name, shape, dtype in (
        (b"weight", (2, 3), b"float32"),
        (b"bias", (2,), b"float64"),
        (b"scale", (), b"float16"),
        (b"nothing", (0, 5), b"float32"),
    ):
        hasher.update(name, b"".join(axis.to_bytes(8, "big") for axis in shape), dtype)
    assert Layout.of(MODEL).schema_hash == hasher.digest()


def test_everything_in_a_layout_enters_its_hash() -> None:
    def of(*specs: tuple[str, tuple[int, ...], str]) -> bytes:
        return Layout(tuple(TensorSpec(*spec) for spec in specs)).schema_hash

    a, b = ("a", (2, 3), "float32"), ("b", (4,), "float32")
    different = [
        of(a, b),
        of(b, a),
        of(a),
        of(b),
        of(("a", (3, 2), "float32"), b),
        of(("a", (6,), "float32"), b),
        of(("a", (2, 3), "float64"), b),
        of(("A", (2, 3), "float32"), b),
        of(("a", (2, 3, 1), "float32"), b),
        of(("ab", (2, 3), "float32"), ("", (4,), "float32")),
        of(),
    ]
    assert len(set(different)) == len(different)
    assert of(a, b) == of(a, b)


def test_values_do_not_enter_the_hash() -> None:
    doubled = {name: 2 * tensor for name, tensor in MODEL.items()}
    assert Layout.of(MODEL) == Layout.of({name: t.astype(MODEL[name].dtype) for name, t in doubled.items()})


# ---- refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tensor",
    [
        np.zeros(2, dtype=np.int64),
        np.zeros(2, dtype=np.uint8),
        np.zeros(2, dtype=bool),
        np.zeros(2, dtype=np.complex64),
        np.zeros(2, dtype=np.longdouble),
        np.zeros(2, dtype=">f4"),
        np.array(["x"]),
        np.array([None]),
        [1.0, 2.0],
        1.0,
        None,
    ],
    ids=lambda tensor: str(getattr(tensor, "dtype", type(tensor).__name__)),
)
def test_what_is_no_float_tensor_is_named(tensor: object) -> None:
    with pytest.raises(InvalidInputError, match="tensor 'head' must be a float array"):
        Layout.of({"fine": np.zeros(1), "head": tensor})  # type: ignore[dict-item]


@pytest.mark.parametrize("tensors", [{}, {"a": np.zeros(0)}, {"a": np.zeros((3, 0)), "b": np.zeros(0)}])
def test_a_model_without_values_is_refused(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(InvalidInputError, match="every tensor is empty"):
        Layout.of(tensors)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.zeros(3)}, r"'bias' is float64\[3\], expected float64\[2\]"),
        ({"weight": np.zeros((3, 2), dtype=np.float32)}, r"'weight' is float32\[3, 2\]"),
        ({"weight": np.zeros(6, dtype=np.float32)}, r"'weight' is float32\[6\]"),
        ({"scale": np.array(1.0)}, r"'scale' is float64\[\], expected float16\[\]"),
        ({"extra": np.zeros(1)}, "expected"),
    ],
)
def test_tensors_of_another_layout_are_named(change: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Layout.of(MODEL).flatten({**MODEL, **change})


def test_missing_and_reordered_tensors_are_refused() -> None:
    layout = Layout.of(MODEL)
    for tensors in ({k: v for k, v in MODEL.items() if k != "bias"}, dict(reversed(MODEL.items())), {}):
        with pytest.raises(InvalidInputError, match="expected"):
            layout.flatten(tensors)


@pytest.mark.parametrize("shape", [(8,), (10,), (9, 1), (0,), ()])
def test_a_flat_vector_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="flat vector of 9 values"):
        Layout.of(MODEL).unflatten(np.zeros(shape))


def test_what_is_no_array_is_refused_by_name() -> None:
    with pytest.raises(InvalidInputError):
        Layout.of(MODEL).flatten({**MODEL, "bias": [1.0, 2.0]})  # type: ignore[dict-item]
