"""JSON files of a run: strict when written, lenient when read."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def to_json(values: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """Return values as JSON with a final line break; NaN and infinities become null."""
    return json.dumps(_finite(values), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file cannot be read or contains no object."""
    with suppress(OSError, ValueError):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return values
    return {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON lines file; skips lines that a killed process left incomplete."""
    objects = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            with suppress(ValueError):
                objects.append(json.loads(line))
    return objects


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
