"""How a model does on a data set: accuracy and loss. Cross-entropy, classification, torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from securefl.errors import ConfigurationError, InvalidInputError, MissingExtraError
from securefl.fl.data import Dataset
from securefl.fl.models import load_tensors
from securefl.types import Tensors

try:
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy
except ImportError as error:
    raise MissingExtraError("evaluation needs torch: pip install 'securefl[torch]'") from error

__all__ = ["Evaluation", "check_fits", "evaluate"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """``accuracy``: in [0, 1]; ``loss``: mean cross-entropy in nats. ``balanced_accuracy``: the mean over the classes
    of the share found of each, for data where one class is rare.
    """

    accuracy: float
    loss: float
    balanced_accuracy: float


def evaluate(module: nn.Module, tensors: Tensors, dataset: Dataset, *, batch_size: int = 1024) -> Evaluation:
    """Accuracy and loss of ``tensors`` on all of ``dataset``; ``module`` is only a workspace.

    Raises :class:`~securefl.errors.InvalidInputError` when the loss is not finite.
    """
    load_tensors(module, tensors)
    module.eval()
    device = next(module.parameters()).device
    loss = 0.0
    found = np.zeros(dataset.classes, dtype=np.int64)
    with torch.no_grad():
        for start in range(0, len(dataset), batch_size):
            rows = slice(start, start + batch_size)
            # torch.tensor copies: a Dataset may hold read-only arrays, which from_numpy warns about.
            targets = torch.tensor(dataset.targets[rows], device=device)
            logits = module(torch.tensor(dataset.inputs[rows], device=device))
            loss += float(cross_entropy(logits, targets, reduction="sum"))
            hit = targets[logits.argmax(dim=1) == targets].cpu().numpy()
            found += np.bincount(hit, minlength=dataset.classes)
    if not np.isfinite(loss):
        raise InvalidInputError(f"the loss of the global model on {dataset.name!r} is no longer finite")
    held = np.bincount(dataset.targets, minlength=dataset.classes)
    balanced = float((found[held > 0] / held[held > 0]).mean())
    return Evaluation(int(found.sum()) / len(dataset), loss / len(dataset), balanced)


def check_fits(module: nn.Module, dataset: Dataset) -> None:
    """Raise :class:`~securefl.errors.ConfigurationError` unless ``module`` maps an example to its class scores."""
    device = next(module.parameters()).device
    module.eval()
    try:
        with torch.no_grad():
            shape = tuple(module(torch.tensor(dataset.inputs[:1], device=device)).shape)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ConfigurationError(
            f"the model does not take examples of shape {dataset.input_shape}: {str(error).splitlines()[0]}"
        ) from error
    if shape != (1, dataset.classes):
        raise ConfigurationError(f"the model gives {shape} for one example; expected (1, {dataset.classes})")
