"""`fgl federation`: a federation of real processes on this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgl_app.cli.options import (
    FAILED,
    INTERRUPTED,
    ConfigOption,
    PresetOption,
    config_files,
    exit_on_config_error,
    handle_termination_signals,
)

if TYPE_CHECKING:
    from fgl_app.federation.state import Federation

DEFAULT_FOLDER = "federation"

_ASSIGNMENT = re.compile(r"[\w-]*=")

federation_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
Run a federation of real Flower processes on this machine, with TLS and keys.

`fgl run` simulates clients in one process. A federation runs a SuperLink, a SuperExec for the ServerApp \
and a SuperNode for each site as separate processes, as on separate machines.

[bold]Start here:[/bold]

  fgl federation up

  fgl run --federation federation

  fgl federation down
""",
)

UP_HELP = """
Start a federation, or the processes of it that do not run.

The first call creates DIR with keys, certificates and, for each site, its part of the training images. \
Later calls restart processes that have ended, with the same keys and data. The processes keep running \
after the command; [bold]fgl federation down[/bold] stops them.

[bold]KEY=VALUE[/bold], --preset and --config choose the data: dataset, partitioning, dirichlet-alpha, seed \
and the other keys that decide which images a site holds. Give all other keys to `fgl run`.

[bold]Examples:[/bold]

  fgl federation up

  fgl federation up hospitals --sites 5 dirichlet-alpha=0.5

The exit code is 0 if all sites are online, 1 if something did not start, 2 for invalid input.
"""

FolderArgument = Annotated[Path, typer.Argument(metavar="[DIR]", help="The federation's folder.")]


@federation_app.command(help=UP_HELP)
def up(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[DIR] [KEY=VALUE]...",
            help="The federation's folder \\[default: federation], and config values.",
        ),
    ] = None,
    *,
    sites: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Number of sites. \\[default: key num-clients, else 3]"),
    ] = None,
    insecure: Annotated[
        bool,
        typer.Option("--insecure", help="Without TLS and keys: anyone who reaches the SuperLink can join."),
    ] = False,
    presets: PresetOption = None,
    config_file: ConfigOption = None,
) -> None:
    """Start a federation; the help text is UP_HELP."""
    from fgl_app.cli.console import print_error
    from fgl_app.federation.planning import open_or_plan
    from fgl_app.launch.config_sources import merge_config_sources
    from fgl_app.launch.flower import LaunchError

    with exit_on_config_error():
        folder, overrides = split_arguments(arguments or [])
        values = merge_config_sources(config_files(presets, config_file), overrides)
        federation = open_or_plan(folder, values, sites, insecure=insecure)
    handle_termination_signals()
    try:
        _start_and_report(federation, folder)
    except (LaunchError, OSError) as error:
        print_error(str(error))
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        print_error(
            f"interrupted; `fgl federation up {folder}` continues, `fgl federation down {folder}` stops it"
        )
        raise typer.Exit(INTERRUPTED) from None


@federation_app.command()
def status(folder: FolderArgument = Path(DEFAULT_FOLDER)) -> None:
    """Show which processes run and which sites are online.

    The exit code is 0 if all processes run and all sites are online, else 1; 2 if DIR holds no federation.
    """
    from fgl_app.cli.federation_status import print_status, read_status
    from fgl_app.federation.state import read_federation

    with exit_on_config_error():
        federation = read_federation(folder)
    rows = read_status(federation)
    print_status(federation, rows)
    raise typer.Exit(0 if all(row.is_ok for row in rows) else FAILED)


@federation_app.command()
def down(folder: FolderArgument = Path(DEFAULT_FOLDER)) -> None:
    """Stop the processes of a federation. Its data, keys, logs and the SuperLink's database stay.

    The exit code is 0 also if nothing was running; 2 if DIR holds no federation.
    """
    from fgl_app.federation.lifecycle import stop_federation
    from fgl_app.federation.state import read_federation

    with exit_on_config_error():
        federation = read_federation(folder)
    running = [name for name in federation.names if federation.running(name)]
    stop_federation(federation)
    print(f"stopped: {', '.join(running)}" if running else "nothing was running")


def split_arguments(arguments: Sequence[str]) -> tuple[Path, Sequence[str]]:
    """Return the federation's folder, which is optional, and the ``KEY=VALUE`` arguments after it."""
    if arguments and not _ASSIGNMENT.match(arguments[0]):
        return Path(arguments[0]), arguments[1:]
    return Path(DEFAULT_FOLDER), arguments


def _start_and_report(federation: Federation, folder: Path) -> None:
    from fgl_app.cli.console import plain_console
    from fgl_app.cli.federation_status import print_status, read_status
    from fgl_app.federation.lifecycle import start_federation
    from fgl_app.federation.preparation import prepare_federation

    console = plain_console()

    def notify(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    # The folder holds private images and keys.
    federation.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    federation = start_federation(prepare_federation(federation.save(), notify), notify)
    notify("")
    print_status(federation, read_status(federation))
    notify(f"\nNext: fgl run --federation {shlex.quote(str(folder))}")
