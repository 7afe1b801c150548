"""What the commands of `fgl` share: options, exit codes, error handling."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fgl_app.config import RunConfig

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130

PresetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        help="A preset from `fgl presets`. Can be repeated; later presets win.",
    ),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="A TOML file of config keys; wins over presets."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Config values; win over presets and file."),
]
ClientsOption = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Number of clients. \\[default: key num-clients, else 5]"),
]


def config_files(presets: list[str] | None, config_file: Path | None) -> list[Path]:
    """Return the files of ``--preset`` and ``--config``; later files win."""
    from fgl_app.config.presets import preset_file

    return [*map(preset_file, presets or ()), *([config_file] if config_file else ())]


def resolve_options(
    presets: list[str] | None,
    config_file: Path | None,
    overrides: list[str] | None,
    clients: int | None = None,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the config of a command's options; ``base`` replaces the defaults."""
    from fgl_app.launch.config_sources import resolve_config

    files = config_files(presets, config_file)
    return resolve_config(files, overrides or [], clients, Path.cwd(), datetime.now(UTC), base=base)


@contextmanager
def exit_on_config_error() -> Iterator[None]:
    """Print a config error as one sentence and exit with code 2."""
    from fgl_app.cli.console import print_error
    from fgl_app.config import ConfigError

    try:
        yield
    except ConfigError as error:
        print_error(str(error))
        raise typer.Exit(BAD_INPUT) from None


def handle_termination_signals() -> None:
    """Handle SIGTERM and SIGHUP, which batch systems send, as Ctrl-C."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # Under nohup the signal is ignored and stays ignored.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
