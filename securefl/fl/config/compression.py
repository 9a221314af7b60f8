"""What the upload is reduced to: ``[compression]``."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from securefl.fl.config.section import Section, as_tuple

__all__ = ["CompressionConfig"]

_CODERS: Final = ("pruned", "random_k", "random_projection", "powersgd")
_GRIDS: Final = ("rotated", "fixed_point")
#: Keys that belong to one coder: setting one without the coder would have no effect.
_KEYS_OF: Final = {
    "fraction": ("random_k", "random_projection"),
    "rank": ("powersgd",),
    "levels": ("rotated",),
    "width": ("rotated",),
    "clip_multiple": ("rotated",),
    "error_feedback": ("random_k", "random_projection", "powersgd"),
    "decay": ("random_k", "random_projection", "powersgd"),
    "initial_sparsity": ("pruned",),
    "final_sparsity": ("pruned",),
    "begin_round": ("pruned",),
    "end_round": ("pruned",),
    "structured": ("pruned",),
}
_Coder = Literal["pruned", "random_k", "random_projection", "powersgd", "rotated", "fixed_point"]


class CompressionConfig(Section):
    """``[compression]``: what the upload is reduced to before protection. ``chain = []``: quantization alone.

    ``chain``: in the order in which a client applies them: "pruned", then "random_k", "random_projection" or
    "powersgd", then "rotated" or "fixed_point" (the grid of [protection], also when none is named).
    ``fraction``, ``rank``, ``levels``, ``width``, ``clip_multiple``: of those coders. ``error_feedback``, ``decay``:
    whether and how much of what a coder drops comes back; absent: with powersgd and random_projection, where it was
    measured to help, and not with random_k, which is unbiased without.
    ``download_bits``: 32, or 8 or 4 for the model that clients download.
    The flags are those of ``securefl.encoding.rules``.
    """

    chain: Annotated[tuple[_Coder, ...], BeforeValidator(as_tuple)] = ("random_k", "rotated")
    fraction: float = Field(default=0.1, gt=0, le=1)
    rank: int = Field(default=2, ge=1)
    levels: int = Field(default=3, ge=2, le=255)
    width: Literal["exact", "auto"] = "auto"
    clip_multiple: float = Field(default=3.0, gt=0)
    error_feedback: bool | None = None
    decay: float = Field(default=1.0, ge=0, le=1)
    initial_sparsity: float = Field(default=0.0, ge=0, lt=1)
    final_sparsity: float = Field(default=0.5, ge=0, lt=1)
    begin_round: int = Field(default=1, ge=1)
    end_round: int = Field(default=20, ge=1)
    structured: bool = False
    download_bits: Literal[4, 8, 32] = 32
    allow_error_feedback_with_server_momentum: bool = False
    allow_error_feedback_with_adaptive_server: bool = False
    allow_positions_in_the_clear: bool = False
    allow_per_client_scales: bool = False
    allow_two_releases_with_privacy: bool = False

    @model_validator(mode="after")
    def _chain_works(self) -> Self:
        if len(set(self.chain)) != len(self.chain):
            raise ValueError(f"chain names a coder twice: {', '.join(self.chain)}")
        order = [(*_CODERS, *_GRIDS).index(name) for name in self.chain]
        if order != sorted(order):
            raise ValueError(f"chain = {list(self.chain)} is out of order: pruned, one reducing coder, then the grid")
        for group in (_CODERS[1:], _GRIDS):
            named = [name for name in self.chain if name in group]
            if len(named) > 1:
                raise ValueError(f"chain has both {' and '.join(named)}: one of them")
        if "pruned" in self.chain and "powersgd" in self.chain:
            raise ValueError("powersgd needs whole matrices, which pruned takes apart: one of them")
        for key, owners in _KEYS_OF.items():
            if key in self.model_fields_set and not set(owners) & set(self.chain):
                raise ValueError(f"{key} has no effect without {' or '.join(owners)} in chain; remove it")
        if self.end_round < self.begin_round:
            raise ValueError(f"end_round = {self.end_round} lies before begin_round = {self.begin_round}")
        return self

    @property
    def feeds_back(self) -> bool:
        """Whether clients keep residuals."""
        if self.error_feedback is not None:
            return self.error_feedback
        return "powersgd" in self.chain or "random_projection" in self.chain

    @property
    def flags(self) -> frozenset[str]:
        """The rules that are switched off."""
        return frozenset(name for name in type(self).model_fields if name.startswith("allow_") and getattr(self, name))
