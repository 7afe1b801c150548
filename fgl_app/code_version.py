"""The version of the running code, by which a server and its clients check that they match."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def code_version() -> str:
    """Return the version of the package and a digest of its Python files.

    Returns
    -------
    str
        For example ``"0.1.0+3f2a9c01"``: the version of the installed distribution, and the digest of the
        files next to this one, since Flower's app bundle shadows the installed files.
    """
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()}\0".encode())
        digest.update(file.read_bytes() + b"\0")
    return f"{metadata.version('fgl-app')}+{digest.hexdigest()[:8]}"
