"""Presets: the published experiments in ``configs/``."""

from __future__ import annotations

import difflib
from itertools import takewhile
from pathlib import Path

from fgl_app.config.parsing import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
NEEDS = "needs:"


def presets() -> dict[str, Path]:
    """Return the preset files by name, from the package or from the checkout around it."""
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def preset_file(name: str) -> Path:
    """Return the file of a preset, or raise ConfigError with the known names."""
    known = presets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? Known presets" if near else "known presets"
        raise ConfigError(f"unknown preset '{name}'; {hint}: {', '.join(known) or 'none'}")
    return known[name]


def describe_preset(file: Path) -> tuple[str, str]:
    """Return the description and the needs of a preset, from the comment at the top of its file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    needs = [line.removeprefix(NEEDS).strip() for line in comment if line.startswith(NEEDS)]
    return " ".join(line for line in comment if not line.startswith(NEEDS)), " ".join(needs)
