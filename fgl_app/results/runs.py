"""Read run directories: of completed, failed, running and interrupted runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from fgl_app.config.methods import METHODS
from fgl_app.metrics.specs import PRIMARY_METRICS
from fgl_app.metrics.traffic import Direction
from fgl_app.results.json_files import read_lines, read_object
from fgl_app.results.resume import is_running


@dataclass(frozen=True)
class Run:
    """The files of a run; missing values are empty or None."""

    path: Path  # The run directory, with links resolved.
    config: Mapping[str, Any]  # config.json
    summary: Mapping[str, Any]  # summary.json
    events: tuple[Mapping[str, Any], ...]  # metrics.jsonl

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a run directory; raises FileNotFoundError if the folder has no ``config.json``."""
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} is not a run directory: it has no config.json")
        return cls.read_partial(folder)

    @classmethod
    def read_partial(cls, folder: Path) -> Self:
        """Read a run directory that may contain nothing but logs."""
        return cls(
            folder.resolve(),
            read_object(folder / "config.json"),
            read_object(folder / "summary.json"),
            tuple(read_lines(folder / "metrics.jsonl")),
        )

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.path.name

    @property
    def status(self) -> str:
        """One of "completed", "failed", "running" and "unfinished"."""
        return str(self.summary.get("status") or ("running" if is_running(self.path) else "unfinished"))

    @property
    def strategy(self) -> str:
        """The method, or the strategy of a method without a set-up; empty when unknown."""
        method = str(self.config.get("method", ""))
        spec = METHODS.get(method)
        inner = self.config.get("inner-strategy") if spec and not spec.setup_message else None
        return str(self.summary.get("strategy") or inner or method)

    @property
    def dataset(self) -> str:
        """The dataset, for a folder its last path component; empty when unknown."""
        name = str(self.summary.get("dataset") or self.config.get("dataset", ""))
        return Path(name).name if Path(name).is_absolute() else name

    @property
    def num_clients(self) -> int:
        """Number of clients that took part, else the configured number; 0 when unknown."""
        return int(self.summary.get("num_clients") or self.config.get("num-clients") or 0)

    @cached_property
    def rounds(self) -> list[Mapping[str, Any]]:
        """Events of the evaluated rounds."""
        return [event for event in self.events if event.get("event") == "round"]

    @property
    def num_rounds(self) -> int:
        """Number of the last evaluated round; 0 before the first."""
        return int(self.summary.get("rounds") or (self.rounds[-1]["round"] if self.rounds else 0))

    @cached_property
    def results(self) -> Mapping[str, Any]:
        """The summary, or the last round's event when there is no summary."""
        return self.summary or (self.rounds[-1] if self.rounds else {})

    @property
    def primary_metric(self) -> tuple[str, float] | None:
        """Key and last value of the primary metric."""
        for spec in PRIMARY_METRICS:
            if self.results.get(spec.key) is not None:
                return spec.key, float(self.results[spec.key])
        return None

    def curve(self, metric: str, x: Literal["round", "uplink_bytes"] = "round") -> list[tuple[int, float]]:
        """Return a metric by round or by bytes sent so far, without rounds that lack one of the two.

        Rounds before the first sent byte are omitted too: a logarithmic axis has no zero.
        """
        return [(row[x], row[metric]) for row in self.rounds if row.get(x) and row.get(metric) is not None]

    def bytes_by_phase(self, direction: Direction) -> dict[str, int]:
        """Return the bytes of each phase and their ``total``."""
        if self.summary:
            return dict(self.summary.get(f"{direction}_bytes", {}))
        so_far = self.rounds[-1].get(f"{direction}_bytes") if self.rounds else None
        return {} if so_far is None else {"total": so_far}

    @property
    def traffic(self) -> dict[str, dict[str, int]]:
        """Bytes in each direction by phase, the ``total`` last."""
        uplink, downlink = self.bytes_by_phase("uplink"), self.bytes_by_phase("downlink")
        return {
            phase: {"uplink": uplink.get(phase, 0), "downlink": downlink.get(phase, 0)}
            for phase in total_last([*uplink, *downlink])
        }

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of each phase and in ``total``, up to the last event when there is no summary."""
        if self.summary:
            return dict(self.summary.get("seconds", {}))
        seconds: dict[str, float] = {"total": self.events[-1]["elapsed"]} if self.events else {}
        for event in self.events:
            if event.get("event") == "phase":
                seconds[event["phase"]] = seconds.get(event["phase"], 0.0) + event["seconds"]
        return seconds

    @property
    def resumed(self) -> list[tuple[int, datetime]]:
        """Last completed round and time of each resumption."""
        return [
            (int(event["rounds"]), datetime.fromisoformat(event["time"]))
            for event in self.events
            if event.get("event") == "resumed"
        ]

    @property
    def fedavg_bytes(self) -> int | None:
        """Bytes in each direction that FedAvg would send with the same model, clients and rounds.

        Counts only the serialized weights, once per client and round. None when their size is unknown,
        nothing was exchanged or the run is FedAvg itself.
        """
        size = 0 if self.strategy == "fedavg" else int(self.summary.get("model_bytes", 0))
        return size * self.num_clients * self.num_rounds or None

    @property
    def started(self) -> datetime:
        """Start of the run; the directory's modification time when there is no event."""
        if self.events:
            first = self.events[0]
            return datetime.fromisoformat(first["time"]) - timedelta(seconds=first["elapsed"])
        return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)

    @property
    def ended(self) -> datetime | None:
        """Time of the last event."""
        return datetime.fromisoformat(self.events[-1]["time"]) if self.events else None


def total_last(phases: Iterable[str]) -> list[str]:
    """Return each phase once and in order, with the total at the end."""
    return sorted(dict.fromkeys(phases), key=lambda phase: phase == "total")


def find_runs(folder: Path) -> list[Run]:
    """Return the runs in an output directory, the newest last; links, such as ``latest``, are skipped.

    Failed and unfinished runs, and runs that only wrote a log, are included.
    """
    folders = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    runs = [Run.read_partial(entry) for entry in folders if _is_run(entry)]
    return sorted(runs, key=lambda run: (run.started, run.name))


def _is_run(folder: Path) -> bool:
    # Synthetic sets and saved models have a config.json too, but no log and no `method` in the config.
    if any((folder / name).is_file() for name in ("metrics.jsonl", "summary.json", "flower.log")):
        return True
    return "method" in read_object(folder / "config.json")
