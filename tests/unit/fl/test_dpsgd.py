"""Clipped sums against a naive loop over the examples."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is an extra")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from securefl.dp.accountant import event_epsilon  # noqa: E402
from securefl.dp.events import SelfComposed  # noqa: E402
from securefl.dp.sampler import WIDE_STDDEV  # noqa: E402
from securefl.errors import ConfigurationError, InvalidInputError  # noqa: E402
from securefl.fl.dpsgd import ClippedGradients, add_noise, poisson_batch, step_event  # noqa: E402


def each_loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.linear = nn.Embedding(20, 8, padding_idx=0), nn.Linear(8, 12)
        self.norm, self.out = nn.LayerNorm(12), nn.Linear(12, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.norm(torch.relu(self.linear(self.embed(x)))).mean(1))


class Twice(nn.Module):
    """One layer used twice: its norm is not the sum of the two uses' norms."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.out = nn.Linear(6, 6), nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.shared(torch.tanh(self.shared(x))))


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.out = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 10)
        self.b.weight = self.a.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.b(torch.tanh(self.a(x))))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 10))
    model[0].weight.requires_grad_(False)
    return model


def images(channels: int, side: int) -> torch.Tensor:
    return torch.randn(12, channels, side, side)


CASES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 10)), lambda: torch.randn(12, 6), True),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 8, 3, stride=2, padding=1),
            nn.GroupNorm(4, 8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3, groups=2),
            nn.Flatten(),
            nn.Linear(24, 10),
        ),
        lambda: images(2, 8),
        True,
    ),
    "dilated": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3, dilation=2, bias=False), nn.Flatten(), nn.Linear(64, 10)),
        lambda: images(1, 8),
        True,
    ),
    "reflect": (
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(128, 10)),
        lambda: images(1, 8),
        False,
    ),
    "tokens": (Tokens, lambda: torch.randint(0, 20, (12, 7)), True),
    "wide-sequence": (
        lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(90, 10)),
        lambda: torch.randn(12, 30, 4),
        True,
    ),
    "fallback": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.PReLU(), nn.Linear(6, 10)),
        lambda: torch.randn(12, 6),
        False,
    ),
    "used-twice": (Twice, lambda: torch.randn(12, 6), False),
    "tied": (Tied, lambda: torch.randn(12, 6), False),
    "frozen": (frozen, lambda: torch.randn(12, 6), True),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("clip_norm", [0.3, 100.0])
def test_clipped_sums_equal_the_naive_loop(name: str, clip_norm: float) -> None:
    torch.manual_seed(0)
    make, data, one_pass = CASES[name]
    model, x, y = make().double(), data(), torch.randint(0, 10, (12,))
    x = x.double() if x.is_floating_point() else x
    clipper = ClippedGradients(model, clip_norm)
    sums, norms = clipper.accumulate(x, y, each_loss)
    assert clipper.one_pass is one_pass
    parameters = [p for p in model.parameters() if p.requires_grad]
    expected = [torch.zeros_like(p) for p in parameters]
    for i in range(12):
        gradients = torch.autograd.grad(each_loss(model(x[i : i + 1]), y[i : i + 1]).sum(), parameters)
        norm = torch.sqrt(sum(g.square().sum() for g in gradients))
        assert norms[i].item() == pytest.approx(norm.item(), rel=1e-9)
        for total, g in zip(expected, gradients, strict=True):
            total += g * min(1.0, clip_norm / norm.item())
    for found, wanted in zip(sums, expected, strict=True):
        assert torch.allclose(found, wanted, atol=1e-6 * max(1.0, clip_norm if clip_norm < 1 else 1.0), rtol=2e-6)
    assert all(p.grad is None for p in parameters)


def test_no_example_exceeds_the_clip_norm() -> None:
    model = nn.Linear(5, 10)
    sums, norms = ClippedGradients(model, 0.01).accumulate(torch.ones(1, 5) * 10, torch.tensor([1]), each_loss)
    assert norms[0] > 1
    assert torch.sqrt(sum(s.double().square().sum() for s in sums)) <= 0.01


def test_batch_norm_is_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="GroupNorm"):
        ClippedGradients(nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)), 1.0)


def test_bad_batches() -> None:
    clipper = ClippedGradients(nn.Linear(5, 10), 1.0)
    with pytest.raises(InvalidInputError):
        clipper.accumulate(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64), each_loss)
    with pytest.raises(InvalidInputError, match="one value per example"):
        clipper.accumulate(torch.randn(3, 5), torch.tensor([1, 2, 3]), F.cross_entropy)
    with pytest.raises(InvalidInputError, match="not finite"):
        clipper.accumulate(torch.full((3, 5), torch.inf), torch.tensor([1, 2, 3]), each_loss)
    with pytest.raises(ConfigurationError):
        ClippedGradients(nn.Linear(5, 10), 0.0)


def test_noise_has_its_size_sits_on_a_grid_and_is_fresh() -> None:
    zeros = [torch.zeros(300, 100), torch.zeros(7)]
    one = add_noise(zeros, clip_norm=2.0, noise_multiplier=1.5)
    two = add_noise(zeros, clip_norm=2.0, noise_multiplier=1.5)
    assert [o.shape for o in one] == [z.shape for z in zeros]
    assert one[0].std().item() == pytest.approx(3.0, rel=0.05)
    assert not torch.equal(one[0], two[0])
    grid = 1.5 * 2.0 / (1 - 1.5 * math.sqrt(30_007) / WIDE_STDDEV) / WIDE_STDDEV
    multiples = np.sort(np.abs(one[0].double().numpy().ravel()))[:200] / grid  # small enough for float32
    assert np.allclose(multiples, np.round(multiples), atol=0.01)


def test_a_step_costs_a_sampled_gaussian() -> None:
    event = SelfComposed(step_event(1.0, 10_000, 0.01), 1000)
    assert 1.828 < event_epsilon(event, 1e-5) < 1.828 * 1.002


def test_poisson_batches_differ_in_size() -> None:
    sizes = {poisson_batch(1000, 0.1).numel() for _ in range(20)}
    assert len(sizes) > 3
