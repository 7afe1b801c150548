"""The folder of a run: its config, its events as they happen, its summary."""

from __future__ import annotations

import fcntl
import json
import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Self

from fgl_app.files import write_atomically
from fgl_app.metrics.specs import METRICS
from fgl_app.progress import log

_DISTRIBUTIONS = ("fgl-app", "flwr", "torch", "diffusers", "transformers", "datasets")
# A reader meets the outcome first and the long tables last.
_FIRST_KEYS = (
    *("status", "error", "strategy", "dataset", "seed", "num_clients", "rounds"),
    *METRICS,
)
_LAST_KEYS = (
    *("seconds", "uplink_bytes", "downlink_bytes"),
    *("rejected_uploads", "skipped_images", "failures", "versions"),
)


_LOCK = ".lock"
_PLACE = {"output-dir", "run-name", "resume"}


class RunDirectory:
    """The folder of one run; make it with :meth:`create`, or :meth:`reopen` that of a run that died.

    Attributes
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        # Held as long as this process lives: two ServerApps in one folder would undo each other's work.
        self._lock = lock
        self._start = time.monotonic()
        self._phases: dict[str, float] = {}

    @classmethod
    def create(cls, output_dir: Path, name: str, config: Mapping[str, Any]) -> Self:
        """Make ``output_dir/name``, write ``config.json`` and point ``output_dir/latest`` at it.

        Parameters
        ----------
        output_dir : Path
            Folder that holds a folder for each run; made when absent.
        name : str
            Name of the run's folder.
        config : Mapping[str, Any]
            The resolved run config, JSON values.

        Returns
        -------
        RunDirectory
            Its clock starts now.

        Raises
        ------
        OSError
            If the folder holds anything but log files, or cannot be written; the message says which.
        """
        path = output_dir / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _lock(path)
            others = (entry for entry in path.iterdir() if entry.suffix != ".log")
            taken = sorted(entry.name for entry in others if entry.name != _LOCK)
            if not taken:
                write_atomically(path / "config.json", _to_json(config))
        except OSError as error:
            raise OSError(f"the run directory {path} cannot be written: {error}") from error
        if taken:
            raise FileExistsError(
                f"the run directory {path} must be new or hold only *.log files, it holds {taken[0]}"
                + (f" and {len(taken) - 1} more" if len(taken) > 1 else "")
            )
        _point_latest(path)
        return cls(path, lock)

    @classmethod
    def reopen(cls, path: Path, config: Mapping[str, Any]) -> Self:
        """Go on in the folder of a run that did not complete.

        Parameters
        ----------
        path : Path
            The folder.
        config : Mapping[str, Any]
            The resolved run config: the one in ``config.json``, but for the nodes to wait for.

        Returns
        -------
        RunDirectory
            Its clock starts now.

        Raises
        ------
        ValueError
            If it is no run's folder, the run completed, its config was another, or it still runs; says which.
        """
        check_same_config(read_run_config(path), config)
        lock = _lock(path)
        write_atomically(path / "config.json", _to_json(config))
        # What an earlier part of the run said of its end is no longer so.
        (path / "summary.json").unlink(missing_ok=True)
        _point_latest(path)
        return cls(path, lock)

    def close(self) -> None:
        """Let another process go on with the run."""
        (self.path / _LOCK).unlink(missing_ok=True)
        self._lock.close()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds since the start as ``total``, then those of each finished phase."""
        return {"total": self._elapsed(), **{name: round(s, 3) for name, s in self._phases.items()}}

    def log(self, event: Mapping[str, Any]) -> None:
        """Append an event to ``metrics.jsonl``, on disk when this returns.

        Parameters
        ----------
        event : Mapping[str, Any]
            JSON values; ``time`` (UTC, ISO 8601) and ``elapsed`` (seconds since the start) are put first.
        """
        stamp = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "elapsed": self._elapsed()}
        line = json.dumps(_finite(stamp | dict(event)), ensure_ascii=False, allow_nan=False)
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def drop_rounds_after(self, last: int) -> None:
        """Drop the events of rounds that a resumed run does again, and a line that the end cut short.

        Parameters
        ----------
        last : int
            The last round that counts.
        """
        file = self.path / "metrics.jsonl"
        kept = []
        for line in file.read_text(encoding="utf-8").split("\n") if file.is_file() else ():
            with suppress(ValueError):
                event = json.loads(line)
                if event["event"] != "round" or event["round"] <= last:
                    kept.append(line + "\n")
        write_atomically(file, "".join(kept))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the seconds of a phase and log them, with the error if it raises.

        Parameters
        ----------
        name : str
            The phases of one name add up in :attr:`seconds`. ``total`` is taken.
        """
        assert name != "total", "the phase 'total' would hide the run's total"
        start = time.monotonic()
        outcome: dict[str, str] = {}
        try:
            yield
        except BaseException as error:
            outcome["error"] = f"{type(error).__name__}: {error}"
            raise
        finally:
            seconds = time.monotonic() - start
            self._phases[name] = self._phases.get(name, 0.0) + seconds
            self.log({"event": "phase", "phase": name, "seconds": round(seconds, 3), **outcome})

    def resume_clock(self, seconds: Mapping[str, float]) -> None:
        """Begin from the seconds of an earlier part of the run, as :attr:`seconds` gave them."""
        phases = dict(seconds)
        self._start -= phases.pop("total")
        self._phases = phases

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json`` in one step: a reader sees the old file or the whole new one.

        Parameters
        ----------
        summary : Mapping[str, Any]
            JSON values. The outcome is written first and the tables last, whatever the order given;
            NaN and infinities, which JSON has not, become null.
        """
        middle = sorted(set(summary) - {*_FIRST_KEYS, *_LAST_KEYS})
        order = [key for key in (*_FIRST_KEYS, *middle, *_LAST_KEYS) if key in summary]
        write_atomically(self.path / "summary.json", _to_json({key: summary[key] for key in order}))

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._start, 3)


def read_run_config(path: Path) -> dict[str, Any]:
    """Return the config of a run that did not complete, and so can be resumed.

    Raises
    ------
    ValueError
        If the folder is no run's, or the run completed.
    """
    try:
        config: dict[str, Any] = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not the folder of a run: its config.json cannot be read") from error
    summary: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    if summary.get("status") == "completed":
        raise ValueError(f"the run in {path} completed; there is nothing to resume")
    return config


def check_not_running(path: Path) -> None:
    """Check that no process is at work in a run's folder.

    Raises
    ------
    ValueError
        When one is, or the folder is not this user's to write.
    """
    try:
        if (path / _LOCK).exists():
            _lock(path).close()
    except OSError as error:
        raise ValueError(f"the run in {path} cannot be written: {error.strerror}") from error


def is_running(path: Path) -> bool:
    """Return whether a process of this machine is at work in a run's folder, writing nothing there."""
    try:
        with (path / _LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def check_same_config(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a resumed run is what it was.

    Parameters
    ----------
    before, now : Mapping[str, Any]
        Run configs. The nodes to wait for may change, and their number where no data set is split over them.

    Raises
    ------
    ValueError
        Names the first key that may not differ.
    """
    free = {"min-nodes", "node-timeout"} | (
        {"num-clients"} if before.get("partitioning") == "sites" else set()
    )
    changed = {key for key in before.keys() | now.keys() if before.get(key) != now.get(key)}
    for key in sorted(changed - free - _PLACE):
        raise ValueError(
            f"a resumed run keeps its config, but {key} is {now.get(key)!r} and was {before.get(key)!r}; "
            f"only {', '.join(sorted(free))} may change"
        )


def _lock(path: Path) -> IO[str]:
    file = (path / _LOCK).open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise ValueError(f"the run in {path} still goes on in another process") from error
    return file


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages a result depends on.

    Returns
    -------
    dict[str, str]
        Distribution name to version; those that are not installed are left out.
    """
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _point_latest(path: Path) -> None:
    latest = path.parent / "latest"
    temporary = path.parent / f".latest.{os.getpid()}"
    try:
        temporary.symlink_to(path.name, target_is_directory=True)
        temporary.replace(latest)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        log.info("no link %s to this run: %s", latest, error)


def _to_json(values: Mapping[str, Any]) -> str:
    return json.dumps(_finite(dict(values)), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _finite(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
