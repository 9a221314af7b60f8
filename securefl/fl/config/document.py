"""A whole configuration, and how a file becomes one."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator

from securefl.errors import ConfigurationError
from securefl.fl.config.compression import CompressionConfig
from securefl.fl.config.personalization import PersonalizationConfig
from securefl.fl.config.privacy import PrivacyConfig
from securefl.fl.config.protection import ProtectionConfig
from securefl.fl.config.robust import RobustConfig
from securefl.fl.config.section import Section
from securefl.fl.config.split import SplitConfig
from securefl.fl.config.tiers import TiersConfig
from securefl.fl.config.training import AugmentationConfig, DataConfig, FaultsConfig, ModelConfig, TrainingConfig

__all__ = ["Config", "load", "parse"]


def _without_default_chain(values: object) -> object:
    """With ``[privacy]``, ``[tiers]`` or ``[robust]`` and no ``chain`` of the file's own, nothing is compressed.

    Noise is sized for every value; shells have values of their own; rules compare values.
    """
    if isinstance(values, dict) and any(values.get(name) is not None for name in ("privacy", "tiers", "robust")):
        compression = values.get("compression", {})
        if isinstance(compression, dict) and "chain" not in compression:
            return {**values, "compression": {**compression, "chain": []}}
    return values


class Config(Section):
    """A whole configuration; ``Config()`` is the bundled run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    protection: ProtectionConfig = ProtectionConfig()
    compression: CompressionConfig = CompressionConfig()
    faults: FaultsConfig = FaultsConfig()
    privacy: PrivacyConfig | None = None
    personalization: PersonalizationConfig | None = None
    augmentation: AugmentationConfig | None = None
    tiers: TiersConfig | None = None
    robust: RobustConfig | None = None
    split: SplitConfig | None = None

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
        cohort = self.training.cohort_size
        if cohort is not None and not self.protection.threshold_count(cohort) <= cohort <= self.data.clients:
            raise ValueError(
                f"[training] cohort_size = {cohort} lies outside the threshold, "
                f"{self.protection.threshold_count(cohort)}, and the {self.data.clients} clients"
            )
        return self

    @model_validator(mode="after")
    def _tiers_fit_the_rest(self) -> Self:
        if self.tiers is None:
            return self
        chosen, count = self.training, self.protection.threshold_count(self.data.clients)
        refused = {
            "[privacy]": self.privacy is not None,
            "[personalization]": self.personalization is not None,
            "a [compression] chain": bool(self.compression.chain),
            'key_model = "threshold"': self.protection.method == "ckks" and self.protection.key_model == "threshold",
            f"algorithm = {chosen.algorithm!r}": chosen.algorithm != "fedavg",
            f"optimizer = {chosen.optimizer!r}": chosen.optimizer != "sgd",
            f"server_optimizer = {chosen.server_optimizer!r}": chosen.server_optimizer != "sgd",
            "server_momentum, which moves parts of the model that were not opened": chosen.server_momentum > 0,
            f"engine = {chosen.engine!r}": chosen.engine == "stacked",
        }
        for what, given in refused.items():
            if given:
                raise ValueError(f"[tiers] does not go with {what} in this version")
        if self.tiers.minimum_holders > count:
            raise ValueError(
                f"[tiers] minimum_holders = {self.tiers.minimum_holders} is more than [protection] threshold, {count}"
            )
        return self

    @model_validator(mode="after")
    def _rules_fit_the_rest(self) -> Self:
        if self.robust is None:
            return self
        if self.protection.method != "shared":
            raise ValueError(
                f'[robust] computes on shared updates: set [protection] method = "shared", not {self.protection.method}'
            )
        refused = {
            "[privacy]": self.privacy is not None,
            "[tiers]": self.tiers is not None,
            "a [compression] chain": bool(self.compression.chain),
            "[protection] max_weight, since every client counts once": self.protection.max_weight is not None,
            'algorithm = "scaffold"': self.training.algorithm == "scaffold",
            "train_loss": self.training.train_loss,
        }
        for what, given in refused.items():
            if given:
                raise ValueError(f"[robust] does not go with {what} in this version")
        return self

    @model_validator(mode="after")
    def _training_fits_the_rest(self) -> Self:
        chosen = self.training
        if self.privacy is not None:
            if chosen.cohort_size is not None or chosen.cohort_probability is not None:
                raise ValueError(
                    "with [privacy] a cohort is drawn by its sampling_probability, which is accounted for: remove "
                    "cohort_size and cohort_probability from [training]"
                )
            if self.privacy.unit == "example" and self.faults.stragglers:
                raise ValueError("DP-SGD accounts for every step of a client: [faults] stragglers does not go with it")
            if self.privacy.unit == "example" and chosen.algorithm == "fedprox":
                raise ValueError("DP-SGD adds nothing to the gradients that it clips: fedprox does not go with it")
            if chosen.algorithm == "scaffold":
                raise ValueError("scaffold sends twice the values, which noise is not sized for: not with [privacy]")
        if chosen.train_loss:
            if self.privacy is not None:
                raise ValueError(
                    "train_loss would be one more release, which [privacy] does not account for: remove it"
                )
            if self.tiers is not None or set(self.compression.chain) - {"fixed_point"}:
                raise ValueError(
                    "train_loss is one value among the update's, which coders and tiers would lose: set [compression] "
                    "chain = [] and remove [tiers], or remove train_loss"
                )
        if chosen.algorithm == "scaffold" and "pruned" in self.compression.chain:
            raise ValueError("scaffold needs every weight's control variate, which pruned takes away: one of them")
        if (self.model.name == "next-character") != (self.data.dataset == "text"):
            raise ValueError('the dataset "text" and the model "next-character" go with each other, and with no other')
        if self.augmentation is not None and self.data.dataset != "digits":
            raise ValueError(f"[augmentation] varies images, which {self.data.dataset} has not; remove the section")
        if self.personalization is not None and self.personalization.method == "fedper":
            if chosen.algorithm == "scaffold":
                raise ValueError("fedper keeps the last layer, which scaffold would correct: one of them")
            if self.privacy is not None:
                raise ValueError("fedper sends fewer values than [privacy] sizes its noise for: one of them")
            if "pruned" in self.compression.chain:
                raise ValueError("fedper keeps the last layer, which pruned takes weights from: one of them")
        return self

    @model_validator(mode="after")
    def _split_stands_alone(self) -> Self:
        if self.split is None:
            return self
        if self.privacy is not None:
            raise ValueError("[privacy] is about whole updates; with [split], epsilon and delta stand in [split]")
        for name in ("personalization", "tiers", "robust"):
            if getattr(self, name) is not None:
                raise ValueError(f"[{name}] is about whole models and does not go with [split]: remove one of them")
        for name in ("compression", "faults"):
            if getattr(self, name).model_fields_set:
                raise ValueError(f"[{name}] does not apply to split learning in this version: remove the section")
        if self.protection.method not in ("masked", "plain"):
            raise ValueError(
                f"[protection] method = {self.protection.method!r} does not sum the fronts of [split] in this version: "
                "use masked"
            )
        used = {
            "training": {"rounds", "batch_size", "learning_rate"},
            "protection": {"method", "threshold", "suite"},
        }
        for name, keys in used.items():
            unused = sorted(getattr(self, name).model_fields_set - keys)
            if unused:
                raise ValueError(f"[{name}] {unused[0]} has no effect with [split]; remove it")
        for name in ("model", "data"):
            given = getattr(self, name).model_fields_set & {"name", "hidden", "dataset"}
            if self.split.series and given:
                raise ValueError(f"[{name}] {min(given)} has no effect with [split] series = true; remove it")
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
            ("protection", "method", protect) if self.split is None else ("split", "protect", protect),
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
    key (with the nearest known one), a value of the wrong type or out of range.
    """
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
    every = Config.model_construct(
        privacy=PrivacyConfig(),
        personalization=PersonalizationConfig(),
        augmentation=AugmentationConfig(flip=True),
        tiers=TiersConfig(),
        robust=RobustConfig.model_construct(),
        split=SplitConfig(),
    )
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
