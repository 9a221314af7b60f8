"""Images varied while training: rotation, shear, zoom, shift, flip, by one affine map per image.

torch alone (``affine_grid``, ``grid_sample``). What comes in from beyond the border is 0, which for centred pixels is
the mean. Variation does not help by itself: on 8 x 8 digits it was measured to hurt, and a mirrored digit is another.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from securefl.errors import ConfigurationError, MissingExtraError
from securefl.fl.models import image_shape

try:
    import torch
    from torch.nn.functional import affine_grid, grid_sample
except ImportError as error:
    raise MissingExtraError("augmentation needs torch: pip install 'securefl[torch]'") from error

__all__ = ["Augmentation"]


@dataclass(frozen=True, slots=True)
class Augmentation:
    """Largest variations, drawn uniformly for every image of every batch.

    ``rotation``, ``shear``: degrees to either side, below 180 and 90. ``shift``: of height and of width, in [0, 1).
    ``zoom``: size times 1 ± zoom, in [0, 1). ``flip``: left and right, every other image.
    Raises :class:`~securefl.errors.ConfigurationError` for numbers out of range.
    """

    rotation: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    zoom: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        if not (0 <= self.rotation <= 180 and 0 <= self.shear < 90 and 0 <= self.shift < 1 and 0 <= self.zoom < 1):
            raise ConfigurationError(
                "rotation lies in [0, 180], shear in [0, 90), shift and zoom in [0, 1), "
                f"not {self.rotation}, {self.shear}, {self.shift}, {self.zoom}"
            )

    def at(self, shape: tuple[int, ...], generator: torch.Generator) -> Callable[[torch.Tensor], torch.Tensor]:
        """A function from a batch [n, *shape] to a varied one; every call draws on from ``generator`` (CPU).

        Raises :class:`~securefl.errors.ConfigurationError` unless ``shape`` is [c, h, w], [h, w] or a flat square.
        """
        channels, height, width = image_shape(shape)

        def vary(batch: torch.Tensor) -> torch.Tensor:
            images = batch.reshape(len(batch), channels, height, width)
            maps = self.maps(len(batch), height / width, generator).to(batch)
            grid = affine_grid(maps, list(images.shape), align_corners=False)
            varied = grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            return varied.reshape(batch.shape)

        return vary

    def maps(self, count: int, aspect: float, generator: torch.Generator) -> torch.Tensor:
        """float32[count, 2, 3]: from a place in the output to the place in the input, both in [-1, 1]².

        ``aspect``: height over width, so that a rotation is one in pixels.
        """

        def draw(largest: float) -> torch.Tensor:
            return (2 * torch.rand(count, generator=generator) - 1) * largest

        angle, slant = draw(math.radians(self.rotation)), torch.tan(draw(math.radians(self.shear)))
        size, right, down = 1 + draw(self.zoom), draw(self.shift), draw(self.shift)
        mirror = torch.ones(count)
        if self.flip:
            mirror = 1 - 2 * (torch.rand(count, generator=generator) < 0.5).float()
        cos, sin = torch.cos(angle) / size, torch.sin(angle) / size
        first = torch.stack([mirror * cos, mirror * (slant * cos - sin) * aspect, 2 * right], dim=1)
        second = torch.stack([sin / aspect, cos + slant * sin, 2 * down], dim=1)
        return torch.stack([first, second], dim=1)
