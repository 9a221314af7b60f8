"""What is trained, on what, and how: ``[data]``, ``[model]``, ``[training]``, ``[faults]``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from securefl.fl.config.section import Section, as_tuple

__all__ = ["DataConfig", "FaultsConfig", "ModelConfig", "TrainingConfig"]


class DataConfig(Section):
    """``[data]``: what the clients hold. ``seed`` fixes data, model and training (never masks)."""

    dataset: Literal["digits", "breast-cancer"] = "digits"
    clients: int = Field(default=20, ge=2, lt=2**32)
    partition: Literal["iid", "shards", "dirichlet"] = "dirichlet"
    alpha: float = Field(default=0.5, gt=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _alpha_is_used(self) -> Self:
        if "alpha" in self.model_fields_set and self.partition != "dirichlet":
            raise ValueError(f"alpha has no effect with partition = {self.partition!r}; remove it")
        return self


class ModelConfig(Section):
    """``[model]``: what is trained."""

    name: Literal["mlp", "logistic", "cnn"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)] = (64,)

    @model_validator(mode="after")
    def _hidden_is_used(self) -> Self:
        if "hidden" in self.model_fields_set and self.name != "mlp":
            raise ValueError(f"hidden has no effect with name = {self.name!r}; remove it")
        return self


class TrainingConfig(Section):
    """``[training]``: federated averaging and what a client does in a round."""

    rounds: int = Field(default=30, ge=1, lt=2**32)
    local_epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=0.1, gt=0)
    server_learning_rate: float = Field(default=1.0, gt=0)
    optimizer: Literal["sgd", "adam"] = "sgd"


class FaultsConfig(Section):
    """``[faults]``: simulated. ``dropout``: probability that a client drops out of a round."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
