"""The configuration of a run: TOML, every key with a default, nothing unknown accepted.

An empty file is the bundled run. What goes wrong comes back as one sentence that names the section and the key. Steps
that this version does not have are refused, never skipped: a run without a protection that its file asks for would be
the worst of answers.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from securefl.errors import ConfigurationError, MissingExtraError

try:
    from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
except ImportError as error:
    raise MissingExtraError("configuration files need pydantic: pip install 'securefl[cli]'") from error

__all__ = [
    "CompressionConfig",
    "Config",
    "DataConfig",
    "FaultsConfig",
    "ModelConfig",
    "PrivacyConfig",
    "ProtectionConfig",
    "TrainingConfig",
    "load",
    "parse",
]

#: Sections and methods of the design that come with a later version.
_LATER_SECTIONS: Final = ("personalization", "tiers", "split")
_LATER_METHODS: Final = ("ckks", "shared")


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value  # TOML has arrays, a frozen model tuples


def _available(method: object) -> object:
    if method in _LATER_METHODS:
        raise ValueError(f"{method!r} is not in this version; use 'masked' or 'plain'")
    return method


def _threshold(value: object) -> object:
    # Said here in one sentence rather than per branch of the union, where 1 would also pass for the fraction 1.0.
    if not (type(value) is float and 0 < value <= 1) and not (type(value) is int and value >= 2):
        raise ValueError("must be a fraction in (0, 1] or a count of at least 2")
    return value


class _Section(BaseModel):
    # strict: "20" is not 20 and true is not 1. An integer where a float is due is fine.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class DataConfig(_Section):
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


class ModelConfig(_Section):
    """``[model]``: what is trained."""

    name: Literal["mlp", "logistic", "cnn"] = "mlp"
    hidden: Annotated[tuple[Annotated[int, Field(ge=1)], ...], BeforeValidator(_tuple)] = (64,)

    @model_validator(mode="after")
    def _hidden_is_used(self) -> Self:
        if "hidden" in self.model_fields_set and self.name != "mlp":
            raise ValueError(f"hidden has no effect with name = {self.name!r}; remove it")
        return self


class TrainingConfig(_Section):
    """``[training]``: federated averaging and what a client does in a round."""

    rounds: int = Field(default=30, ge=1, lt=2**32)
    local_epochs: int = Field(default=1, ge=1)
    batch_size: int = Field(default=16, ge=1)
    learning_rate: float = Field(default=0.1, gt=0)
    server_learning_rate: float = Field(default=1.0, gt=0)
    optimizer: Literal["sgd", "adam"] = "sgd"


class ProtectionConfig(_Section):
    """``[protection]``: how the sum is protected.

    ``threshold``: least number of survivors; a fraction of the clients in (0, 1], rounded up, or a count from 2.
    ``max_weight``: largest number of examples a client may count for; absent: see :meth:`max_weight_for`.
    """

    method: Annotated[Literal["masked", "plain"], BeforeValidator(_available)] = "masked"
    value_bits: int = Field(default=16, ge=2, le=31)
    clip_range: float = Field(default=1.0, gt=0)
    threshold: Annotated[float | int, BeforeValidator(_threshold)] = 0.6
    suite: Literal["mlkem768-x25519", "x25519"] = "mlkem768-x25519"
    max_weight: Annotated[int, Field(ge=1, lt=2**32)] | None = None

    def threshold_count(self, clients: int) -> int:
        """The threshold as a count: at least 2, since the "sum" of one client is its update."""
        if isinstance(self.threshold, int):
            return self.threshold
        # As written: 0.55 * 20 is 11, not the 11.000000000000002 that floating point makes of it.
        return max(2, math.ceil(Fraction(str(self.threshold)) * clients))

    def max_weight_for(self, weights: Iterable[int]) -> int:
        """``max_weight``, or the smallest power of two that holds every client's sample count.

        The default uses what only a simulation knows; a deployment agrees on a number beforehand.
        Raises :class:`~securefl.errors.ConfigurationError` when a client holds more than the ``max_weight`` given.
        """
        largest = max(weights)
        if self.max_weight is None:
            return 1 << (largest - 1).bit_length()
        if largest > self.max_weight:
            raise ConfigurationError(
                f"[protection] max_weight = {self.max_weight} but a client holds {largest} examples; "
                "raise it or leave it out"
            )
        return self.max_weight


class PrivacyConfig(_Section):
    """``[privacy]``: differential privacy of what the run releases; absent: none, and the run says so.

    ``epsilon``, ``delta``: the budget of the whole run. ``noise``: who adds it — ``distributed`` (each client a share,
    inside the ring), ``central`` (a trusted server, after the sum), ``local`` (each client, for itself).
    ``clip_norm``: ℓ2 bound of an update (of an example's gradient where ``unit = "example"``).
    ``noise_multiplier``: by default the least that meets the budget in the configured rounds; given, the run stops
    where the budget does. ``sampling_probability``: each client joins a round by its own coin; absent: all do.
    ``colluders``: survivors that may pool what they know with the server; their noise does not count.
    ``adaptive``: the clip norm follows a quantile of the norms. ``unit``: ``client`` (user-level) or ``example``.
    """

    epsilon: float = Field(default=8.0, gt=0)
    delta: float = Field(default=1e-5, gt=0, lt=1)
    noise: Literal["distributed", "central", "local"] = "distributed"
    clip_norm: float = Field(default=1.0, gt=0)
    noise_multiplier: float | None = Field(default=None, gt=0)
    sampling_probability: float | None = Field(default=None, gt=0, le=1)
    colluders: int = Field(default=0, ge=0)
    adaptive: bool = False
    target_quantile: float = Field(default=0.5, gt=0, lt=1)
    neighboring: Literal["add-remove", "replace-one"] = "add-remove"
    unit: Literal["client", "example"] = "client"

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        given = self.model_fields_set
        if self.unit == "example" and (given & {"noise", "colluders", "adaptive", "sampling_probability"}):
            raise ValueError(
                'unit = "example" is DP-SGD at each client: noise, colluders, adaptive and '
                "sampling_probability are for user-level privacy; remove them"
            )
        if self.adaptive and self.noise == "local":
            raise ValueError('adaptive needs a sum: it does not go with noise = "local"')
        if self.colluders and self.noise != "distributed":
            raise ValueError('colluders is for noise = "distributed"; remove it')
        if "target_quantile" in given and not self.adaptive:
            raise ValueError("target_quantile has no effect without adaptive = true; remove it")
        if self.noise == "local" and self.noise_multiplier is not None:
            raise ValueError('noise = "local" is calibrated to epsilon and delta; remove noise_multiplier')
        return self


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


class CompressionConfig(_Section):
    """``[compression]``: what the upload is reduced to before protection. ``chain = []``: quantization alone.

    ``chain``: in the order in which a client applies them: "pruned", then "random_k", "random_projection" or
    "powersgd", then "rotated" or "fixed_point" (the grid of [protection], also when none is named).
    ``fraction``, ``rank``, ``levels``, ``width``, ``clip_multiple``: of those coders. ``error_feedback``, ``decay``:
    whether and how much of what a coder drops comes back; absent: with powersgd and random_projection, where it was
    measured to help, and not with random_k, which is unbiased without.
    ``download_bits``: 32, or 8 or 4 for the model that clients download.
    The flags are those of ``securefl.encoding.rules``.
    """

    chain: Annotated[tuple[_Coder, ...], BeforeValidator(_tuple)] = ("random_k", "rotated")
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
    allow_narrow_lanes_with_ckks: bool = False
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


class FaultsConfig(_Section):
    """``[faults]``: simulated. ``dropout``: probability that a client drops out of a round."""

    dropout: float = Field(default=0.0, ge=0, lt=1)


def _without_default_chain(values: object) -> object:
    """With ``[privacy]`` and no ``chain`` of the file's own, nothing is compressed: noise is sized for every value."""
    if isinstance(values, dict) and values.get("privacy") is not None:
        compression = values.get("compression", {})
        if isinstance(compression, dict) and "chain" not in compression:
            return {**values, "compression": {**compression, "chain": []}}
    return values


class Config(_Section):
    """A whole configuration; ``Config()`` is the bundled run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    protection: ProtectionConfig = ProtectionConfig()
    compression: CompressionConfig = CompressionConfig()
    faults: FaultsConfig = FaultsConfig()
    privacy: PrivacyConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _private_runs_are_not_compressed(cls, values: object) -> object:
        return _without_default_chain(values)

    @model_validator(mode="after")
    def _privacy_and_compression(self) -> Self:
        if self.privacy is not None and self.compression.chain:
            raise ValueError(
                "[privacy] does not go with a [compression] chain in this version, which sizes noise for every value: "
                "set chain = []"
            )
        return self

    @model_validator(mode="after")
    def _threshold_can_be_met(self) -> Self:
        count = self.protection.threshold_count(self.data.clients)
        if count > self.data.clients:
            raise ValueError(f"[protection] threshold = {count} is more than [data] clients = {self.data.clients}")
        return self

    def digest(self) -> str:
        """Hex SHA-256 of the canonical JSON of all values: equal for a file that spells out a default."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def with_overrides(
        self,
        *,
        protect: str | None = None,
        rounds: int | None = None,
        clients: int | None = None,
        seed: int | None = None,
    ) -> Config:
        """A copy with the values of command-line flags; ``None`` leaves a value. Raises ConfigurationError."""
        values: dict[str, dict[str, Any]] = self.model_dump(exclude_unset=True)
        for section, key, value in (
            ("protection", "method", protect),
            ("training", "rounds", rounds),
            ("data", "clients", clients),
            ("data", "seed", seed),
        ):
            if value is not None:
                values.setdefault(section, {})[key] = value
        return parse(values)


def load(path: Path | str | None) -> Config:
    """The configuration in the TOML file ``path``; ``None``: the bundled run.

    Raises :class:`~securefl.errors.ConfigurationError` for a file that cannot be read, is not TOML (with the line), or
    asks for what :func:`parse` refuses.
    """
    if path is None:
        return Config()
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"the configuration file {path} is not UTF-8 text") from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"the configuration file {path} is not valid TOML: {error}") from error
    try:
        return parse(values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from error


def parse(values: Mapping[str, Any]) -> Config:
    """The configuration of a parsed document.

    Raises :class:`~securefl.errors.ConfigurationError`, one sentence on the first thing wrong: an unknown section or
    key (with the nearest known one), a step of a later version, a value of the wrong type or out of range.
    """
    for section in _LATER_SECTIONS:
        if section in values:
            raise ConfigurationError(f"this version has no such step: [{section}]; remove the section")
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigurationError(_sentence(problems[0]) + more) from None


def _sentence(problem: Any) -> str:
    path, kind = problem["loc"], problem["type"]
    if kind == "extra_forbidden":
        return _unknown(*map(str, path))
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not path:  # a rule between sections, which names them
        return message
    section, key = str(path[0]), str(path[1]) if len(path) > 1 else None
    if key is None:
        return f"[{section}] must be a table" if kind == "model_type" else f"[{section}] {message}"
    return f"[{section}] {key} = {problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _unknown(section: str, key: str | None = None) -> str:
    every = Config(privacy=PrivacyConfig())
    keys = {name: list(type(getattr(every, name)).model_fields) for name in Config.model_fields}
    if key is None:
        home = [name for name, known in keys.items() if section in known]
        if home:
            return f"unknown section or top-level key {section!r}; {section!r} belongs in [{home[0]}]"
        near = difflib.get_close_matches(section, keys, n=1)
        hint = f"did you mean [{near[0]}]?" if near else f"there are {', '.join(f'[{name}]' for name in keys)}"
        return f"unknown section or top-level key {section!r}; {hint}"
    near = difflib.get_close_matches(key, keys[section], n=1)
    home = [name for name, known in keys.items() if key in known]
    if near:
        hint = f"did you mean {near[0]!r}?"
    elif home:
        hint = f"it belongs in [{home[0]}]"
    else:
        hint = f"there are {', '.join(keys[section])}"
    return f"unknown key {key!r} in section [{section}]; {hint}"
