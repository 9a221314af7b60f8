"""The configuration of a run: TOML, every key with a default, nothing unknown accepted.

An empty file is the bundled run. What goes wrong comes back as one sentence that names the section and the key. Steps
that this version does not have are refused, never skipped: a run without a protection that its file asks for would be
the worst of answers.
"""

from __future__ import annotations

from securefl.errors import MissingExtraError

try:
    from securefl.fl.config.compression import CompressionConfig
    from securefl.fl.config.document import Config, load, parse
    from securefl.fl.config.personalization import PersonalizationConfig
    from securefl.fl.config.privacy import PrivacyConfig
    from securefl.fl.config.protection import ProtectionConfig
    from securefl.fl.config.robust import RobustConfig
    from securefl.fl.config.split import SplitConfig
    from securefl.fl.config.tiers import TiersConfig
    from securefl.fl.config.training import (
        AugmentationConfig,
        DataConfig,
        FaultsConfig,
        ModelConfig,
        TrainingConfig,
    )
except ModuleNotFoundError as error:
    if error.name != "pydantic":
        raise
    raise MissingExtraError("configuration files need pydantic: pip install 'securefl[cli]'") from error

__all__ = [
    "AugmentationConfig",
    "CompressionConfig",
    "Config",
    "DataConfig",
    "FaultsConfig",
    "ModelConfig",
    "PersonalizationConfig",
    "PrivacyConfig",
    "ProtectionConfig",
    "RobustConfig",
    "SplitConfig",
    "TiersConfig",
    "TrainingConfig",
    "load",
    "parse",
]
