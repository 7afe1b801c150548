"""Parsing of run config values into a :class:`RunConfig`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from fgl_app.config.keys import RunConfig
from fgl_app.config.methods import METHOD_DEFAULT


class ConfigError(ValueError):
    """The run config breaks a rule; the message has the key, the rule and the value."""


def parse_config(values: Mapping[str, Any]) -> RunConfig:
    """Validate TOML scalars by kebab-case key, and fill in the defaults of the keys and of the method.

    Raises ConfigError if a value is invalid; the message has each key, its rule and the received value.
    """
    try:
        config = RunConfig.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(detail) for detail in error.errors())) from None
    unset = [name for name, value in METHOD_DEFAULT.items() if getattr(config, name) == value]
    return config.model_copy(update={name: config.spec.defaults[name] for name in unset})


def config_keys() -> dict[str, Any]:
    """Return every key with its default, as in ``[tool.flwr.app.config]``."""
    return RunConfig().to_run_config()


def allowed_values(key: str) -> tuple[str, ...]:
    """Return the values that a choice key takes; empty for other keys."""
    return tuple(get_args(RunConfig.model_fields[key.replace("-", "_")].annotation))


def _sentence(detail: ErrorDetails) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    value = detail["input"]
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(key, config_keys(), n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "; `fgl config` lists the keys"
        return f"unknown config key '{key}'{hint}"
    if not key:
        return detail["msg"].removeprefix("Value error, ")
    rule = detail["msg"].removeprefix("Input ").removeprefix("String ").removeprefix("should ")
    if detail["type"] == "literal_error":
        rule = "be one of " + ", ".join(allowed_values(key))
    return f"config key '{key}' must {rule}, got {value!r}"
