"""The exception tree is the one the module's docstring draws, and nothing else is exported."""

import copy
import pickle
import re

import pytest

from securefl import errors

#: ``(name, parents)`` as drawn: indentation gives the parent, brackets a built-in one (or the constructor's argument).
DRAWN = re.compile(r"^(?P<indent>[ │├└─]*)(?P<name>\w+Error)(?:\((?P<note>\w+)\))?", re.MULTILINE)


def drawn_tree() -> dict[str, tuple[str, str | None]]:
    """``{class: (parent, built-in parent)}`` read from the drawing in the docstring."""
    tree: dict[str, tuple[str, str | None]] = {}
    path: list[tuple[int, str]] = []
    assert errors.__doc__ is not None
    for match in DRAWN.finditer(errors.__doc__):
        depth, note = len(match["indent"]), match["note"]
        while path and path[-1][0] >= depth:
            path.pop()
        tree[match["name"]] = (path[-1][1] if path else "Exception", None if note in ("clients", "party") else note)
        path.append((depth, match["name"]))
    return tree


def test_the_drawing_lists_every_exported_class() -> None:
    assert sorted(drawn_tree()) == sorted(errors.__all__)


@pytest.mark.parametrize("name", errors.__all__)
def test_each_class_has_the_parents_drawn(name: str) -> None:
    parent, builtin = drawn_tree()[name]
    bases = [base.__name__ for base in getattr(errors, name).__bases__]
    assert bases == [parent] + ([builtin] if builtin else [])


def test_one_except_clause_catches_everything() -> None:
    for name in errors.__all__:
        with pytest.raises(errors.SecureFLError):
            raise getattr(errors, name)("what to do")


def test_wrong_parameters_and_wrong_values_are_value_errors() -> None:
    assert issubclass(errors.ConfigurationError, ValueError)
    assert issubclass(errors.InvalidInputError, ValueError)
    assert issubclass(errors.MissingExtraError, ImportError)
    assert not issubclass(errors.DecodeError, ValueError)  # a peer's bytes are not the caller's argument


def test_suspects_are_distinct_and_ascending() -> None:
    error = errors.FaultyClientError("two clients lied", [9, 3, 9])
    assert error.clients == (3, 9)
    assert str(error) == "two clients lied"
    assert errors.FaultyClientError("nobody in particular").clients == ()


@pytest.mark.parametrize("clone", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_suspects_survive_copies(clone) -> None:
    assert clone(errors.FaultyClientError("x", [2, 1])).clients == (1, 2)


@pytest.mark.parametrize("kind", [errors.FaultyPartyError, errors.LostPartyError])
def test_the_party_survives_copies(kind) -> None:
    assert copy.copy(kind("x", 2)).party == 2
    assert pickle.loads(pickle.dumps(kind("x", 1))).party == 1
