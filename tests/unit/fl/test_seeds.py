from __future__ import annotations

import hashlib
import hmac

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securefl.errors import ConfigurationError
from securefl.fl.seeds import SeedTree

LABELS = st.lists(st.one_of(st.text(max_size=6), st.integers()), min_size=1, max_size=4)


def test_known_answer_written_out_by_hand() -> None:
    root = hashlib.sha256(b"securefl seed tree v1" + b"7").digest()
    node = hmac.digest(root, b"\x00" + b"s" + (1).to_bytes(8, "big") + b"a", "sha256")
    node = hmac.digest(node, b"\x00" + b"i" + (2).to_bytes(8, "big") + b"-3", "sha256")
    key = hmac.digest(node, b"\x01bytes", "sha256")
    first = hmac.digest(key, b"\x01", "sha256")
    second = hmac.digest(key, first + b"\x02", "sha256")
    assert SeedTree(7).child("a", -3).bytes(40) == (first + second)[:40]


@given(LABELS, LABELS)
def test_distinct_paths_give_distinct_seeds(a: list[str | int], b: list[str | int]) -> None:
    same = [(type(x), x) for x in a] == [(type(x), x) for x in b]
    assert (SeedTree(0).child(*a).bytes() == SeedTree(0).child(*b).bytes()) is same


def test_a_path_is_its_labels_one_by_one() -> None:
    assert SeedTree(1).child("a", 2).child("b") == SeedTree(1).child("a").child(2, "b")
    assert SeedTree(1).child("a") != SeedTree(2).child("a")
    assert len({SeedTree(1), SeedTree(1), SeedTree(1).child("x")}) == 2


@pytest.mark.parametrize(("a", "b"), [(("ab", "c"), ("a", "bc")), (("1",), (1,)), (("a", ""), ("a",)), ((12,), (1, 2))])
def test_labels_are_encoded_injectively(a: tuple[str | int, ...], b: tuple[str | int, ...]) -> None:
    assert SeedTree(0).child(*a) != SeedTree(0).child(*b)


def test_drawing_changes_nothing() -> None:
    tree = SeedTree(3).child("x")
    before = tree.child("y").bytes()
    tree.numpy().random(100)
    tree.bytes()
    assert tree.child("y").bytes() == before
    assert tree.numpy().random() == tree.numpy().random()


def test_outputs() -> None:
    tree = SeedTree(5)
    assert tree.bytes(5) == tree.bytes(8160)[:5]
    assert all(0 <= tree.child(i).integer(3) < 8 for i in range(50))
    assert {tree.child(i).integer(3) for i in range(200)} == set(range(8))
    assert tree.integer(64) != int.from_bytes(tree.bytes(8), "big")  # each purpose has a key of its own
    assert isinstance(tree.numpy(), np.random.Generator)
    assert tree.torch().initial_seed() == tree.torch_seed() < 2**63
    assert tree.bytes().hex()[:8] not in repr(tree)


def test_a_generator_is_that_of_the_256_bit_integer_also_of_a_short_one(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = hashlib.sha256(b"x").digest()
    for number in (drawn, bytes(4) + drawn[4:], bytes(31) + b"\x07", bytes(32)):
        monkeypatch.setattr(SeedTree, "_expand", lambda self, purpose, n, number=number: number)
        wanted = np.random.Generator(np.random.PCG64(int.from_bytes(number, "big")))
        assert SeedTree(0).numpy().integers(0, 2**63, 5).tolist() == wanted.integers(0, 2**63, 5).tolist()


@pytest.mark.parametrize("root", [-1, True, 1.0, "0", None])
def test_bad_roots(root: object) -> None:
    with pytest.raises(ConfigurationError, match="non-negative integer"):
        SeedTree(root)  # type: ignore[arg-type]


@pytest.mark.parametrize("label", [True, 1.5, None, b"x", [1]])
def test_bad_labels(label: object) -> None:
    with pytest.raises(ConfigurationError, match="labels"):
        SeedTree(0).child(label)  # type: ignore[arg-type]


def test_bad_requests() -> None:
    with pytest.raises(ConfigurationError, match="at least one label"):
        SeedTree(0).child()
    for n in (0, -1, 8161):
        with pytest.raises(ConfigurationError, match="8160"):
            SeedTree(0).bytes(n)
    with pytest.raises(ConfigurationError):
        SeedTree(0).integer(0)
