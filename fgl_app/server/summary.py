"""The content of a run's ``summary.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fgl_app.config import RunConfig
from fgl_app.results.run_directory import versions
from fgl_app.server.run_state import RunState


def run_summary(
    config: RunConfig,
    state: RunState,
    *,
    num_clients: int,
    seconds: Mapping[str, float],
    skipped_images: Sequence[str] = (),
    error: BaseException | None = None,
) -> dict[str, Any]:
    """Return the summary of a run.

    Parameters
    ----------
    config : RunConfig
        The run's config.
    state : RunState
        The run's state at its end.
    num_clients : int
        Number of connected clients.
    seconds : Mapping[str, float]
        Seconds by phase and in total.
    skipped_images : Sequence[str], default ()
        Images that could not be read.
    error : BaseException or None, default None
        What ended the run; None for a completed run.
    """
    status = {"status": "completed"}
    if error is not None:
        status = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
    return {
        **status,
        "method": config.method,
        "strategy": config.run_label,
        "dataset": config.dataset,
        "seed": config.seed,
        "num_clients": num_clients,
        "rounds": state.last_evaluated,
        **state.results,
        "seconds": dict(seconds),
        "uplink_bytes": _bytes_by_phase(state, "uplink"),
        "downlink_bytes": _bytes_by_phase(state, "downlink"),
        "rejected_uploads": [failure.to_json() for failure in state.rejected],
        "skipped_images": list(skipped_images),
        "failures": [failure.to_json() for failure in state.failures],
        "versions": versions(),
    }


def _bytes_by_phase(state: RunState, direction: str) -> dict[str, int]:
    phases = {phase: counts[direction] for phase, counts in state.traffic.by_phase().items()}
    return {"total": state.traffic.totals()[direction], **phases}
