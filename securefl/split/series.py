"""Synthetic series that look like heartbeats: **made up**, labelled so wherever they are shown, and no medical data.

One example has 128 points: one beat as five bumps (P, Q, R, S, T) of class-dependent height, place and width, each
jittered per example, on a slow drift with white noise. Five classes named after the rhythm whose textbook shape they
imitate. The shape of the problem is that of the published split-learning experiments on MIT-BIH (128 points, 5
classes); figures on it say nothing about real recordings.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from securefl.errors import ConfigurationError
from securefl.fl.data import Dataset
from securefl.fl.seeds import SeedTree

__all__ = ["CLASSES", "LENGTH", "ecg_like", "series_model"]

LENGTH: Final = 128
CLASSES: Final = ("normal", "left bundle", "right bundle", "atrial premature", "ventricular premature")

#: Per class: (height, place in [0, 1], width) of P, Q, R, S, T.
_BUMPS: Final = np.array(
    [
        [(0.15, 0.22, 0.025), (-0.12, 0.37, 0.010), (1.00, 0.40, 0.012), (-0.20, 0.43, 0.012), (0.30, 0.65, 0.045)],
        [(0.15, 0.22, 0.025), (-0.02, 0.36, 0.012), (0.80, 0.42, 0.030), (-0.05, 0.48, 0.015), (-0.20, 0.68, 0.050)],
        [(0.15, 0.22, 0.025), (-0.10, 0.37, 0.010), (0.70, 0.40, 0.013), (-0.40, 0.45, 0.022), (0.25, 0.66, 0.045)],
        [(0.05, 0.12, 0.030), (-0.12, 0.31, 0.010), (0.95, 0.34, 0.012), (-0.20, 0.37, 0.012), (0.28, 0.60, 0.045)],
        [(0.00, 0.22, 0.025), (-0.25, 0.34, 0.025), (0.90, 0.41, 0.035), (-0.45, 0.50, 0.035), (-0.35, 0.70, 0.060)],
    ]
)


def series_model() -> nn.Sequential:
    """A small convolutional model for the series: 256 activations before its last layer, which is named ``out``."""
    layers = {
        "conv1": nn.Conv1d(1, 8, 7, stride=2, padding=3),
        "relu1": nn.ReLU(),
        "conv2": nn.Conv1d(8, 16, 5, stride=2, padding=2),
        "relu2": nn.ReLU(),
        "pool": nn.MaxPool1d(2),
        "flat": nn.Flatten(),
        "out": nn.Linear(16 * (LENGTH // 8), len(CLASSES)),
    }
    return nn.Sequential(OrderedDict(layers))


def ecg_like(examples: int, seeds: SeedTree, *, noise: float = 0.08) -> Dataset:
    """``examples`` series as float32[n, 1, 128] with the five classes in equal parts, shuffled; fixed by ``seeds``.

    ``noise``: stddev of the white noise, against an R peak of about 1. Raises :class:`ConfigurationError`.
    """
    if examples < len(CLASSES) or noise < 0:
        raise ConfigurationError(f"at least {len(CLASSES)} examples and noise from 0, not {examples} and {noise}")
    rng = seeds.child("ecg-like").numpy()
    labels = rng.permutation(np.arange(examples) % len(CLASSES)).astype(np.int64)
    shape = (examples, _BUMPS.shape[1])
    height = _BUMPS[labels, :, 0] * rng.normal(1.0, 0.15, shape) + rng.normal(0.0, 0.04, shape)
    place = _BUMPS[labels, :, 1] + rng.normal(0.0, 0.008, shape) + rng.normal(0.0, 0.015, (examples, 1))
    width = _BUMPS[labels, :, 2] * rng.lognormal(0.0, 0.15, shape)
    time = np.linspace(0.0, 1.0, LENGTH)
    beats: NDArray[np.float64] = np.zeros((examples, LENGTH))
    for bump in range(shape[1]):
        offset = (time - place[:, bump, None]) / width[:, bump, None]
        beats += height[:, bump, None] * np.exp(-0.5 * offset**2)
    drift = rng.normal(0.0, 0.08, (examples, 1)) * np.sin(2 * np.pi * (time + rng.uniform(0, 1, (examples, 1))))
    series = beats + drift + rng.normal(0.0, noise, beats.shape)
    return Dataset(series[:, None].astype(np.float32), labels, len(CLASSES), "ecg-like (synthetic)")
