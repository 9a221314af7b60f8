"""What is trained, on what, and how: ``[data]``, ``[model]``, ``[training]``, ``[faults]``."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from securefl.fl.config.section import Section, as_tuple

__all__ = ["AugmentationConfig", "DataConfig", "FaultsConfig", "ModelConfig", "TrainingConfig"]


#: Keys of [data] that belong to some partitions: setting one without them would have no effect.
_PARTITION_KEYS: Final = {
    "alpha": ("partition", ("dirichlet", "features")),
    "minimum": ("partition", ("dirichlet", "features", "quantity")),
    "shards_per_client": ("partition", ("shards",)),
    "exponent": ("partition", ("quantity",)),
}


class DataConfig(Section):
    """``[data]``: what the clients hold. ``seed`` fixes data, model and training (never masks).

    ``partition``: what clients differ in, see :mod:`securefl.fl.partition`. ``minimum``: fewest examples of a client,
    absent: 10, or half an equal share where that is less. ``exponent``: of the sizes in the partition "quantity".
    """

    dataset: Literal["digits", "breast-cancer", "fraud", "text"] = "digits"
    clients: int = Field(default=20, ge=2, lt=2**32)
    partition: Literal["iid", "shards", "dirichlet", "quantity", "features", "natural"] = "dirichlet"
    alpha: float = Field(default=0.5, gt=0)
    minimum: Annotated[int, Field(ge=1)] | None = None
    shards_per_client: int = Field(default=2, ge=1)
    exponent: float = Field(default=1.0, ge=0)
    seed: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _keys_are_used(self) -> Self:
        for key, (_, values) in _PARTITION_KEYS.items():
            if key in self.model_fields_set and self.partition not in values:
                raise ValueError(f"{key} has no effect with partition = {self.partition!r}; remove it")
        if self.partition == "natural" and self.dataset not in ("fraud", "text"):
            raise ValueError(f'the examples of {self.dataset} do not say whose they are: no partition = "natural"')
        return self


class AugmentationConfig(Section):
    """``[augmentation]``: how images are varied while training; absent: not at all. Opt-in: measure whether it helps.

    ``rotation``, ``shear``: degrees to either side. ``shift``: share of height and width. ``zoom``: 0.1 is 0.9 to 1.1
    times the size. ``flip``: left and right, which changes what many images mean.
    """

    rotation: float = Field(default=0.0, ge=0, le=180)
    shift: float = Field(default=0.0, ge=0, lt=1)
    shear: float = Field(default=0.0, ge=0, lt=90)
    zoom: float = Field(default=0.0, ge=0, lt=1)
    flip: bool = False

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not (self.rotation or self.shift or self.shear or self.zoom or self.flip):
            raise ValueError("names no variation: set rotation, shift, shear, zoom or flip, or remove the section")
        return self


class ModelConfig(Section):
    """``[model]``: what is trained."""

    name: Literal["mlp", "logistic", "cnn", "next-character"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(as_tuple)] = (64,)

    @model_validator(mode="after")
    def _hidden_is_used(self) -> Self:
        if "hidden" in self.model_fields_set and self.name != "mlp":
            raise ValueError(f"hidden has no effect with name = {self.name!r}; remove it")
        return self


#: Keys that belong to one choice: setting one without it would have no effect.
_KEYS_OF: Final = {
    "proximal": ("algorithm", ("fedprox",)),
    "server_momentum": ("server_optimizer", ("sgd",)),
    "server_beta1": ("server_optimizer", ("adam", "yogi")),
    "server_beta2": ("server_optimizer", ("adam", "yogi")),
    "server_tau": ("server_optimizer", ("adam", "yogi")),
}


class TrainingConfig(Section):
    """``[training]``: federated averaging and what a client does in a round.

    ``local_steps``: exactly so many mini-batches per client and round, instead of ``local_epochs``. ``proximal``: μ of
    fedprox. ``server_*``: the server's step, see :mod:`securefl.fl.server_optimizer`. ``cohort_size`` or
    ``cohort_probability``: a part of the clients is invited to each round. ``engine``: how the simulation trains them.
    """

    rounds: int = Field(default=30, ge=1, lt=2**32)
    local_epochs: int = Field(default=1, ge=1)
    local_steps: Annotated[int, Field(ge=1)] | None = None
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=0.1, gt=0)
    optimizer: Literal["sgd", "adam"] = "sgd"
    engine: Literal["auto", "sequential", "stacked"] = "auto"
    algorithm: Literal["fedavg", "fedprox", "scaffold"] = "fedavg"
    proximal: float = Field(default=0.1, ge=0)
    server_optimizer: Literal["sgd", "adam", "yogi"] = "sgd"
    server_learning_rate: float = Field(default=1.0, gt=0)
    server_momentum: float = Field(default=0.0, ge=0, lt=1)
    server_beta1: float = Field(default=0.9, ge=0, lt=1)
    server_beta2: float = Field(default=0.99, ge=0, lt=1)
    server_tau: float = Field(default=0.001, gt=0)
    cohort_size: Annotated[int, Field(ge=1)] | None = None
    cohort_probability: Annotated[float, Field(gt=0, le=1)] | None = None
    train_loss: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = self.model_fields_set
        for key, (choice, values) in _KEYS_OF.items():
            if key in given and getattr(self, choice) not in values:
                raise ValueError(f"{key} has no effect without {choice} = {' or '.join(map(repr, values))}; remove it")
        if self.local_steps is not None and "local_epochs" in given:
            raise ValueError("local_steps takes the place of local_epochs: one of them")
        if self.cohort_size is not None and self.cohort_probability is not None:
            raise ValueError("cohort_size and cohort_probability both say who is invited: one of them")
        if self.algorithm == "scaffold" and self.optimizer != "sgd":
            raise ValueError('scaffold corrects plain sgd: it does not go with optimizer = "adam"')
        if self.server_optimizer != "sgd" and "server_learning_rate" not in given:
            raise ValueError(
                f"server_optimizer = {self.server_optimizer!r} moves every weight by about server_learning_rate: "
                "give it a small one, such as 0.03"
            )
        return self


class FaultsConfig(Section):
    """``[faults]``: simulated. ``dropout``: probability that a client drops out of a round. ``stragglers``: probability
    that it is slow, and gives what ``straggler_work`` of its steps made of the model when the round closes.
    ``poisoned``: how many clients multiply every update of theirs by ``poison_factor``.
    """

    dropout: float = Field(default=0.0, ge=0, lt=1)
    stragglers: float = Field(default=0.0, ge=0, le=1)
    straggler_work: float = Field(default=0.5, gt=0, lt=1)
    poisoned: int = Field(default=0, ge=0)
    poison_factor: float = -10.0

    @model_validator(mode="after")
    def _work_is_used(self) -> Self:
        if "poison_factor" in self.model_fields_set and not self.poisoned:
            raise ValueError("poison_factor has no effect without poisoned; remove it")
        if "straggler_work" in self.model_fields_set and not self.stragglers:
            raise ValueError("straggler_work has no effect without stragglers; remove it")
        return self
