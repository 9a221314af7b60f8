"""A small conditional generative adversarial network, trained federated, whose samples fill classes a client lacks.

Generator and discriminator are one module, so their updates travel in one protected vector like any model's; a client's
samples never leave it. The generator learns from the discriminator alone: where the discriminator trains by DP-SGD,
what the generator gives is post-processing [Xie et al. 2018, DPGAN]. [Goodfellow et al. 2014, Algorithm 1; Mirza and
Osindero 2014]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from securefl.errors import ConfigurationError, InvalidInputError
from securefl.fl.data import Dataset
from securefl.fl.dpsgd import ClippedGradients, add_noise, poisson_batch
from securefl.fl.engine import LocalTask
from securefl.fl.models import load_tensors
from securefl.fl.training import ExampleNoise, LocalResult, LocalTraining, batch_probability, steps_per_round
from securefl.types import ClientId, Tensors

__all__ = ["ConditionalGan", "GanEngine", "generate"]


class ConditionalGan(nn.Module):
    """Two perceptrons that are told the class: noise to examples, examples to one score.

    ``input_shape``, ``classes``: of the data. ``spread``: public; examples are divided by it for the discriminator and
    multiplied for the generator, so that values are about 1 in between. ``noise``: values that a sample is made of.
    """

    def __init__(
        self, input_shape: Sequence[int], classes: int, *, spread: float = 4.0, noise: int = 16, hidden: int = 96
    ) -> None:
        super().__init__()
        if min(noise, hidden, classes) < 1 or not 0 < spread < math.inf:
            raise ConfigurationError("noise, hidden and classes are at least 1, spread is a positive number")
        self.input_shape, self.classes, self.spread, self.noise = tuple(input_shape), classes, spread, noise
        size = math.prod(self.input_shape)
        self.generator = nn.Sequential(
            nn.Linear(noise + classes, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, size)
        )
        self.discriminator = nn.Sequential(
            nn.Linear(size + classes, hidden), nn.LeakyReLU(0.2), nn.Linear(hidden, hidden), nn.LeakyReLU(0.2),
            nn.Linear(hidden, 1),
        )  # fmt: skip

    def make(self, noise: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Examples, float32[n, values], scaled for the discriminator, of ``labels`` from ``noise`` [n, noise]."""
        made: torch.Tensor = self.generator(torch.cat([noise, self._told(labels)], dim=1))
        return made

    def pair(self, examples: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """What the discriminator takes: scaled examples beside their classes."""
        return torch.cat([examples, self._told(labels)], dim=1)

    def scaled(self, inputs: torch.Tensor) -> torch.Tensor:
        """Examples of the data as the discriminator takes them."""
        return inputs.reshape(len(inputs), -1) / self.spread

    def _told(self, labels: torch.Tensor) -> torch.Tensor:
        return one_hot(labels, self.classes).float()


def generate(gan: ConditionalGan, tensors: Tensors, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Examples of ``labels``, float32[n, *input_shape], by the model ``tensors``; ``gan`` is only a workspace."""
    load_tensors(gan, tensors)
    with torch.no_grad():
        made = gan.make(torch.randn(len(labels), gan.noise, generator=generator), labels)
    return (made * gan.spread).reshape(len(labels), *gan.input_shape)


@dataclass(frozen=True, eq=False)
class GanEngine:
    """An :class:`~securefl.fl.engine.Engine` that trains a :class:`ConditionalGan`, one client after the other.

    A step trains the discriminator on a batch of the client's examples and as many samples of the same classes, then
    the generator against it. Adam [beta1 = 0.5] for both, or with ``settings.dpsgd`` noisy clipped SGD for the
    discriminator, whose samples then are of uniform classes: the client's would tell of its examples.
    ``generator_rate``: the generator's learning rate; the settings' is the discriminator's.
    """

    gan: ConditionalGan = field(repr=False)
    dataset: Dataset = field(repr=False)
    generator_rate: float = 2e-3

    def train(self, round: int, tasks: Sequence[LocalTask], settings: LocalTraining) -> dict[ClientId, LocalResult]:
        """See :class:`~securefl.fl.engine.Engine`. ``loss`` is the discriminator's in the last step."""
        return {task.client: self._train(round, task, settings) for task in tasks}

    def _train(self, round: int, task: LocalTask, settings: LocalTraining) -> LocalResult:
        if len(task.rows) == 0:
            raise InvalidInputError(f"client {task.client} has no examples")
        gan = self.gan
        load_tensors(gan, task.start)
        inputs = gan.scaled(torch.from_numpy(self.dataset.inputs[task.rows]))
        labels = torch.from_numpy(self.dataset.targets[task.rows])
        draws = task.seed.child("noise").torch()
        generator = torch.optim.Adam(gan.generator.parameters(), lr=self.generator_rate, betas=(0.5, 0.999))
        step = _Private(gan, settings, settings.dpsgd) if settings.dpsgd is not None else _Discriminator(gan, settings)
        order = task.seed.child("order").numpy()
        total, loss = steps_per_round(len(labels), settings), 0.0
        rows: list[np.ndarray] = []
        for _ in range(total):
            if settings.dpsgd is not None:
                batch = poisson_batch(len(labels), batch_probability(len(labels), settings.batch_size))
            else:
                if not rows:
                    shuffled = order.permutation(len(labels))
                    rows = [
                        shuffled[at : at + settings.batch_size] for at in range(0, len(labels), settings.batch_size)
                    ]
                batch = torch.from_numpy(rows.pop())
            told = step.classes(labels[batch], draws)
            with torch.no_grad():
                samples = gan.make(torch.randn(len(told), gan.noise, generator=draws), told)
            loss = step.take(inputs[batch], labels[batch], samples, told)
            made = gan.make(torch.randn(len(told), gan.noise, generator=draws), told)
            fooled = gan.discriminator(gan.pair(made, told))
            generator.zero_grad(set_to_none=True)
            binary_cross_entropy_with_logits(fooled, torch.ones_like(fooled)).backward()  # type: ignore[no-untyped-call]
            generator.step()
        update = {name: parameter.detach().numpy() - task.start[name] for name, parameter in gan.named_parameters()}
        if not all(np.isfinite(value).all() for value in update.values()):
            raise InvalidInputError(
                f"the training of client {task.client} in round {round} is no longer finite; lower the learning rate"
            )
        return LocalResult(update, len(labels), loss, total)


class _Discriminator:
    """The discriminator's step without privacy."""

    def __init__(self, gan: ConditionalGan, settings: LocalTraining) -> None:
        self._gan = gan
        self._adam = torch.optim.Adam(gan.discriminator.parameters(), lr=settings.learning_rate, betas=(0.5, 0.999))

    def classes(self, labels: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        return labels

    def take(self, inputs: torch.Tensor, labels: torch.Tensor, samples: torch.Tensor, told: torch.Tensor) -> float:
        gan = self._gan
        scores = gan.discriminator(torch.cat([gan.pair(inputs, labels), gan.pair(samples, told)]))
        truth = torch.cat([torch.full((len(inputs), 1), 0.9), torch.zeros(len(samples), 1)])  # one side smoothed
        loss = binary_cross_entropy_with_logits(scores, truth)
        self._adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._adam.step()
        return float(loss.detach())


class _Private:
    """The discriminator's step by DP-SGD: real examples' gradients clipped and noised; samples' need neither."""

    def __init__(self, gan: ConditionalGan, settings: LocalTraining, noise: ExampleNoise) -> None:
        self._gan, self._settings, self._noise = gan, settings, noise
        self._clipped = ClippedGradients(gan.discriminator, noise.clip_norm)

    def classes(self, labels: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        return torch.randint(self._gan.classes, (self._settings.batch_size,), generator=draws)

    def take(self, inputs: torch.Tensor, labels: torch.Tensor, samples: torch.Tensor, told: torch.Tensor) -> float:
        gan, noise = self._gan, self._noise
        parameters = list(gan.discriminator.parameters())
        sums = [torch.zeros_like(parameter) for parameter in parameters]
        if len(inputs):
            sums, _ = self._clipped.accumulate(gan.pair(inputs, labels), torch.full((len(inputs), 1), 0.9), _each)
        noisy = add_noise(sums, clip_norm=noise.clip_norm, noise_multiplier=noise.noise_multiplier)
        scores = gan.discriminator(gan.pair(samples, told))
        loss = binary_cross_entropy_with_logits(scores, torch.zeros_like(scores))
        of_samples = torch.autograd.grad(loss, parameters)
        # by the expected batch: the realised one would be a statement about who is in it
        expected = self._settings.batch_size
        with torch.no_grad():
            for parameter, real, fake in zip(parameters, noisy, of_samples, strict=True):
                parameter.sub_(real / expected + fake, alpha=self._settings.learning_rate)
        return math.nan


def _each(scores: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return binary_cross_entropy_with_logits(scores, truth, reduction="none").squeeze(1)
