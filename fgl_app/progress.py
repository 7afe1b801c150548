"""The log of a run: plain lines on stdout, which the command line reads back.

Flower copies a ServerApp's stdout to the log of the run; the prefix ``fgl: `` distinguishes the app's lines.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PREFIX = "fgl: "
INTERVAL = 2.0

_LINE = re.compile(
    r"fgl: (?P<description>\S.*?)  (?P<done>\d+)/(?P<total>\d+) (?P<unit>\S+)  (?P<rate>[\d.]+) \S+/s"
    r"  (?:(?P<left>[\d:]+) left|in (?P<elapsed>[\d:]+))"
)


class _StdoutHandler(logging.Handler):
    """Write each record to ``sys.stdout`` with one call, or pass it to ``show``.

    Flower replaces ``sys.stdout.write`` during a run, so the stream is looked up for every record.
    """

    show: Callable[[str], None] | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if self.show:
                self.show(self.format(record))
                return
            sys.stdout.write(self.format(record) + "\n")
            sys.stdout.flush()
        except Exception:
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        lines = super().format(record).splitlines() or [""]
        return "\n".join(f"{PREFIX}{level}{line}" for line in lines)


log = logging.getLogger("fgl")
_handler = _StdoutHandler()


def log_to_stdout() -> None:
    """Print the log on stdout; further calls have no effect."""
    log.setLevel(logging.INFO)
    log.addHandler(_handler)
    # The root handlers of Flower and Ray would print each line a second time.
    log.propagate = False


@contextmanager
def redirect_log(show: Callable[[str], None]) -> Iterator[None]:
    """Pass the log to a function, line by line, and print it on stdout afterwards."""
    log_to_stdout()
    _handler.show = show
    try:
        yield
    finally:
        _handler.show = None


@dataclass(frozen=True)
class ProgressEvent:
    """A parsed progress line."""

    description: str  # The task; unique among the tasks that run at a time.
    done: int
    total: int
    unit: str  # Name of the items, plural.
    rate: float  # Items per second since the start.
    seconds_left: int | None  # Estimate; None on the last line.
    seconds: int | None  # From start to end; None before the last line.

    @property
    def finished(self) -> bool:
        """Whether this is the last line."""
        return self.seconds is not None


class Progress:
    """Count items and log a line at most every two seconds; see :func:`track`."""

    def __init__(self, total: int, description: str, unit: str) -> None:
        self.total = total
        self.description = description
        self.unit = unit
        self.done = 0
        self._start = self._last = time.monotonic()

    def update(self, n: int = 1) -> None:
        """Count ``n`` more finished items."""
        self.done += n
        now = time.monotonic()
        # `finish` logs the last line, with the total time.
        if 0 < self.done < self.total and now - self._last >= INTERVAL:
            self._last = now
            rate = self.done / (now - self._start)
            self._log(rate, f"{clock((self.total - self.done) / rate)} left")

    def finish(self) -> None:
        """Log the last line."""
        seconds = time.monotonic() - self._start
        self._log(self.done / max(seconds, 1e-3), f"in {clock(seconds)}")

    def _log(self, rate: float, when: str) -> None:
        speed = f"{rate:.1f}" if rate >= 10 else f"{rate:.2f}"
        log.info(f"{self.description}  {self.done}/{self.total} {self.unit}  {speed} {self.unit}/s  {when}")


@contextmanager
def track(total: int, description: str, unit: str) -> Iterator[Progress]:
    """Log the progress of a task: a line at most every two seconds, and one at the end.

    Parameters
    ----------
    total : int
        Number of items.
    description : str
        The task, such as ``"synthesizing"``.
    unit : str
        Name of the items: one word, plural.

    Yields
    ------
    Progress
        Call ``update(n)`` after every ``n`` items. If the task raises, there is no last line.

    Examples
    --------
    >>> with track(len(batches), "training", "batches") as progress:
    ...     for batch in batches:
    ...         step(batch)
    ...         progress.update()
    """
    assert unit.split() == [unit], f"unit must be one word, got {unit!r}"
    assert "  " not in description, f"description must not have double spaces, got {description!r}"
    progress = Progress(total, description, unit)
    yield progress
    progress.finish()


def parse(line: str) -> ProgressEvent | None:
    """Parse a progress line; return None for any other line of the log."""
    match = _LINE.fullmatch(line.strip())
    if match is None:
        return None
    return ProgressEvent(
        description=match["description"],
        done=int(match["done"]),
        total=int(match["total"]),
        unit=match["unit"],
        rate=float(match["rate"]),
        seconds_left=_seconds(match["left"]),
        seconds=_seconds(match["elapsed"]),
    )


def clock(seconds: float) -> str:
    """Return a duration as minutes and seconds, such as ``"0:38"``, or with hours, such as ``"1:02:03"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _seconds(clock: str | None) -> int | None:
    if clock is None:
        return None
    hours, minutes, seconds = [0, 0, *map(int, clock.split(":"))][-3:]
    return 3600 * hours + 60 * minutes + seconds
