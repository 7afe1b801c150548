"""`fgl federation`: a whole federation on this machine."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgl_app.cli.options import (
    FAILED,
    INTERRUPTED,
    ConfigOption,
    PresetOption,
    exit_on_config_error,
    handle_termination_signals,
)

if TYPE_CHECKING:
    from fgl_app.federation.state import Federation

DEFAULT_FOLDER = "federation"

_ASSIGNMENT = re.compile(r"[\w-]*=")

federation = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""
A real federation on this machine: Flower's own processes, with TLS and keys.

Where `fgl run` simulates clients in one process, here a SuperLink, a SuperExec for the ServerApp and a \
SuperNode for each site run as they would on machines of their own.

[bold]Start here:[/bold]

  fgl federation up

  fgl run --federation federation

  fgl federation down
""",
)

UP_HELP = """
Start a federation, or what does not run of it.

The first time, everything is made in DIR: keys and certificates, and for each site its own part of the \
config's training images. After that the same command brings back what has ended, with the same keys and \
data. The processes outlive the command; [bold]fgl federation down[/bold] ends them.

[bold]KEY=VALUE[/bold], --preset and --config choose the data: dataset, partitioning, dirichlet-alpha, seed \
and what else decides which images a site holds. Other keys are for `fgl run`.

[bold]Examples:[/bold]

  fgl federation up

  fgl federation up hospitals --sites 5 dirichlet-alpha=0.5

The exit code is 0 when all sites are online, 1 when something did not start, 2 for bad input.
"""

FolderArgument = Annotated[Path, typer.Argument(metavar="[DIR]", help="The federation's folder.")]


@federation.command(help=UP_HELP)
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
        typer.Option(min=2, metavar="N", help="How many sites. \\[default: key num-clients, else 3]"),
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Without TLS and keys: whoever reaches it can join.")
    ] = False,
    preset: PresetOption = None,
    config: ConfigOption = None,
) -> None:
    """Start a federation; the help text is UP_HELP."""
    from fgl_app.cli.console import print_error
    from fgl_app.config.presets import preset_file
    from fgl_app.launch.flower import LaunchError
    from fgl_app.launch.plan import merge_config_sources

    with exit_on_config_error():
        folder, overrides = split_arguments(arguments or [])
        files = [*map(preset_file, preset or ()), *([config] if config else ())]
        known = plan(folder, merge_config_sources(files, overrides), sites, insecure=insecure)
    handle_termination_signals()
    try:
        _start_and_report(known, folder)
    except (LaunchError, OSError) as error:
        print_error(str(error))
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        print_error(
            f"interrupted; `fgl federation up {folder}` goes on, `fgl federation down {folder}` ends it"
        )
        raise typer.Exit(INTERRUPTED) from None


@federation.command()
def status(folder: FolderArgument = Path(DEFAULT_FOLDER)) -> None:
    """Show which processes run, and which sites the SuperLink counts as online.

    The exit code is 0 when all run and all sites are online, else 1; 2 when there is no federation in DIR.
    """
    from fgl_app.cli.federation_status import observe, print_report
    from fgl_app.federation.state import read_federation

    with exit_on_config_error():
        known = read_federation(folder)
    rows = observe(known)
    print_report(known, rows)
    raise typer.Exit(0 if all(row.is_ok for row in rows) else FAILED)


@federation.command()
def down(folder: FolderArgument = Path(DEFAULT_FOLDER)) -> None:
    """End a federation's processes; its data, keys, logs and the SuperLink's memory stay.

    The exit code is 0 also when nothing ran; 2 when there is no federation in DIR.
    """
    from fgl_app.federation.lifecycle import stop_federation
    from fgl_app.federation.state import read_federation

    with exit_on_config_error():
        known = read_federation(folder)
    ran = [name for name in known.names if known.running(name)]
    stop_federation(known)
    print(f"ended: {', '.join(ran)}" if ran else "nothing was running")


def split_arguments(arguments: Sequence[str]) -> tuple[Path, Sequence[str]]:
    """Tell the federation's folder, which may be left out, from the assignments that follow it."""
    if arguments and not _ASSIGNMENT.match(arguments[0]):
        return Path(arguments[0]), arguments[1:]
    return Path(DEFAULT_FOLDER), arguments


def plan(folder: Path, values: dict[str, Any], sites: int | None, *, insecure: bool) -> Federation:
    """Return the federation that is in a folder, or plan the one that is asked for.

    Parameters
    ----------
    folder : Path
        The federation's.
    values : dict[str, Any]
        The config values given.
    sites : int or None
        How many sites are asked for; None for what is there, else the config, else the default.
    insecure : bool
        Whether TLS and keys are declined.

    Raises
    ------
    ConfigError
        When this cannot be, or is not what is there.
    """
    from fgl_app.config import ConfigError, parse_config
    from fgl_app.federation.preparation import check_data
    from fgl_app.federation.state import DEFAULT_SITES, is_federation, plan_federation
    from fgl_app.launch.plan import absolute_path

    asked = values.get("num-clients", 0)
    if sites is not None and asked not in (0, sites):
        raise ConfigError(f"--sites {sites} and config key 'num-clients' ({asked}) disagree; give one")
    if "dataset" in values:
        values = values | {"dataset": absolute_path(Path.cwd(), values["dataset"])}
    if is_federation(folder):
        return _as_it_is(folder, values, sites or asked, insecure=insecure)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' holds something else already; give a new folder")
    if '"' in str(folder.absolute()):
        raise ConfigError(f"Flower cannot be told of a folder with a double quote, got '{folder}'")
    number = sites or asked or DEFAULT_SITES
    if values.get("domain-column"):
        raise ConfigError(
            "a federation's sites cannot have domains yet; leave out 'domain-column', or use `fgl run`"
        )
    settings = parse_config(values | {"num-clients": number})
    if settings.clients_own_data:
        raise ConfigError(
            "config key 'partitioning' says how the data are split over the sites, got 'sites'; leave it out"
        )
    try:
        check_data(settings, number)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error
    return plan_federation(folder, number, settings, insecure=insecure)


def _as_it_is(folder: Path, values: dict[str, Any], sites: int, *, insecure: bool) -> Federation:
    """Return a federation that is there, if nothing else is asked for."""
    from fgl_app.config import ConfigError, parse_config
    from fgl_app.federation.state import DATA_KEYS, data_config, read_federation

    known = read_federation(folder)
    advice = "give another folder, or leave it out"
    if sites not in (0, len(known.sites)):
        raise ConfigError(f"the federation in '{folder}' has {len(known.sites)} sites, got {sites}; {advice}")
    if insecure and not known.insecure:
        raise ConfigError(f"the federation in '{folder}' has TLS and keys, got --insecure; {advice}")
    chosen = {key: value for key, value in values.items() if key in DATA_KEYS}
    asked = data_config(parse_config(known.data_config | chosen))
    for key, value in known.data_config.items():
        if asked[key] != value:
            raise ConfigError(
                f"the sites in '{folder}' hold data of {key}={value}, got {key}={asked[key]}; {advice}"
            )
    return known


def _start_and_report(known: Federation, folder: Path) -> None:
    from rich.console import Console

    from fgl_app.cli.federation_status import observe, print_report
    from fgl_app.federation.lifecycle import start_federation
    from fgl_app.federation.preparation import prepare_federation

    console = Console(highlight=False, emoji=False)

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    # Its images and keys are nobody else's.
    known.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = start_federation(prepare_federation(known.save(), say), say)
    say("")
    print_report(known, observe(known))
    say(f"\nRun something on it: fgl run --federation {shlex.quote(str(folder))}")
