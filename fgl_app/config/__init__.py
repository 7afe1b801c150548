"""The run config: every key of ``[tool.flwr.app.config]`` with its type and its rule.

Flower does not validate run config values. :func:`parse_config` does, so all other code can rely on them.
"""

from fgl_app.config.choices import BUILTIN_NAMES, NO_DATASET
from fgl_app.config.keys import RunConfig
from fgl_app.config.methods import METHODS
from fgl_app.config.parsing import ConfigError, allowed_values, config_keys, parse_config

__all__ = [
    "BUILTIN_NAMES",
    "METHODS",
    "NO_DATASET",
    "ConfigError",
    "RunConfig",
    "allowed_values",
    "config_keys",
    "parse_config",
]
