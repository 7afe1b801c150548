"""The package as a Flower app: its code and a ``pyproject.toml`` with the config keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from fgl_app.config import config_keys

Scalar = str | int | float

_PACKAGE = Path(__file__).resolve().parents[1]
_PYPROJECT = """\
[project]
name = "fgl-app"
version = {version}
description = "Generative federated learning on Flower"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fgl"

[tool.flwr.app.components]
serverapp = "fgl_app.server_app:app"
clientapp = "fgl_app.client_app:app"

[tool.flwr.app.config]
"""


def stage_app(folder: Path) -> Path:
    """Write this package as a Flower app: the installed code and a ``pyproject.toml``.

    Flower does not get the repository: an installed wheel has none, and Flower reads the whole directory.
    The folder is new, and is returned.
    """
    for source in _PACKAGE.rglob("*.py"):
        target = folder / _PACKAGE.name / source.relative_to(_PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    text = _PYPROJECT.format(version=json.dumps(metadata.version("fgl-app")))
    (folder / "pyproject.toml").write_text(text + to_toml(config_keys()), encoding="utf-8")
    return folder


def to_toml(values: Mapping[str, Scalar]) -> str:
    """Return scalars as TOML lines. JSON strings are TOML strings, except for the DEL character."""
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return "".join(lines).replace("\x7f", "\\u007f")
