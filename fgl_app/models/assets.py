"""Models installed with the package."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlparse

DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Classes of the built-in digits; the embedded generator draws no others."""


def asset(name: str, marker: str) -> Path:
    """Return the folder of an embedded model: ``fgl_app/assets/NAME``, which contains the file ``marker``.

    Flower's app bundle has no binary files and shadows the installed package, so the folder is found through
    the installed distribution and not relative to this module.

    Raises
    ------
    FileNotFoundError
        If fgl-app is not installed in this environment, or its weights are missing.
    """
    try:
        installed = distribution("fgl-app")
    except PackageNotFoundError:
        raise FileNotFoundError(
            "fgl-app is not installed in this environment; install its wheel or checkout with pip, "
            "since the embedded models are found through the installation"
        ) from None
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        root = Path(unquote(urlparse(origin["url"]).path))
    else:
        root = Path(str(installed.locate_file("")))
    folder = root / "fgl_app" / "assets" / name
    if not (folder / marker).is_file():
        raise FileNotFoundError(f"an embedded model is missing: no {marker} in {folder}")
    return folder
