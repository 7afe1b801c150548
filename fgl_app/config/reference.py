"""What there is to say of each config key, from its definition: `fgl config` and docs/configuration.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fgl_app.config.keys import RunConfig
from fgl_app.config.parsing import allowed_values

GROUPS = {
    "method": "What runs",
    "dataset": "Data",
    "classifier": "Training",
    "generator": "FGL: the generator",
    "prompts": "FGL: prompts, captions and their embeddings",
    "images-per-class": "FGL: the synthetic set, and the first training on it",
    "server-epochs": "Corrections and uploads",
    "diffusion-space": "Diffusion models",
    "seed": "Where and how",
}
"""Title of each group of keys, by its first key in the order of :class:`RunConfig`."""

KINDS = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


@dataclass(frozen=True)
class KeyReference:
    """A config key as it is shown to users.

    Parameters
    ----------
    key : str
        Its kebab-case name.
    default : str
        Its default as JSON.
    choices : tuple[str, ...]
        The values it takes; empty for a key that is no choice.
    rule : str
        What its values must be, as Markdown.
    meaning : str
        What it does, with the defaults by method where they differ.
    """

    key: str
    default: str
    choices: tuple[str, ...]
    rule: str
    meaning: str


def key_groups() -> dict[str, list[KeyReference]]:
    """Return every key, in groups by title."""
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
    """Say in words what a key's JSON schema asks of its values; patterns are told by the meaning."""
    parts = [KINDS[schema["type"]]]
    parts += [f"{words} {schema[name]:,}" for name, words in BOUNDS.items() if name in schema]
    if schema.get("minLength"):
        parts.append("not empty")
    return ", ".join(parts)
