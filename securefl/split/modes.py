"""From the name of a mode to the engines of both sides."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import nn

from securefl.errors import ConfigurationError
from securefl.split.clear import ClearClient, ClearServer, ClearShape
from securefl.split.coding import FloatRows, GridRows, NoisyRows, RowCoding
from securefl.split.cutting import Cut
from securefl.split.engine import ClientEngine, ServerEngine
from securefl.split.settings import SplitSettings
from securefl.split.shared import SharedMode

__all__ = ["FramedMode", "Mode", "mode_of"]

#: What every report and headline says of a mode, in one line.
STATEMENTS = {
    "plain": "plain split learning offers no privacy against the server: it reads every activation and gradient",
    "quantized": "quantized activations are coarser and smaller, and nothing is proved about what they hide",
    "noise": "each example's activations and gradient are clipped and noised; epsilon is per example and round",
    "ckks": "the server computes on ciphertexts; it sees neither inputs, activations, outputs, gradients nor labels",
    "shared": "two servers and a helper compute on secret shares: no one of them sees activations, outputs, gradients, "
    "labels or the weights they train; any two together would",
}


class Mode(Protocol):
    """One run's protection of activations."""

    @property
    def text(self) -> str:
        """Name and parameters: bound into every frame."""
        ...

    @property
    def clamps(self) -> float | None:
        """The range to which the front's activations are clamped, or ``None``."""
        ...

    @property
    def hides_gradients(self) -> bool:
        """Whether the server needs to be given the body's gradient (it cannot compute it)."""
        ...


class FramedMode(Mode, Protocol):
    """A mode of one server: the engines of both sides."""

    def client(self) -> ClientEngine: ...
    def server(self) -> ServerEngine: ...


@dataclass(frozen=True, slots=True)
class ClearMode:
    """``plain``, ``quantized`` and ``noise``."""

    text: str
    clamps: float | None
    shape: ClearShape
    body: nn.Module = field(repr=False)
    activation_shape: tuple[int, ...]

    @property
    def hides_gradients(self) -> bool:
        return False

    def client(self) -> ClientEngine:
        return ClearClient(self.shape)

    def server(self) -> ServerEngine:
        return ClearServer(self.shape, self.body, self.activation_shape)


def mode_of(
    settings: SplitSettings,
    parts: Cut,
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    *,
    noise_multiplier: float | None = None,
    clients: int = 1,
) -> FramedMode | SharedMode:
    """``shapes``: of :meth:`Cut.shapes`. ``noise_multiplier``: of the run's privacy, for ``noise``. ``clients``: whose
    batches make one step of the body.

    Raises :class:`ConfigurationError` for a mode that does not go with the cut.
    """
    name = settings.protect
    features, outputs = _size(shapes[0]), _size(shapes[1])
    if name != "plain" and parts.head is None:
        raise ConfigurationError(
            f"protect = {name!r} keeps labels at the client and needs the U shape: name the body's last layer (until)"
        )
    coding: RowCoding = FloatRows()
    gradient_coding: RowCoding = FloatRows()
    clamps: float | None = None
    text = name + (" labels at the server" if parts.head is None else "")
    if name == "ckks":
        from securefl.split.encrypted import EncryptedMode  # TenSEAL is an extra

        return EncryptedMode.of(settings.ciphertexts, settings.largest_activation, parts.body, settings.batch_size)
    if name == "shared":
        return SharedMode.of(
            parts.body,
            shapes,
            activation_range=settings.largest_activation,
            gradient_range=settings.gradient_range,
            max_batch=settings.batch_size,
            momentum=settings.momentum,
            clients=clients,
        )
    if name == "quantized":
        coding = GridRows(settings.largest_activation, settings.bits)
        clamps, text = settings.largest_activation, f"quantized {settings.bits} bits {settings.largest_activation!r}"
    elif name == "noise":
        if noise_multiplier is None:
            raise ConfigurationError("protect = 'noise' needs the noise multiplier of a privacy budget")
        coding = NoisyRows(settings.clip_norm, noise_multiplier, features)
        gradient_coding = NoisyRows(settings.gradient_clip_norm, noise_multiplier, outputs)
        text = f"noise {settings.clip_norm!r} {settings.gradient_clip_norm!r} {noise_multiplier!r}"
    shape = ClearShape(features, outputs, settings.batch_size, coding, gradient_coding)
    return ClearMode(text, clamps, shape, parts.body, shapes[0])


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
