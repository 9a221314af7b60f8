"""One client's local training. Cross-entropy, classification, torch.

Deterministic on the CPU for one torch version and one number of threads (:func:`torch_threads`): the order of examples
and the random layers (dropout) are seeded, torch's global generator is left as it was.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from securefl.errors import ConfigurationError, InvalidInputError, MissingExtraError
from securefl.fl.augmentation import Augmentation
from securefl.fl.data import Dataset
from securefl.fl.local_optimizer import optimizer_step, with_terms
from securefl.fl.models import load_tensors
from securefl.fl.seeds import SeedTree
from securefl.fl.workspace import constant_buffers, random_layers
from securefl.types import Tensors

try:
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
except ImportError as error:
    raise MissingExtraError("training needs torch: pip install 'securefl[torch]'") from error

__all__ = [
    "ExampleNoise",
    "GradientTerms",
    "LocalResult",
    "LocalTraining",
    "batch_probability",
    "steps_per_round",
    "torch_threads",
    "train",
]

#: Far beyond use, well within float32: torch's own complaint about a factor that overflows would be a RuntimeError.
_LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class ExampleNoise:
    """DP-SGD: ``clip_norm`` of an example's gradient, ``noise_multiplier`` of a step. [Abadi et al. 2016, Alg. 1]"""

    clip_norm: float
    noise_multiplier: float


@dataclass(frozen=True, slots=True, eq=False)
class GradientTerms:
    """What is added to every gradient of a client: ``drift`` + ``proximal`` · (w - ``anchor``).

    ``drift``, ``anchor``: float32 arrays with the model's names, or ``None``. ``proximal`` >= 0; above 0 it needs the
    anchor. The default adds nothing.
    """

    drift: Tensors | None = field(default=None, repr=False)
    proximal: float = 0.0
    anchor: Tensors | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """How a client trains: ``epochs`` passes over its examples in mini-batches. [McMahan et al. 2017, ClientUpdate]

    ``steps``: exactly that many mini-batches instead, whatever a client holds; passes follow each other as needed.
    ``augmentation``: every batch is varied anew.
    ``optimizer``: ``"sgd"`` (with ``momentum`` in [0, 1)) or ``"adam"``; its state starts anew in every round.
    ``weight_decay``: >= 0, added to the gradient. ``dpsgd``: example-level privacy: Poisson batches, clipped and noised
    gradients, plain SGD. Raises :class:`~securefl.errors.ConfigurationError`.
    """

    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 0.1
    optimizer: Literal["sgd", "adam"] = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    dpsgd: ExampleNoise | None = None
    steps: int | None = None
    augmentation: Augmentation | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ConfigurationError(f"steps are at least 1, not {self.steps}")
        if self.epochs < 1 or self.batch_size < 1:
            raise ConfigurationError(f"epochs and batch_size are at least 1, not {self.epochs} and {self.batch_size}")
        if not 0 < self.learning_rate <= _LARGEST:
            raise ConfigurationError(f"learning_rate is positive and at most {_LARGEST}, not {self.learning_rate}")
        if self.optimizer not in ("sgd", "adam"):
            raise ConfigurationError(f"no optimizer {self.optimizer!r}; there are sgd, adam")
        if not 0 <= self.momentum < 1 or (self.momentum and self.optimizer == "adam"):
            raise ConfigurationError(f"momentum lies in [0, 1) and is for sgd, not {self.momentum}")
        if self.dpsgd is not None and (self.optimizer != "sgd" or self.momentum or self.weight_decay):
            raise ConfigurationError("example-level privacy trains by plain sgd, without momentum and weight decay")
        if self.dpsgd is not None and self.augmentation is not None:
            raise ConfigurationError("example-level privacy trains on the examples as they are: no augmentation")
        if not 0 <= self.weight_decay <= _LARGEST:
            raise ConfigurationError(f"weight_decay lies between 0 and {_LARGEST}, not {self.weight_decay}")


@dataclass(frozen=True, slots=True, eq=False)
class LocalResult:
    """What a client has after training; all of it is private to the client.

    ``update``: float32 arrays, after - before. ``weight``: number of examples. ``loss``: mean over the examples of the
    last pass, each taken before the step of its batch; it must not leave the client in the clear. ``steps``: count.
    """

    update: Tensors = field(repr=False)
    weight: int
    loss: float = field(repr=False)
    steps: int


def train(
    module: nn.Module,
    tensors: Tensors,
    dataset: Dataset,
    indices: NDArray[np.int64],
    settings: LocalTraining,
    seed: SeedTree,
    *,
    client: int,
    round: int,
    terms: GradientTerms | None = None,
    limit: int | None = None,
    trainable: Collection[str] | None = None,
) -> LocalResult:
    """Train ``module`` from ``tensors`` on the rows ``indices`` of ``dataset``; ``module`` is only a workspace.

    ``tensors`` is left as it is. ``client`` and ``round`` are for messages. ``terms``: added to every gradient.
    ``limit``: >= 1, at most so many steps. ``trainable``: names of the tensors that move; the others' update is zero.
    ``weight`` is the number of examples, however many steps there are.
    Raises :class:`~securefl.errors.InvalidInputError` for no examples and when the loss or the update is not finite,
    :class:`~securefl.errors.ConfigurationError` when training changes a floating buffer (see ``models``).
    """
    if len(indices) == 0:
        raise InvalidInputError(f"client {client} has no examples")
    load_tensors(module, tensors)
    module.train()
    moving = [
        (name, parameter)
        for name, parameter in module.named_parameters()
        if parameter.requires_grad and (trainable is None or name in trainable)
    ]
    names = [name for name, _ in moving]
    parameters: list[torch.Tensor] = [parameter for _, parameter in moving]
    device = parameters[0].device
    step = with_terms(optimizer_step(parameters, settings), names, parameters, terms or GradientTerms())
    inputs = torch.from_numpy(dataset.inputs[indices]).to(device)
    targets = torch.from_numpy(dataset.targets[indices]).to(device)
    if settings.dpsgd is not None:
        if (
            trainable is not None
            or limit is not None
            or (terms is not None and (terms.drift is not None or terms.proximal))
        ):
            raise ConfigurationError(
                "example-level privacy trains by plain sgd in full: nothing is added to its gradients, no step left out"
            )
        return _train_privately(module, names, parameters, tensors, inputs, targets, settings, settings.dpsgd, seed)
    rng, done, total = seed.child("order").numpy(), 0, steps_per_round(len(indices), settings)
    if limit is not None:
        total = min(total, limit)
    losses: list[torch.Tensor] = []  # of the last pass's batches
    seen = 0
    vary = None
    if settings.augmentation is not None:
        vary = settings.augmentation.at(dataset.input_shape, seed.child("augmentation").torch())
    with random_layers(seed.child("layers")), constant_buffers(module):
        while done < total:
            order = torch.from_numpy(rng.permutation(len(indices))).to(device)
            losses.clear()
            seen = 0
            # Gather once per pass: one copy of this client's data, none per step.
            shuffled = torch.split(inputs[order], settings.batch_size), torch.split(targets[order], settings.batch_size)
            for batch, labels in islice(zip(*shuffled, strict=True), total - done):
                loss = cross_entropy(module(batch if vary is None else vary(batch)), labels)
                # Not loss.backward(): no .grad to allocate, accumulate and clear. Unused parameters get zeros.
                step(torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True))
                losses.append(loss.detach())  # added up once, after the last step
                seen += len(labels)
            done += len(losses)
    after = [parameter.detach().cpu().numpy() for parameter in parameters]
    # asarray: the difference of two arrays of shape () is a scalar in numpy.
    moved = {name: np.asarray(value - tensors[name]) for name, value in zip(names, after, strict=True)}
    update = moved if trainable is None else {name: moved.get(name, np.zeros_like(v)) for name, v in tensors.items()}
    sizes = torch.tensor([settings.batch_size] * (len(losses) - 1) + [seen - settings.batch_size * (len(losses) - 1)])
    mean_loss = float(torch.stack(losses).cpu() @ sizes.float()) / seen
    # What was NaN or infinite once is so in the parameters for good, so one look at the end finds it.
    if not (np.isfinite(mean_loss) and all(np.isfinite(value).all() for value in update.values())):
        raise InvalidInputError(
            f"the training of client {client} in round {round} is no longer finite; lower the learning rate"
        )
    return LocalResult(update, len(indices), mean_loss, done)


def batch_probability(examples: int, batch_size: int) -> float:
    """The probability with which an example joins a Poisson-sampled batch of ``batch_size`` expected examples."""
    return min(1.0, batch_size / examples)


def steps_per_round(examples: int, settings: LocalTraining) -> int:
    """Optimiser steps of one client in one round."""
    return settings.epochs * -(-examples // settings.batch_size) if settings.steps is None else settings.steps


def _train_privately(
    module: nn.Module,
    names: list[str],
    parameters: list[torch.Tensor],
    tensors: Tensors,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    settings: LocalTraining,
    noise: ExampleNoise,
    seed: SeedTree,
) -> LocalResult:
    """DP-SGD on one client. Batches and noise come from the operating system: never from the seed tree."""
    from securefl.fl.dpsgd import ClippedGradients, add_noise, poisson_batch

    def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(logits, labels, reduction="none")

    examples = len(targets)
    probability, steps = batch_probability(examples, settings.batch_size), steps_per_round(examples, settings)
    clipped = ClippedGradients(module, noise.clip_norm)
    # The expected size, not the realised one, which would be a statement about who is in the batch.
    rate = settings.learning_rate / (probability * examples)
    with random_layers(seed.child("layers")), constant_buffers(module):
        for _ in range(steps):
            batch = poisson_batch(examples, probability)
            if len(batch):
                sums, _ = clipped.accumulate(inputs[batch], targets[batch], losses)
            else:
                sums = [torch.zeros_like(parameter) for parameter in parameters]
            noisy = add_noise(sums, clip_norm=noise.clip_norm, noise_multiplier=noise.noise_multiplier)
            with torch.no_grad():
                torch._foreach_add_(parameters, noisy, alpha=-rate)
    after = [parameter.detach().cpu().numpy() for parameter in parameters]
    update = {name: np.asarray(value - tensors[name]) for name, value in zip(names, after, strict=True)}
    return LocalResult(update, examples, float("nan"), steps)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch use ``count`` threads inside. Sums are split over threads, so the count is part of the result."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
