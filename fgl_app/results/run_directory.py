"""The directory of a run: its config, its events and its summary."""

from __future__ import annotations

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
from fgl_app.results.json_files import read_lines, to_json
from fgl_app.results.resume import LOCK_FILE, check_same_config, lock_run, read_run_config

_DISTRIBUTIONS = ("fgl-app", "flwr", "torch", "diffusers", "transformers", "datasets")
# Readers need the outcome first and the long tables last.
_FIRST_KEYS = ("status", "error", "strategy", "dataset", "seed", "num_clients", "rounds", *METRICS)
_LAST_KEYS = (
    *("seconds", "uplink_bytes", "downlink_bytes"),
    *("rejected_uploads", "skipped_images", "failures", "versions"),
)


class RunDirectory:
    """The directory of one run; use :meth:`create` for a new run and :meth:`reopen` to resume one."""

    def __init__(self, path: Path, lock: IO[str]) -> None:
        self.path = path
        # Held until close(): two ServerApps must not write to one directory.
        self._lock = lock
        self._start = time.monotonic()
        self._phases: dict[str, float] = {}

    @classmethod
    def create(cls, output_dir: Path, name: str, config: Mapping[str, Any]) -> Self:
        """Create ``output_dir/name``, write ``config.json`` and link ``output_dir/latest`` to the directory.

        ``output_dir`` is created when absent; the clock starts now. Raises OSError if the directory contains
        anything but log files or is not writable.
        """
        path = output_dir / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = lock_run(path)
            others = (entry for entry in path.iterdir() if entry.suffix != ".log")
            taken = sorted(entry.name for entry in others if entry.name != LOCK_FILE)
            if not taken:
                write_atomically(path / "config.json", to_json(config))
        except OSError as error:
            raise OSError(f"the run directory {path} cannot be written: {error}") from error
        if taken:
            raise FileExistsError(
                f"the run directory {path} must be new or hold only *.log files, it holds {taken[0]}"
                + (f" and {len(taken) - 1} more" if len(taken) > 1 else "")
            )
        _link_latest(path)
        return cls(path, lock)

    @classmethod
    def reopen(cls, path: Path, config: Mapping[str, Any]) -> Self:
        """Reopen the directory of a run that did not complete; the clock starts now.

        Only config keys that :func:`check_same_config` allows may have changed. Raises ValueError if another
        key changed, ``path`` is not a run directory, or the run completed or still runs.
        """
        check_same_config(read_run_config(path), config)
        lock = lock_run(path)
        write_atomically(path / "config.json", to_json(config))
        # The summary of the earlier part is no longer valid.
        (path / "summary.json").unlink(missing_ok=True)
        _link_latest(path)
        return cls(path, lock)

    def close(self) -> None:
        """Release the lock, so that another process can resume the run."""
        (self.path / LOCK_FILE).unlink(missing_ok=True)
        self._lock.close()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds since the start as ``total``, then the seconds of each finished phase."""
        return {"total": self._elapsed(), **{name: round(s, 3) for name, s in self._phases.items()}}

    def log(self, event: Mapping[str, Any]) -> None:
        """Append an event to ``metrics.jsonl``, after ``time`` (UTC, ISO 8601) and ``elapsed`` (seconds)."""
        stamp = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "elapsed": self._elapsed()}
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(to_json(stamp | dict(event), indent=None))

    def drop_rounds_after(self, last: int) -> None:
        """Remove the events of rounds after ``last``, which a resumed run repeats, and incomplete lines."""
        file = self.path / "metrics.jsonl"
        kept = [event for event in read_lines(file) if event["event"] != "round" or event["round"] <= last]
        write_atomically(file, "".join(to_json(event, indent=None) for event in kept))

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the duration of a phase and log it, with the error if the phase raises.

        Durations of the same name add up in :attr:`seconds`.
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
        """Continue from the :attr:`seconds` of an earlier part of the run."""
        phases = dict(seconds)
        self._start -= phases.pop("total")
        self._phases = phases

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write ``summary.json`` atomically, with the outcome first and the tables last.

        NaN and infinities become null.
        """
        middle = sorted(set(summary) - {*_FIRST_KEYS, *_LAST_KEYS})
        order = [key for key in (*_FIRST_KEYS, *middle, *_LAST_KEYS) if key in summary]
        write_atomically(self.path / "summary.json", to_json({key: summary[key] for key in order}))

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._start, 3)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed distributions that affect results, by name."""
    found = {"python": platform.python_version()}
    for name in _DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _link_latest(path: Path) -> None:
    latest = path.parent / "latest"
    temporary = path.parent / f".latest.{os.getpid()}"
    try:
        temporary.symlink_to(path.name, target_is_directory=True)
        temporary.replace(latest)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        log.info("the link %s to this run cannot be created: %s", latest, error)
