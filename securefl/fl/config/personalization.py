"""Models of the clients' own: ``[personalization]``."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from securefl.fl.config.section import Section

__all__ = ["PersonalizationConfig"]

_TUNED: Final = ("fine_tune", "interpolate")
#: Keys that belong to some methods: setting one without them would have no effect.
_KEYS_OF: Final = {
    "steps": ("method", _TUNED),
    "learning_rate": ("method", _TUNED),
    "layers": ("method", _TUNED),
    "alpha": ("method", ("interpolate",)),
    "choose_alpha": ("method", ("interpolate",)),
    "pull": ("method", ("ditto",)),
}


class PersonalizationConfig(Section):
    """``[personalization]``: what each client makes of the global model; absent: nothing.

    ``held_out``: share of each client's examples that it evaluates on and never trains on. ``steps``,
    ``learning_rate`` (absent: that of [training]), ``layers``: of the fine-tuning. ``alpha``: share of the global model
    in the interpolation; ``choose_alpha``: each client chooses its own. ``pull``: λ of ditto.
    """

    method: Literal["fine_tune", "interpolate", "ditto", "fedper"] = "interpolate"
    held_out: float = Field(default=0.3, gt=0, lt=1)
    steps: int = Field(default=35, ge=1)
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    layers: Literal["all", "head"] = "all"
    alpha: float = Field(default=0.5, ge=0, le=1)
    choose_alpha: bool = False
    pull: float = Field(default=0.1, ge=0)

    @model_validator(mode="after")
    def _keys_are_used(self) -> Self:
        for key, (choice, values) in _KEYS_OF.items():
            if key in self.model_fields_set and getattr(self, choice) not in values:
                raise ValueError(f"{key} has no effect without {choice} = {' or '.join(map(repr, values))}; remove it")
        if self.choose_alpha and "alpha" in self.model_fields_set:
            raise ValueError("choose_alpha takes the place of alpha: one of them")
        return self
