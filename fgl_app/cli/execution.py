"""One run from the command line: start it, show it, say how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fgl_app.cli.console import Display, Mode, print_error
from fgl_app.cli.options import FAILED, INTERRUPTED, handle_termination_signals
from fgl_app.config import RunConfig
from fgl_app.launch.flower import LaunchError
from fgl_app.launch.plan import Machine, federation_config
from fgl_app.launch.runner import RunOutcome, run_on, simulate
from fgl_app.results.resume import read_run_config

# File systems tell times in steps.
CLOCK_SECONDS = 2.0


@dataclass(frozen=True)
class RunTarget:
    """Where a run's clients are.

    Attributes
    ----------
    gpus_per_client : float or None
        Share of a GPU for each simulated client; None for an even share.
    home : Path or None
        FLWR_HOME whose connection "fgl" leads to a SuperLink with SuperNodes; None simulates the clients.
    """

    gpus_per_client: float | None = None
    home: Path | None = None


def execute(config: RunConfig, place: RunTarget, mode: Mode, app_at: Callable[[Path], Path]) -> int:
    """Run a Flower app and report to the user.

    Parameters
    ----------
    config : RunConfig
        With the number of clients, and a run directory that exists only if the run is resumed.
    place : RunTarget
        Where its clients are.
    mode : Mode
        How much of the log is shown.
    app_at : Callable[[Path], Path]
        Lays the app out in a new folder and returns its directory.

    Returns
    -------
    int
        The exit code.
    """
    folder = Path(config.output_dir) / config.run_name
    folder.mkdir(exist_ok=config.resume)
    begun = time.time()
    handle_termination_signals()
    try:
        with Display(mode) as display:
            display.announce(f"starting Flower with {config.num_clients} clients, run {config.run_name}")
            outcome = _launch(config, place, folder, app_at, display.show)
        summary = _read_summary(folder, begun)
        reason = failure_reason(outcome, summary)
        if not reason:
            display.show_result(summary, folder)
            return 0
    except LaunchError as error:
        reason = str(error)
    except KeyboardInterrupt:
        what = "and what was finished are" if (folder / "config.json").is_file() else "of its start are all"
        print_error(f"interrupted; the logs {what} in {folder}")
        _say_how_to_go_on(config, folder)
        return INTERRUPTED
    print_error(f"the run failed: {reason}")
    print_error(f"its logs are {' and '.join(map(str, sorted(folder.glob('*.log'))))}")
    _say_how_to_go_on(config, folder)
    return FAILED


def _launch(
    config: RunConfig,
    place: RunTarget,
    folder: Path,
    app_at: Callable[[Path], Path],
    show: Callable[[str], None],
) -> RunOutcome:
    if place.home:
        return run_on(place.home, app_at, config.to_run_config(), folder, show)
    share = place.gpus_per_client
    if share is None and config.device in ("cpu", "mps"):
        share = 0.0
    federation = federation_config(config.num_clients, Machine.detect(), share)
    return simulate(app_at, config.to_run_config(), federation, folder, show)


def _say_how_to_go_on(config: RunConfig, folder: Path) -> None:
    with suppress(ValueError):
        # Raises for a run that has nothing to go on with.
        read_run_config(folder)
        if config.can_resume:
            print_error(f"`fgl run --resume {folder}` goes on from what was finished", what="Hint")


def failure_reason(outcome: RunOutcome, summary: Mapping[str, Any]) -> str:
    """Say why a run failed, by the app's account or else by Flower's.

    Parameters
    ----------
    outcome : RunOutcome
        What Flower says.
    summary : Mapping[str, Any]
        The content of ``summary.json``; empty when there is none.

    Returns
    -------
    str
        Empty for a run that both call completed.
    """
    if outcome.completed and summary.get("status") == "completed":
        return ""
    if summary.get("error"):
        return str(summary["error"])
    if not outcome.completed:
        details = outcome.details.removeprefix("Simulation failed with exception: ")
        return details or f"Flower ended it as '{outcome.status}'"
    if not summary:
        return "it ended without a summary.json"
    return f"summary.json has the status '{summary.get('status')}'"


def _read_summary(folder: Path, since: float) -> dict[str, Any]:
    """Return a run's summary; one from before, of an earlier part of the run, says nothing of this one."""
    file = folder / "summary.json"
    try:
        if file.stat().st_mtime < since - CLOCK_SECONDS:
            return {}
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary
