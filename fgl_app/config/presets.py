"""Presets: published experiments in the files of ``configs/``."""

from __future__ import annotations

import difflib
from itertools import takewhile
from pathlib import Path

from fgl_app.config.parsing import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
NEEDS = "needs:"


def presets() -> dict[str, Path]:
    """Return the files of the presets by name, from the package or, in a checkout, the repository."""
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def preset_file(name: str) -> Path:
    """Return the file of a preset; raises ConfigError for an unknown name."""
    files = presets()
    if name not in files:
        similar = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean '{similar[0]}'? Presets" if similar else "presets"
        raise ConfigError(f"unknown preset '{name}'; {hint}: {', '.join(files) or 'none'}")
    return files[name]


def describe_preset(file: Path) -> tuple[str, str]:
    """Return the description and the requirements of a preset, from the comment at the start of its file."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    needs = [line.removeprefix(NEEDS).strip() for line in comment if line.startswith(NEEDS)]
    return " ".join(line for line in comment if not line.startswith(NEEDS)), " ".join(needs)
