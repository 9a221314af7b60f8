from __future__ import annotations

import pytest
import torch
from torch import nn

from securefl.errors import ConfigurationError
from securefl.split import cut


def _mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
        self.inner = nn.Linear(5, 5)
        self.outer = nn.Linear(5, 3)
        self.gain = nn.Parameter(torch.full((5,), 1.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.encoder(x.flatten(1))
        return self.outer(self.inner(hidden) * self.gain + hidden)


X = torch.randn(7, 6, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("after", "until"), [("1", "3"), ("2", "3"), ("2", "5"), ("0", "4")])
def test_the_parts_compose_to_the_model(after: str, until: str) -> None:
    model = _mlp()
    parts = cut(model, after, until)
    assert parts.head is not None
    assert torch.equal(parts.head(parts.body(parts.front(X))), model(X))


def test_without_until_the_server_has_the_end() -> None:
    model = _mlp()
    parts = cut(model, "2")
    assert parts.head is None
    assert torch.equal(parts.body(parts.front(X)), model(X))
    assert parts.shapes(X) == ((5,), (3,))


def test_parameters_are_shared_with_the_model_and_each_has_one_owner() -> None:
    model = _Residual()
    parts = cut(model, "encoder")
    owned = [id(p) for part in (parts.front, parts.body) for p in part.parameters()]
    assert sorted(owned) == sorted(id(p) for p in model.parameters())
    assert torch.equal(parts.body(parts.front(X)), model(X))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("encodr",), "no layer 'encodr' to cut after; did you mean 'encoder'?"),
        (("inner",), "skip"),
        (("encoder", "inner"), "skip"),
        (("inner", "encoder"), "runs before"),
        (("outer",), "nothing behind 'outer' has parameters"),
    ],
)
def test_a_cut_that_cannot_be_is_refused(arguments: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ConfigurationError, match=sentence.replace("?", r"\?")):
        cut(_Residual(), *arguments)


def test_a_layer_that_runs_twice_is_refused() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(self.a(self.a(x)))

    with pytest.raises(ConfigurationError, match="runs 2 times"):
        cut(Twice(), "a")


def test_a_parameter_on_both_sides_is_refused() -> None:
    shared = nn.Linear(6, 6)
    model = nn.Sequential(shared, nn.ReLU(), nn.Linear(6, 3))
    model.register_module("again", shared)

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
            self.b.weight = self.a.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.c(self.b(self.a(x)))

    with pytest.raises(ConfigurationError, match="both sides"):
        cut(Tied(), "a")


def test_a_model_that_cannot_be_traced_is_refused() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.a(x)
            return self.b(h) if h.sum() > 0 else self.b(-h)

    with pytest.raises(ConfigurationError, match="traced"):
        cut(Branches(), "a")


def test_shapes_leave_the_mode_as_it_was() -> None:
    model = _mlp().train()
    parts = cut(model, "2", "3")
    parts.shapes(X)
    assert parts.front.training
