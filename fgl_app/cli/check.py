"""`fgl check`: a table of checks before a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import typer

from fgl_app.cli.options import (
    BAD_INPUT,
    ClientsOption,
    ConfigOption,
    Overrides,
    PresetOption,
    exit_on_config_error,
    resolve_options,
)
from fgl_app.metrics.units import format_bytes


def check(
    overrides: Overrides = None,
    *,
    presets: PresetOption = None,
    config_file: ConfigOption = None,
    clients: ClientsOption = None,
) -> None:
    """Check data, models, device, memory and disk before a run.

    Takes the same values as `fgl run`. The exit code is 0 if all checks pass, else 2.
    """
    from fgl_app.preflight import input_checks

    with exit_on_config_error():
        config = resolve_options(presets, config_file, overrides, clients)
    passed = print_checks(input_checks(config) | machine_checks(Path(config.output_dir)))
    raise typer.Exit(0 if passed else BAD_INPUT)


def print_checks(checks: Mapping[str, Callable[[], str]]) -> bool:
    """Run checks, print a row for each, and return whether all passed.

    A check returns what it found, or raises ValueError or OSError.
    """
    from rich.table import Table
    from rich.text import Text

    from fgl_app.cli.console import plain_console

    table = Table("check", "", "result", box=None, pad_edge=False)
    passed = True
    for name, run_check in checks.items():
        try:
            mark, result = Text("ok", "green"), run_check()
        except (ValueError, OSError) as error:
            mark, result, passed = Text("failed", "bold red"), str(error), False
        table.add_row(name, mark, Text(result))
    plain_console().print(table)
    return passed


def machine_checks(output_dir: Path) -> dict[str, Callable[[], str]]:
    """Return checks of this machine: memory, GPU memory, disk of the output directory."""
    return {"memory": _memory, "GPU": _gpu, "disk": lambda: _disk(output_dir)}


def _memory() -> str:
    import psutil  # type: ignore[import-untyped]

    memory = psutil.virtual_memory()
    return f"{format_bytes(memory.available)} of {format_bytes(memory.total)} free"


def _gpu() -> str:
    import torch

    if not torch.cuda.is_available():
        return "none"
    free, total = torch.cuda.mem_get_info()
    return f"{torch.cuda.get_device_name()}, {format_bytes(free)} of {format_bytes(total)} free"


def _disk(folder: Path) -> str:
    existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
    usage = shutil.disk_usage(existing)
    return f"{format_bytes(usage.free)} of {format_bytes(usage.total)} free for {folder}"
