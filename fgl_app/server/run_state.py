"""The state of a run on the server, saved so that a run that died can resume."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.strategies.exchange import ClientFailure
from fgl_app.strategies.state import read_state, write_state

CHECKPOINT, AUXILIARY = "checkpoint.safetensors", "auxiliary.safetensors"
"""Files in the folder of an unfinished run: the strategy's state, and FedDDPM's auxiliary set."""
_FILE = "session.safetensors"


@dataclass
class RunState:
    """What a run has produced so far, except the strategy's own state.

    Parameters
    ----------
    token : str
        By which clients recognize the run, also when it is resumed: Flower then gives it another id.
    curve : list[tuple[int, float]]
        Each evaluated round and its primary metric.
    samples : dict[int, ndarray]
        One sample of each class by round, uint8, shape (classes, H, W) or (classes, H, W, 3).
    results : dict[str, Any]
        Entries of the summary.
    traffic : TrafficLedger
        Bytes and messages by phase.
    rejected, failures : list[ClientFailure]
        Replies that broke a rule; replies that were errors or did not come.
    seconds : dict[str, float]
        Seconds by phase and in total, of the earlier parts of a resumed run.
    """

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    curve: list[tuple[int, float]] = field(default_factory=list)
    samples: dict[int, np.ndarray] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    traffic: TrafficLedger = field(default_factory=TrafficLedger)
    rejected: list[ClientFailure] = field(default_factory=list)
    failures: list[ClientFailure] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def last_evaluated(self) -> int:
        """The last evaluated round; 0 before the first."""
        return self.curve[-1][0] if self.curve else 0

    def save(self, folder: Path, seconds: Mapping[str, float]) -> None:
        """Write the state to a run's folder, with the seconds so far."""
        state = {
            "token": self.token,
            "curve": self.curve,
            "samples": self.samples,
            "results": self.results,
            "traffic": self.traffic.by_phase(),
            "rejected": [failure.to_json() for failure in self.rejected],
            "failures": [failure.to_json() for failure in self.failures],
            "seconds": dict(seconds),
        }
        write_state(state, folder / _FILE)

    @classmethod
    def load(cls, folder: Path) -> RunState:
        """Return the state from which the run in a folder resumes.

        Without a checkpoint of its strategy the run starts from the beginning, under the same token: clients
        may have kept their own state.
        """
        saved = read_state(folder / _FILE) if (folder / _FILE).is_file() else {}
        if not (folder / CHECKPOINT).is_file():
            (folder / AUXILIARY).unlink(missing_ok=True)
            saved = {name: value for name, value in saved.items() if name == "token"}
        if "traffic" in saved:
            saved["traffic"] = TrafficLedger(saved["traffic"])
        for name in {"rejected", "failures"} & saved.keys():
            saved[name] = [ClientFailure(**failure) for failure in saved[name]]
        return cls(**saved)


def delete_state_files(folder: Path) -> None:
    """Delete the files that only an unfinished run needs."""
    for name in (CHECKPOINT, AUXILIARY, _FILE):
        (folder / name).unlink(missing_ok=True)
