"""The output of `fgl run`: a readable log, progress bars, the result."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from fgl_app import progress
from fgl_app.metrics.specs import KEY_FIGURES
from fgl_app.metrics.units import format_bytes, format_duration
from fgl_app.progress import ProgressEvent

# Seconds between progress lines on outputs that are not a terminal.
PLAIN_INTERVAL = 15.0

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL) *: {2,}(.*)")
_ACTOR = re.compile(r"\(ClientAppActor pid=\d+\) (.*)")
_PYTHON_WARNING = re.compile(r"\S+:\d+: (\w+Warning): (.*)")
# The last line of a traceback: a built-in exception, or any other with its module.
_EXCEPTION = re.compile(r"(?:\w+(?:Error|Exception|Interrupt)|\w+(?:\.\w+)+)(?:: .+)?")
# Lines that occur in every run, or whose content later lines repeat.
_SKIPPED = (
    "default simulated SuperNodes changed",
    "Federated evaluation will be skipped",
    "Manually terminating ClientAppActor",
    "Traceback (most recent call last)",
    "ray::",
    "Exit Code: ",
)
_WRAPPERS = ("ray.exceptions.RayTaskError", "flwr.clientapp.client_app.ClientAppException")
_MINOR_WARNINGS = ("FutureWarning", "DeprecationWarning", "PendingDeprecationWarning")


class Mode(StrEnum):
    """How much of the log is shown."""

    READABLE = "readable"
    RAW = "raw"
    QUIET = "quiet"


@dataclass(frozen=True)
class Line:
    """A line for the user with a style of rich, empty for ordinary lines."""

    text: str
    style: str = ""


class LogReader:
    """Select the lines of Flower's log for the user: the app's own lines, warnings and errors.

    Of a traceback it keeps only the exception, once; the log file has the full traceback.
    """

    def __init__(self) -> None:
        self._in_error = False
        self._last_error = ""

    def read(self, raw: str) -> Line | ProgressEvent | None:
        """Return what to show for a line of ``flwr log``, or None if the line is not for the user."""
        text = _ANSI.sub("", raw).rstrip()
        if actor := _ACTOR.fullmatch(text):
            text = actor[1]
        if text.startswith(progress.PREFIX):
            self._in_error = False
            return progress.parse(text) or _own_line(text.removeprefix(progress.PREFIX))
        if level := _LEVEL.fullmatch(text):
            return self._flower_line(level[1], level[2].strip())
        return self._other_line(text)

    def _flower_line(self, level: str, text: str) -> Line | None:
        self._in_error = level in ("ERROR", "CRITICAL")
        if not text or any(part in text for part in _SKIPPED):
            return None
        if self._in_error:
            return self._error(text)
        return Line(f"warning: {text}", "yellow") if level == "WARNING" else None

    def _other_line(self, text: str) -> Line | None:
        """Parse a line of Ray, a Python warning or a line of a traceback."""
        if text.startswith("(raylet) "):
            return Line(f"warning: {text}", "yellow")
        if warning := _PYTHON_WARNING.fullmatch(text):
            return None if warning[1] in _MINOR_WARNINGS else Line(f"warning: {warning[2]}", "yellow")
        if self._in_error and _EXCEPTION.fullmatch(text) and not text.startswith(_WRAPPERS):
            return self._error(text)
        return None

    def _error(self, text: str) -> Line | None:
        if text == self._last_error:
            return None
        self._last_error = text
        return Line(f"error: {text}", "red")


def _own_line(text: str) -> Line:
    if text.startswith("warning: "):
        return Line(text, "yellow")
    return Line(text, "red" if text.startswith(("error: ", "critical: ")) else "")


class Display:
    """Show the log of a run; use it as a context manager."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.console = plain_console()
        self._reader = LogReader()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} {task.fields[unit]}"),
            TextColumn("{task.fields[speed]}"),
            console=self.console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self.console.is_terminal and self.mode is Mode.READABLE:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars.live.is_started:
            self._bars.stop()

    def show(self, raw: str) -> None:
        """Show a line of the log, depending on the mode."""
        if self.mode is Mode.RAW:
            self.print(Text.from_ansi(raw))
        elif self.mode is Mode.READABLE:
            line = self._reader.read(raw)
            if isinstance(line, ProgressEvent):
                self._show_progress(line)
            elif line:
                self.print(Text(line.text, style=line.style))

    def announce(self, text: str) -> None:
        """Print a line of the launcher, except in quiet mode."""
        if self.mode is not Mode.QUIET:
            self.print(text)

    def show_result(self, summary: Mapping[str, Any], folder: Path) -> None:
        """Print the result, then the paths of the run's folder and report."""
        self.console.print(result_table(summary))
        for path in (folder, folder / "report.html"):
            if path.exists():
                self.print(str(path))

    def print(self, text: str | Text) -> None:
        """Print a line without markup and line breaks."""
        self.console.print(text, markup=False, soft_wrap=True)

    def _show_progress(self, event: ProgressEvent) -> None:
        if event.finished and event.description in self._tasks:
            self._bars.remove_task(self._tasks.pop(event.description))
        if event.finished or not self.console.is_terminal:
            self._print_progress(event)
            return
        if event.description not in self._tasks:
            self._tasks[event.description] = self._bars.add_task(event.description, unit=event.unit, speed="")
        self._bars.update(
            self._tasks[event.description], completed=event.done, total=event.total, speed=_speed(event)
        )

    def _print_progress(self, event: ProgressEvent) -> None:
        now = time.monotonic()
        last = self._printed.get(event.description, -PLAIN_INTERVAL)
        if not event.finished and now - last < PLAIN_INTERVAL:
            return
        self._printed[event.description] = now
        self.print(f"{event.description}  {event.done}/{event.total} {event.unit}  {_speed(event)}")


def _speed(event: ProgressEvent) -> str:
    rate = f"{event.rate:g} {event.unit}/s"
    if event.seconds is not None:
        return f"{rate}  in {progress.clock(event.seconds)}"
    return f"{rate}  {progress.clock(event.seconds_left or 0)} left"


def result_table(summary: Mapping[str, Any]) -> Table:
    """Return the main numbers of a ``summary.json`` as a table of plain text, without missing values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    rows: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
        ("strategy", "strategy", str),
        ("dataset", "dataset", str),
        ("num_clients", "clients", str),
        ("rounds", "rounds", str),
        *((spec.key, spec.title, spec.format) for spec in KEY_FIGURES),
        ("uplink_bytes", "uplink", format_bytes),
        ("downlink_bytes", "downlink", format_bytes),
        ("seconds", "run time", format_duration),
    )
    for key, title, to_text in rows:
        value = summary.get(key)
        if isinstance(value, Mapping):
            value = value.get("total")
        if value is not None:
            table.add_row(title, to_text(value))
    return table


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """Return a console without highlights and emoji codes."""
    return Console(highlight=False, emoji=False, stderr=stderr, width=width)


def print_error(text: str, label: str = "Error") -> None:
    """Print an error on stderr; with another label, a note or hint."""
    style = "red" if label == "Error" else ""
    plain_console(stderr=True).print(Text(f"{label}: {text}", style=style), soft_wrap=True)
