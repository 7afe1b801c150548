"""Reading what a run left behind, whether it completed, failed or was cut short."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from fgl_app.config.methods import METHODS
from fgl_app.metrics.specs import PRIMARY_METRICS
from fgl_app.results.run_directory import is_running


@dataclass(frozen=True)
class Run:
    """The files of a run; what it did not come to write is empty or None.

    Attributes
    ----------
    path : Path
        Its folder, without links.
    config, summary : Mapping[str, Any]
        ``config.json`` and ``summary.json``.
    events : tuple[Mapping[str, Any], ...]
        ``metrics.jsonl``.
    """

    path: Path
    config: Mapping[str, Any]
    summary: Mapping[str, Any]
    events: tuple[Mapping[str, Any], ...]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run's folder.

        Raises
        ------
        FileNotFoundError
            If the folder holds no ``config.json``, so is no run directory.
        """
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is no run directory: it holds no config.json")
        return cls.read_what_is_there(folder)

    @classmethod
    def read_what_is_there(cls, folder: Path) -> Self:
        """Read the folder of a run that may have ended before it wrote anything but logs."""
        return cls(
            folder.resolve(),
            _read_object(folder / "config.json"),
            _read_object(folder / "summary.json"),
            tuple(_read_events(folder / "metrics.jsonl")),
        )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def status(self) -> str:
        """Whether it "completed" or "failed", is "running", or was ended "unfinished"."""
        return str(self.summary.get("status") or ("running" if is_running(self.path) else "unfinished"))

    @property
    def strategy(self) -> str:
        """What ran: the method, or the strategy that ran alone; empty when not known."""
        method = str(self.config.get("method", ""))
        spec = METHODS.get(method)
        alone = self.config.get("inner-strategy") if spec and not spec.setup_message else None
        return str(self.summary.get("strategy") or alone or method)

    @property
    def dataset(self) -> str:
        """The data set; of a folder its last part alone. Empty when not known."""
        name = str(self.summary.get("dataset") or self.config.get("dataset", ""))
        return Path(name).name if Path(name).is_absolute() else name

    @property
    def num_clients(self) -> int:
        """The clients that took part; before that is known those asked for, or 0."""
        return int(self.summary.get("num_clients") or self.config.get("num-clients") or 0)

    @cached_property
    def rounds(self) -> list[Mapping[str, Any]]:
        """The events of the evaluated rounds."""
        return [event for event in self.events if event.get("event") == "round"]

    @property
    def num_rounds(self) -> int:
        """The last evaluated round; 0 before the first."""
        return int(self.summary.get("rounds") or (self.rounds[-1]["round"] if self.rounds else 0))

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """The summary, or of a run without one the last round's metrics."""
        return self.summary or (self.rounds[-1] if self.rounds else {})

    @property
    def primary_metric(self) -> tuple[str, float] | None:
        """The metric that tells how good the model is, with its last value."""
        for spec in PRIMARY_METRICS:
            if self.results.get(spec.key) is not None:
                return spec.key, float(self.results[spec.key])
        return None

    def curve(self, metric: str) -> list[tuple[int, float]]:
        """Return a metric by round, where there is one."""
        return [(row["round"], row[metric]) for row in self.rounds if row.get(metric) is not None]

    def bytes_by_phase(self, way: str) -> dict[str, int]:
        """Return the bytes of each phase and their ``total``; ``way`` is "uplink" or "downlink"."""
        if self.summary:
            return dict(self.summary.get(f"{way}_bytes", {}))
        so_far = self.rounds[-1].get(f"{way}_bytes") if self.rounds else None
        return {} if so_far is None else {"total": so_far}

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each phase and in ``total``; of a run without a summary as far as it came."""
        if self.summary:
            return dict(self.summary.get("seconds", {}))
        seconds: dict[str, float] = {"total": self.events[-1]["elapsed"]} if self.events else {}
        for event in self.events:
            if event.get("event") == "phase":
                seconds[event["phase"]] = seconds.get(event["phase"], 0.0) + event["seconds"]
        return seconds

    @property
    def resumed(self) -> list[tuple[int, datetime]]:
        """After which rounds the run was resumed, and when."""
        return [
            (int(event["rounds"]), datetime.fromisoformat(event["time"]))
            for event in self.events
            if event.get("event") == "resumed"
        ]

    @property
    def fedavg_bytes(self) -> int | None:
        """Bytes each way that as many rounds of FedAvg with the same model and clients would send.

        The model's weights as they are serialized here, once a client and round: nothing else is counted.
        None when the size is not known or nothing was exchanged.
        """
        size = self.summary.get("model_bytes")
        return int(size) * self.num_clients * self.num_rounds or None if size else None

    @property
    def started(self) -> datetime:
        """When the run began; by its folder's time when it wrote no event."""
        if self.events:
            first = self.events[0]
            return datetime.fromisoformat(first["time"]) - timedelta(seconds=first["elapsed"])
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)

    @property
    def ended(self) -> datetime | None:
        """When the last event was written."""
        return datetime.fromisoformat(self.events[-1]["time"]) if self.events else None


def find_runs(folder: Path) -> list[Run]:
    """Return the runs of an outputs folder, the newest last.

    Parameters
    ----------
    folder : Path
        Holds a folder for each run; other folders and links, such as ``latest``, are left out.

    Returns
    -------
    list[Run]
        With those that failed, did not end, or ended before they wrote more than a log.
    """
    folders = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    runs = [Run.read_what_is_there(entry) for entry in folders if _is_run(entry)]
    return sorted(runs, key=lambda run: (run.started, run.name))


def _is_run(folder: Path) -> bool:
    # A synthetic set or a saved model has a config.json too, but no log beside it and no `method` in it.
    if any((folder / name).is_file() for name in ("metrics.jsonl", "summary.json", "flower.log")):
        return True
    return "method" in _read_object(folder / "config.json")


def _read_object(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values, dict):
            return values
    return {}


def _read_events(path: Path) -> list[dict[str, Any]]:
    events = []
    with suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
            # A killed process can leave half a line.
            with suppress(ValueError):
                events.append(json.loads(line))
    return events
