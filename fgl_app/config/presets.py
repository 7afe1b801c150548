"""Published experiments by name: the files of ``configs/``."""

from __future__ import annotations

import difflib
from itertools import takewhile
from pathlib import Path

from fgl_app.config.parsing import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]
NEEDS = "needs:"


def presets() -> dict[str, Path]:
    """Return the presets by name: the files of ``configs/``, in the package or beside it in a checkout."""
    folders = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
    return {file.stem: file for folder in folders for file in sorted(folder.glob("*.toml"))}


def preset_file(name: str) -> Path:
    """Return a preset's file; the names there are, if there is none of this name."""
    known = presets()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? There are" if near else "there are"
        raise ConfigError(f"unknown preset '{name}'; {hint}: {', '.join(known) or 'none'}")
    return known[name]


def describe_preset(file: Path) -> tuple[str, str]:
    """Return what a preset is and what it needs, from the comment that it begins with."""
    lines = file.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in takewhile(lambda line: line.startswith("#"), lines)]
    needs = [line.removeprefix(NEEDS).strip() for line in comment if line.startswith(NEEDS)]
    return " ".join(line for line in comment if not line.startswith(NEEDS)), " ".join(needs)
