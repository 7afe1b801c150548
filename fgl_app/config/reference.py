"""The reference of the config keys, for `fgl config` and docs/configuration.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgl_app.config.keys import RunConfig
from fgl_app.config.parsing import allowed_values

GROUPS = {
    "method": "Method",
    "dataset": "Data",
    "classifier": "Training",
    "generator": "FGL: the generator",
    "prompts": "FGL: prompts, captions and embeddings",
    "images-per-class": "FGL: the synthetic set and the training on it",
    "server-epochs": "Corrections and uploads",
    "diffusion-space": "Diffusion models",
    "seed": "Execution",
}
"""Title of each group of keys, by the first key of the group in :class:`RunConfig`."""

KINDS = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


@dataclass(frozen=True)
class KeyReference:
    """The reference entry of a config key."""

    key: str  # Name in kebab-case.
    default: str  # Default as JSON.
    choices: tuple[str, ...]  # Values of a choice key; empty for other keys.
    rule: str  # Rule for the values, as Markdown.
    meaning: str  # Description, including the defaults by method where they differ.


def key_groups() -> dict[str, list[KeyReference]]:
    """Return the reference entries of all keys, by title of their group."""
    groups: dict[str, list[KeyReference]] = {}
    title = ""
    for key, schema in RunConfig.model_json_schema()["properties"].items():
        title = GROUPS.get(key, title)
        choices = allowed_values(key)
        rule = " or ".join(f"`{choice}`" for choice in choices) or _rule(schema)
        reference = KeyReference(key, json.dumps(schema["default"]), choices, rule, schema["description"])
        groups.setdefault(title, []).append(reference)
    return groups


def _rule(schema: Mapping[str, Any]) -> str:
    """Describe the values that a JSON schema allows; the meaning of the key describes patterns."""
    parts = [KINDS[schema["type"]]]
    parts += [f"{words} {schema[name]:,}" for name, words in BOUNDS.items() if name in schema]
    if schema.get("minLength"):
        parts.append("not empty")
    return ", ".join(parts)
