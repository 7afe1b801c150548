"""`fgl presets` and `fgl config`: what can be asked of a run."""

from __future__ import annotations

import json


def show_presets() -> None:
    """List the published experiments that can be run by name, and what each needs."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fgl_app.presets import describe_preset, presets

    table = Table("preset", "what it is", "needs", box=None, pad_edge=False)
    for name, file in presets().items():
        table.add_row(name, *map(Text, describe_preset(file)))
    Console(highlight=False, emoji=False).print(table)


def show_config() -> None:
    """List every config key with its default and its meaning."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fgl_app.config import RunConfig, allowed_values

    table = Table("key", "default", "meaning", box=None, pad_edge=False)
    for name, field in RunConfig.model_fields.items():
        key = name.replace("_", "-")
        choices = " | ".join(allowed_values(key))
        meaning = f"{field.description}\n{choices}" if choices else str(field.description)
        table.add_row(key, Text(json.dumps(field.default)), Text(meaning))
    Console(highlight=False, emoji=False).print(table)
