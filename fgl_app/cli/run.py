"""`fgl run`: start a run, show its log, report how it ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgl_app.cli.options import (
    FAILED,
    INTERRUPTED,
    ClientsOption,
    ConfigOption,
    Overrides,
    PresetOption,
    exit_on_config_error,
    handle_termination_signals,
    resolve_options,
)

if TYPE_CHECKING:
    from fgl_app.cli.console import Mode
    from fgl_app.config import RunConfig
    from fgl_app.launch.runner import RunOutcome

# Modification times have a coarse resolution on some file systems.
CLOCK_SECONDS = 2.0

RUN_HELP = """
Run a federation and report the result.

Starts Flower with simulated clients on this machine or, with --federation, on the sites of a federation. \
Shows the progress, then the accuracy, the traffic and the run's folder, which holds summary.json, \
report.html, plots, models and logs.

[bold]KEY=VALUE[/bold] sets a config key for this run and can be repeated. [bold]fgl config[/bold] lists the \
keys. These values win over --config, and --config wins over --preset. Text needs no extra quotes \
(dataset=digits); quote the whole argument if it contains spaces: 'prompt-template=a photo of {label}'.

[bold]Examples:[/bold]

  fgl run

  fgl run --clients 10 dirichlet-alpha=0.1 seed=1

  fgl run method=classifier inner-strategy=fedavg num-server-rounds=20

  fgl run --config my-experiment.toml images-per-class=1000

  fgl run --federation federation

  fgl run --resume outputs/latest

[bold]--resume[/bold] continues a run that died or failed from its last finished phase or round. The result \
is the same as without the interruption. Give --federation again if the run was on a federation.

The exit code is 0 only if the run completed, 1 if it failed, 2 for invalid input, 130 if interrupted.
"""


def run(
    overrides: Overrides = None,
    *,
    presets: PresetOption = None,
    config_file: ConfigOption = None,
    clients: ClientsOption = None,
    gpus_per_client: Annotated[
        float | None,
        typer.Option(min=0, metavar="SHARE", help="GPUs per simulated client. \\[default: an even share]"),
    ] = None,
    federation_folder: Annotated[
        Path | None,
        typer.Option(
            "--federation",
            metavar="DIR",
            help="Run on the sites of `fgl federation up DIR` instead of simulated clients.",
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Continue the run in this folder, which died or failed."),
    ] = None,
    stream: Annotated[bool, typer.Option("--stream", help="Show Flower's full log.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only the result.")] = False,
) -> None:
    """Run a federation; the help text is RUN_HELP."""
    from fgl_app import preflight
    from fgl_app.cli.console import Mode
    from fgl_app.config import ConfigError
    from fgl_app.federation.state import read_federation
    from fgl_app.launch.app_bundle import stage_app
    from fgl_app.launch.config_sources import check_resume_config, load_resume_config

    with exit_on_config_error():
        if stream and quiet:
            raise ConfigError("--stream and --quiet exclude each other; give only one")
        federation = read_federation(federation_folder) if federation_folder else None
        if resume:
            if presets or config_file or clients:
                raise ConfigError("--resume keeps the run's config: no --preset, --config or --clients")
            base = load_resume_config(resume)
            config = resolve_options(None, None, overrides, base=base)
            check_resume_config(base, config)
        else:
            base = federation.run_config() if federation else {}
            config = resolve_options(presets, config_file, overrides, clients, base)
        if config.clients_own_data and not federation:
            raise ConfigError(
                "partitioning 'sites' needs --federation DIR: simulated clients have no data of their own"
            )
        preflight.check(config)
    mode = Mode.RAW if stream else Mode.QUIET if quiet else Mode.READABLE
    target = RunTarget(gpus_per_client, federation.home if federation else None)
    raise typer.Exit(execute(config, target, mode, stage_app))


@dataclass(frozen=True)
class RunTarget:
    """Where the clients of a run are.

    ``home`` is an FLWR_HOME with the connection "fgl" to a SuperLink that has SuperNodes.
    """

    gpus_per_client: float | None = None  # For simulated clients; None for an even share.
    home: Path | None = None  # None simulates the clients.


def execute(config: RunConfig, target: RunTarget, mode: Mode, stage: Callable[[Path], Path]) -> int:
    """Run a Flower app, show its log, print the result and return the exit code.

    The config has the number of clients, and a run directory that exists only if the run is resumed.
    ``stage`` writes the app to a new folder and returns the app's directory.
    """
    from fgl_app.cli.console import Display, print_error
    from fgl_app.launch.flower import LaunchError

    folder = Path(config.output_dir) / config.run_name
    folder.mkdir(exist_ok=config.resume)
    started = time.time()
    handle_termination_signals()
    try:
        with Display(mode) as display:
            display.announce(f"starting Flower with {config.num_clients} clients, run {config.run_name}")
            outcome = _launch(config, target, folder, stage, display.show)
        summary = _read_summary(folder, started)
        reason = failure_reason(outcome, summary)
        if not reason:
            display.show_result(summary, folder)
            return 0
    except LaunchError as error:
        reason = str(error)
    except KeyboardInterrupt:
        files = "logs and results so far" if (folder / "config.json").is_file() else "logs"
        print_error(f"interrupted; the {files} are in {folder}")
        _print_resume_hint(config, folder)
        return INTERRUPTED
    print_error(f"the run failed: {reason}")
    print_error(f"the logs are {' and '.join(map(str, sorted(folder.glob('*.log'))))}")
    _print_resume_hint(config, folder)
    return FAILED


def _launch(
    config: RunConfig,
    target: RunTarget,
    folder: Path,
    stage: Callable[[Path], Path],
    show: Callable[[str], None],
) -> RunOutcome:
    from fgl_app.launch.resources import Machine, federation_config
    from fgl_app.launch.runner import run_on, simulate

    if target.home:
        return run_on(target.home, stage, config.to_run_config(), folder, show)
    share = target.gpus_per_client
    if share is None and config.device in ("cpu", "mps"):
        share = 0.0
    federation = federation_config(config.num_clients, Machine.detect(), share)
    return simulate(stage, config.to_run_config(), federation, folder, show)


def _print_resume_hint(config: RunConfig, folder: Path) -> None:
    from fgl_app.cli.console import print_error
    from fgl_app.results.resume import read_run_config

    with suppress(ValueError):
        # Raises ValueError for a run that cannot be resumed.
        read_run_config(folder)
        if config.can_resume:
            print_error(f"continue this run with `fgl run --resume {folder}`", label="Hint")


def failure_reason(outcome: RunOutcome, summary: Mapping[str, Any]) -> str:
    """Return why a run failed: the app's reason if there is one, else Flower's.

    ``summary`` is empty without a ``summary.json``. The reason is empty if the run completed.
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
    """Return the summary of a run; empty if it is from before this start of a resumed run."""
    file = folder / "summary.json"
    try:
        if file.stat().st_mtime < since - CLOCK_SECONDS:
            return {}
        summary: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return summary
