"""`fgl check`: a table of what a run would need, and whether it is there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fgl_app.config import RunConfig
from fgl_app.metrics.units import format_bytes


def print_checks(examinations: Mapping[str, Callable[[], str]]) -> bool:
    """Print a row for each examination, and return whether all went well.

    Parameters
    ----------
    examinations : Mapping[str, Callable[[], str]]
        By name: each says what it found, or raises ValueError or OSError.
    """
    table = Table("what", "", "found", box=None, pad_edge=False)
    good = True
    for name, examine in examinations.items():
        try:
            mark, found = "ok", examine()
        except (ValueError, OSError) as error:
            mark, found, good = "no", str(error), False
        table.add_row(name, Text(mark, style="green" if mark == "ok" else "bold red"), Text(found))
    Console(highlight=False, emoji=False).print(table)
    return good


def resources(config: RunConfig) -> dict[str, Callable[[], str]]:
    """Return examinations of the machine: memory, GPU memory, and disk where the results go."""
    return {"memory": _memory, "GPU": _gpu, "disk": lambda: _disk(Path(config.output_dir))}


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
    there = next(each for each in (folder, *folder.parents) if each.is_dir())
    usage = shutil.disk_usage(there)
    return f"{format_bytes(usage.free)} of {format_bytes(usage.total)} free for {folder}"
