"""The run config: every key of ``[tool.flwr.app.config]``, typed, with its rule.

Flower passes run config values through unchecked. :func:`parse_config` is the border: whatever gets past
it can be relied on everywhere else.
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
