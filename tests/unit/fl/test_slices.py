"""Slices against the definition: the whole model with everything outside the slice set to zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from securefl.errors import ConfigurationError
from securefl.fl import models
from securefl.fl.seeds import SeedTree
from securefl.fl.slices import Slice, depth_slice, width_slice
from securefl.fl.tiers import TierPlan, assign
from securefl.types import ClientId, Tensors

EXAMPLES = torch.randn(5, 8, 8, generator=torch.Generator().manual_seed(0))


def _model(name: str, hidden: tuple[int, ...] = (12, 9)) -> nn.Module:
    return models.build(name, input_shape=(8, 8), classes=4, seeds=SeedTree(1), hidden=hidden)


def _keep(offset: int = 0):
    def keep(width: int) -> np.ndarray:
        return np.sort((offset + np.arange(-(-width // 2))) % width)

    return keep


def _scores(module: nn.Module, tensors: Tensors) -> torch.Tensor:
    return functional_call(module, {name: torch.from_numpy(value) for name, value in tensors.items()}, (EXAMPLES,))


def _only(part: Slice, whole: Tensors) -> Tensors:
    mask = part.mask(whole)
    return {name: np.where(mask[name], value, 0).astype(np.float32) for name, value in whole.items()}


@pytest.mark.parametrize("offset", [0, 3, 7])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_a_width_slice_is_the_model_without_the_other_units(name: str, offset: int) -> None:
    module = _model(name)
    whole = models.tensors_of(module)
    part = width_slice(module, (8, 8), _keep(offset))
    taken = part.take(whole)
    assert {n: v.shape for n, v in taken.items()} == {n: tuple(p.shape) for n, p in part.module.named_parameters()}
    assert torch.allclose(_scores(part.module, taken), _scores(module, _only(part, whole)), atol=1e-6)
    assert not torch.allclose(_scores(part.module, taken), _scores(module, whole), atol=1e-3)


def test_a_depth_slice_leaves_hidden_layers_out() -> None:
    module = _model("mlp", (9, 9, 9))
    whole = models.tensors_of(module)
    part = depth_slice(module, 1)
    assert list(part.take(whole)) == ["1.weight", "1.bias", "7.weight", "7.bias"]
    by_hand = nn.Sequential(module[0], module[1], module[2], module[7])
    assert torch.equal(_scores(part.module, part.take(whole)), by_hand(EXAMPLES))
    assert torch.equal(_scores(depth_slice(module, 3).module, whole), module(EXAMPLES))


def test_taking_and_putting_back() -> None:
    module = _model("cnn")
    whole = models.tensors_of(module)
    part = width_slice(module, (8, 8), _keep(2))
    taken = part.take(whole)
    target = {name: np.zeros_like(value) for name, value in whole.items()}
    part.put(taken, target)
    assert all(np.array_equal(target[name], value) for name, value in _only(part, whole).items())


def test_views_only_of_units_that_lie_together() -> None:
    module = _model("mlp")
    whole = {name: torch.from_numpy(value) for name, value in models.tensors_of(module).items()}
    views = width_slice(module, (8, 8), _keep(0)).views(whole)
    assert views is not None
    views["3.weight"].zero_()
    assert not whole["3.weight"][:5, :6].any()
    assert whole["3.weight"][5:].all()
    assert width_slice(module, (8, 8), _keep(9)).views(whole) is None  # around the end


@pytest.mark.parametrize(
    "module",
    [
        _model("logistic"),
        nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 4)),
        nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(64, 8)), nn.Linear(8, 4)),
        nn.Linear(64, 4),
    ],
    ids=["no hidden layer", "another layer with parameters", "nested", "no sequence"],
)
def test_models_that_have_no_width_slices(module: nn.Module) -> None:
    with pytest.raises(ConfigurationError):
        width_slice(module, (8, 8), _keep())


@pytest.mark.parametrize(("hidden", "depth"), [((9, 8), 1), ((9, 9), 0), ((9, 9), 3)])
def test_models_that_have_no_such_depth(hidden: tuple[int, ...], depth: int) -> None:
    with pytest.raises(ConfigurationError):
        depth_slice(_model("mlp", hidden), depth)


# ---- plans ----------------------------------------------------------------------------------------------------------


def test_clients_are_assigned_in_proportion() -> None:
    tiers = assign([ClientId(i) for i in range(1, 21)], (1, 1, 1))
    assert [list(tiers.values()).count(tier) for tier in (1, 2, 3)] == [7, 7, 6]
    assert list(assign([ClientId(5)], (1, 1)).values()) == [1]
    assert list(assign([ClientId(i) for i in range(1, 11)], (9, 1)).values()).count(2) == 1
    for shares in ((), (1, 0)):
        with pytest.raises(ConfigurationError, match="shares"):
            assign([ClientId(1)], shares)


@pytest.mark.parametrize(("kind", "sizes"), [("width", (0.25, 0.5, 1)), ("rolling", (0.25, 0.5, 1)), ("depth", (1, 2))])
@pytest.mark.parametrize("round", [1, 2, 9])
def test_shells_are_apart_and_make_up_the_model(kind: str, sizes: tuple[float, ...], round: int) -> None:
    module = _model("mlp", (12, 12))
    plan = TierPlan(module, (8, 8), kind, sizes, {ClientId(1): 1})  # type: ignore[arg-type]
    whole = models.tensors_of(module)
    places = np.concatenate(plan.positions(round))
    assert sorted(places.tolist()) == list(range(sum(value.size for value in whole.values())))
    held = 0
    for tier, part in enumerate(plan.slices(round), start=1):
        held += len(plan.positions(round)[tier - 1])
        assert held == plan.parameters(tier) == sum(value.size for value in part.take(whole).values())


def test_windows_roll() -> None:
    plan = TierPlan(_model("mlp", (8,)), (8, 8), "rolling", (0.25, 1), {ClientId(1): 1})
    held = [tuple(plan.slices(round)[0].kept["1.bias"][0]) for round in (1, 2, 8, 9)]
    assert held == [(0, 1), (1, 2), (0, 7), (0, 1)]


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        ("width", (0.5, 0.25, 1), "ascend"),
        ("width", (0.5, 0.9), "the last is 1"),
        ("width", (0.2, 0.25, 1), "no more of this model"),
        ("depth", (1, 1.5), "whole numbers"),
        ("depth", (1,), "whole model"),
    ],
)
def test_plans_that_cannot_work(kind: str, sizes: tuple[float, ...], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TierPlan(_model("mlp", (12, 12)), (8, 8), kind, sizes, {ClientId(1): 1})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="tier is 1 to 1"):
        TierPlan(_model("mlp"), (8, 8), "width", (1.0,), {ClientId(1): 2})
