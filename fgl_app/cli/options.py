"""What the commands of `fgl` have in common: exit codes, options, how they end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130

PresetOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="Start from what `fgl presets` lists; given again, the later wins."),
]
ConfigOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A TOML file of config keys; it wins over presets.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Config values for this run.")
]


@contextmanager
def exit_on_config_error() -> Iterator[None]:
    """End the command with a sentence and its exit code when the config is bad."""
    from fgl_app.cli.console import print_error
    from fgl_app.config import ConfigError

    try:
        yield
    except ConfigError as error:
        print_error(str(error))
        raise typer.Exit(BAD_INPUT) from None


def handle_termination_signals() -> None:
    """Have a request to end, as from a batch system, take everything down as Ctrl-C does."""
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # Under nohup the signal is ignored, and stays so.
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
