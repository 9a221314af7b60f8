"""Small bundled models, and a module's parameters as named arrays.

What travels: the **trainable parameters**, float32, in the order of ``module.named_parameters()`` (shared parameters
once). What does not:

- frozen parameters (``requires_grad=False``): every party has them already;
- buffers. They stay as the module was built. Floating buffers that local training changes (BatchNorm's running
  statistics are the usual case) would be wrong in the global model, so such modules are refused by name: use GroupNorm
  or LayerNorm, or ``track_running_stats=False``. Integer buffers (counters) are put back after local training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from securefl.encoding.fingerprint import model_hash
from securefl.errors import ConfigurationError, InvalidInputError, MissingExtraError
from securefl.fl.seeds import SeedTree
from securefl.types import Tensors

try:
    import torch
    from torch import nn
except ImportError as error:
    raise MissingExtraError("training needs torch: pip install 'securefl[torch]'") from error

__all__ = [
    "NAMES",
    "Tokens",
    "build",
    "head_of",
    "image_shape",
    "load_tensors",
    "logistic_regression",
    "mlp",
    "model_hash",
    "next_character",
    "small_cnn",
    "tensors_of",
]

NAMES = ("mlp", "logistic", "cnn", "next-character")


def mlp(inputs: int, hidden: Sequence[int], classes: int) -> nn.Sequential:
    """Fully connected layers of the widths ``hidden`` with ReLU; takes [n, ...] with ``inputs`` values per example."""
    widths = [inputs, *hidden]
    if min(*widths, classes) < 1:
        raise ConfigurationError(f"layer widths are positive, not {[*widths, classes]}")
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise(widths):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def logistic_regression(inputs: int, classes: int) -> nn.Sequential:
    """Multinomial logistic regression: one linear layer, all parameters 0 at the start (the problem is convex)."""
    model = mlp(inputs, (), classes)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def small_cnn(channels: int, height: int, width: int, classes: int, *, filters: int = 8) -> nn.Sequential:
    """Two 3x3 convolutions (``filters``, then twice as many), each with ReLU and 2x2 max pooling; one linear layer.

    Takes [n, channels, height, width], or the same values flat; height and width at least 4.
    """
    if min(channels, classes, filters) < 1 or min(height, width) < 4:
        raise ConfigurationError(f"small_cnn needs images of 4x4 or more, not {channels}x{height}x{width}")
    return nn.Sequential(
        nn.Flatten(),
        nn.Unflatten(1, (channels, height, width)),
        nn.Conv2d(channels, filters, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(filters, 2 * filters, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * filters * (height // 4) * (width // 4), classes),
    )


class Tokens(nn.Module):
    """Token numbers that came as floating point, as int64: datasets hold float32."""

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """int64 of the same shape."""
        return numbers.long()


def next_character(context: int, classes: int, *, width: int = 16, hidden: int = 64) -> nn.Sequential:
    """The next character from the last ``context``: an embedding each, one hidden layer. [Bengio et al. 2003]"""
    if min(context, classes, width, hidden) < 1:
        raise ConfigurationError("next_character needs positive sizes")
    return nn.Sequential(
        Tokens(),
        nn.Embedding(classes, width),
        nn.Flatten(),
        nn.Linear(context * width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )


def build(
    model: str | Callable[[], nn.Module],
    *,
    input_shape: Sequence[int],
    classes: int,
    seeds: SeedTree,
    hidden: Sequence[int] = (64,),
) -> nn.Module:
    """A model whose initial parameters are fixed by ``seeds``; torch's global generator is left as it was.

    ``model``: one of ``NAMES``, or a function that builds any ``nn.Module`` which maps [n, *input_shape] to
    [n, classes]. ``hidden`` is for ``"mlp"``. ``"cnn"`` takes [c, h, w], [h, w] or a flat square.
    Raises :class:`~securefl.errors.ConfigurationError` for other names and shapes that do not fit.
    """
    shape = tuple(input_shape)
    if callable(model):
        construct = model
    elif model == "mlp":
        construct = lambda: mlp(math.prod(shape), hidden, classes)  # noqa: E731
    elif model == "logistic":
        construct = lambda: logistic_regression(math.prod(shape), classes)  # noqa: E731
    elif model == "cnn":
        construct = lambda: small_cnn(*image_shape(shape), classes)  # noqa: E731
    elif model == "next-character":
        construct = lambda: next_character(math.prod(shape), classes)  # noqa: E731
    else:
        raise ConfigurationError(f"no model {model!r}; there are {', '.join(NAMES)}, and any nn.Module of yours")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seeds.torch_seed())
        return construct()


def tensors_of(module: nn.Module) -> Tensors:
    """Copies of the trainable parameters, float32, in the module's order.

    Raises :class:`~securefl.errors.ConfigurationError` when there are none, for other dtypes, and for layers that keep
    running statistics (see the module's docstring).
    """
    for name, layer in module.named_modules():
        if isinstance(getattr(layer, "running_mean", None), torch.Tensor):
            raise ConfigurationError(
                f"the layer {name!r} ({type(layer).__name__}) keeps running statistics, which are not summed; "
                "use GroupNorm or LayerNorm, or track_running_stats=False"
            )
    tensors: Tensors = {}
    for name, parameter in _trainable(module):
        if parameter.dtype != torch.float32:
            raise ConfigurationError(f"the parameter {name!r} is {parameter.dtype}; call module.float()")
        tensors[name] = parameter.detach().cpu().numpy().copy()
    if not tensors:
        raise ConfigurationError("the model has no trainable parameters")
    return tensors


def head_of(tensors: Mapping[str, NDArray[Any]]) -> tuple[str, ...]:
    """The names of the last layer's tensors: those under the module of the last one."""
    last = list(tensors)[-1].rpartition(".")[0]
    return tuple(name for name in tensors if name.rpartition(".")[0] == last)


def load_tensors(module: nn.Module, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Set the trainable parameters, in place.

    Pre-condition: names, order and shapes are those of :func:`tensors_of`; dtype float32.
    Raises :class:`~securefl.errors.InvalidInputError` otherwise, and then changes nothing.
    """
    parameters = dict(_trainable(module))
    if list(parameters) != list(tensors):
        raise InvalidInputError(f"the model has the tensors {list(parameters)}, not {list(tensors)}")
    for name, parameter in parameters.items():
        if tensors[name].dtype != np.float32 or tensors[name].shape != tuple(parameter.shape):
            raise InvalidInputError(
                f"the tensor {name!r} must be float32 of shape {tuple(parameter.shape)}, "
                f"not {tensors[name].dtype} of shape {tensors[name].shape}"
            )
    with torch.no_grad():
        for name, parameter in parameters.items():
            # require: from_numpy warns about read-only arrays; all others pass without a copy
            parameter.copy_(torch.from_numpy(np.require(tensors[name], requirements="W")))


def _trainable(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of an example. Raises :class:`~securefl.errors.ConfigurationError` for no image."""
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    side = math.isqrt(math.prod(shape))
    if len(shape) == 1 and side * side == shape[0]:
        return 1, side, side
    raise ConfigurationError(f"what takes images ('cnn', augmentation) takes no examples of shape {shape}")
