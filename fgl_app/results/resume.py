"""Checks before a run is resumed, and the lock on its directory."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from fgl_app.results.json_files import read_object

LOCK_FILE = ".lock"
_LOCATION_KEYS = {"output-dir", "run-name", "resume"}


def read_run_config(path: Path) -> dict[str, Any]:
    """Return the config of a run; raises ValueError if it completed or the folder is not a run directory."""
    try:
        config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a run directory: its config.json cannot be read") from error
    if read_object(path / "summary.json").get("status") == "completed":
        raise ValueError(f"the run in {path} completed; there is nothing to resume")
    return config


def check_same_config(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Validate that a resumed run keeps its config.

    The nodes to wait for may change, and the number of clients when sites own their data. Raises ValueError
    with the first other key that changed.
    """
    free = {"min-nodes", "node-timeout"}
    if before.get("partitioning") == "sites":
        free.add("num-clients")
    changed = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    for key in sorted(changed - free - _LOCATION_KEYS):
        raise ValueError(
            f"a resumed run keeps its config, but {key} is {now.get(key)!r} and was {before.get(key)!r}; "
            f"only {', '.join(sorted(free))} may change"
        )


def lock_run(path: Path) -> IO[str]:
    """Lock a run directory for this process until the returned file is closed.

    Raises ValueError if another process holds the lock, OSError if the lock file cannot be written.
    """
    file = (path / LOCK_FILE).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(f"the run in {path} is still running in another process") from error
    return file


def check_not_running(path: Path) -> None:
    """Raise ValueError if a process writes to a run directory, or if the directory is not writable."""
    try:
        if (path / LOCK_FILE).exists():
            lock_run(path).close()
    except OSError as error:
        raise ValueError(f"the run in {path} cannot be written: {error.strerror}") from error


def is_running(path: Path) -> bool:
    """Return whether a process on this machine writes to a run directory; does not write there itself."""
    try:
        with (path / LOCK_FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)
    return False
