"""Which code this is, so that a server and its clients can tell whether they run the same."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


@cache
def code_version() -> str:
    """Return the package's version and a digest of the Python files that this process runs.

    Returns
    -------
    str
        Such as ``"0.1.0+3f2a9c01"``. The version is that of the installed distribution, the files are those
        beside this one: Flower's bundle shadows what is installed.
    """
    digest = hashlib.sha256()
    for file in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{file.relative_to(_PACKAGE).as_posix()}\0".encode())
        digest.update(file.read_bytes() + b"\0")
    return f"{metadata.version('fgl-app')}+{digest.hexdigest()[:8]}"
