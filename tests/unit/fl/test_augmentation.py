from __future__ import annotations

import numpy as np
import pytest
import torch

from securefl.errors import ConfigurationError
from securefl.fl import models
from securefl.fl.augmentation import Augmentation
from securefl.fl.data import from_arrays
from securefl.fl.engine_choice import choose_engine
from securefl.fl.seeds import SeedTree
from securefl.fl.training import ExampleNoise, LocalTraining, train


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _disc() -> torch.Tensor:
    """A smooth blob right of the middle, above it."""
    rows, columns = torch.meshgrid(torch.arange(33.0), torch.arange(33.0), indexing="ij")
    return torch.exp(-((rows - 10) ** 2 + (columns - 22) ** 2) / 8)


def _centre(image: torch.Tensor) -> tuple[float, float]:
    """Row and column of the centre of mass, from the middle."""
    places = torch.arange(image.shape[-1]) - (image.shape[-1] - 1) / 2
    mass = image.sum()
    return float((image.sum(1) * places).sum() / mass), float((image.sum(0) * places).sum() / mass)


def _varied(augmentation: Augmentation, count: int = 200) -> torch.Tensor:
    batch = _disc().expand(count, 33, 33)
    return augmentation.at((33, 33), _generator())(batch)


def test_no_variation_is_the_image() -> None:
    assert torch.allclose(_varied(Augmentation(), 3), _disc().expand(3, 33, 33), atol=1e-5)


def test_rotation_keeps_the_distance_from_the_middle() -> None:
    angles = []
    for image in _varied(Augmentation(rotation=40)):
        row, column = _centre(image)
        assert np.hypot(row, column) == pytest.approx(np.hypot(6, 6), rel=0.02)
        angles.append(np.degrees(np.arctan2(-row, column)) - 45)
    assert -40.5 < min(angles) < -30
    assert 30 < max(angles) < 40.5


def test_rotation_is_one_in_pixels_for_wide_images_too() -> None:
    wide = torch.zeros(50, 33, 65)
    wide[:, :, 16:49] = _disc()
    for image in Augmentation(rotation=30).at((33, 65), _generator())(wide):
        row = float((image.sum(1) * (torch.arange(33) - 16)).sum() / image.sum())
        column = float((image.sum(0) * (torch.arange(65) - 32)).sum() / image.sum())
        assert np.hypot(row, column) == pytest.approx(np.hypot(6, 6), rel=0.02)


def test_zoom_scales_the_distance() -> None:
    distances = [np.hypot(*_centre(image)) / np.hypot(6, 6) for image in _varied(Augmentation(zoom=0.2))]
    assert 0.79 < min(distances) < 0.85
    assert 1.15 < max(distances) < 1.21


def test_shift_moves_by_a_share_of_the_side() -> None:
    moved = np.array([_centre(image) for image in _varied(Augmentation(shift=0.1))]) - (-6, 6)
    assert 2.8 < abs(moved).max() < 3.4  # a tenth of 33 pixels
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.2


def test_shear_moves_along_one_axis() -> None:
    rows, columns = np.array([_centre(image) for image in _varied(Augmentation(shear=20))]).T
    assert np.allclose(rows, -6, atol=0.1)
    assert columns.std() > 0.5


def test_flip_mirrors_every_other_image() -> None:
    columns = np.array([_centre(image)[1] for image in _varied(Augmentation(flip=True), 400)])
    assert np.allclose(abs(columns), 6, atol=0.1)
    assert 150 < (columns < 0).sum() < 250  # 200 expected; five standard deviations


def test_flat_squares_and_channels_are_images() -> None:
    flat = _disc().reshape(1, -1).expand(4, -1)
    assert Augmentation(rotation=20).at((1089,), _generator())(flat).shape == (4, 1089)
    assert Augmentation(rotation=20).at((2, 33, 33), _generator())(torch.ones(4, 2, 33, 33)).shape == (4, 2, 33, 33)
    with pytest.raises(ConfigurationError, match="images"):
        Augmentation(rotation=20).at((30,), _generator())


def _update(augmentation: Augmentation | None, seed: int = 0) -> bytes:
    rng = np.random.default_rng(0)
    dataset = from_arrays(rng.standard_normal((20, 64)), np.arange(20) % 4, classes=4)
    model = models.build("cnn", input_shape=(64,), classes=4, seeds=SeedTree(0))
    settings = LocalTraining(batch_size=5, augmentation=augmentation)
    start = models.tensors_of(model)
    return models.model_hash(
        train(model, start, dataset, np.arange(20), settings, SeedTree(seed), client=1, round=1).update
    )


def test_training_varies_by_the_seed_and_not_by_torchs() -> None:
    augmentation = Augmentation(rotation=10, shift=0.1)
    torch.manual_seed(1)
    first = _update(augmentation)
    torch.manual_seed(2)
    assert _update(augmentation) == first
    assert _update(augmentation, 1) != first
    assert _update(None) != first


def test_what_does_not_go_with_it_is_refused() -> None:
    for build in (
        lambda: Augmentation(rotation=181),
        lambda: Augmentation(shear=90),
        lambda: Augmentation(zoom=1),
        lambda: Augmentation(shift=-0.1),
        lambda: LocalTraining(augmentation=Augmentation(), dpsgd=ExampleNoise(1.0, 1.0)),
    ):
        with pytest.raises(ConfigurationError):
            build()
    dataset = from_arrays(np.ones((2, 64)), np.array([0, 1]))
    settings = LocalTraining(augmentation=Augmentation(rotation=5))
    model = models.mlp(64, (), 2)
    with pytest.raises(ConfigurationError, match="one client at a time"):
        choose_engine("stacked", model, dataset, settings)
    assert type(choose_engine("auto", model, dataset, settings)).__name__ == "SequentialEngine"
