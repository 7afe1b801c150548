"""The end of processes that belong together, wherever Flower and Ray have put them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psutil  # type: ignore[import-untyped]

END_SECONDS = 5.0


def is_alive(process: psutil.Process) -> bool:
    """Return whether a process runs: one that has ended but was not waited for does not."""
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def terminate_process_group(
    variable: str, value: str, *leaders: Iterable[psutil.Process], seconds: float = END_SECONDS
) -> None:
    """End processes in order, and then all that were started in the same surroundings.

    Parameters
    ----------
    variable, value : str
        A variable that the environment of all of them has, and of nobody else's session.
    *leaders : Iterable[psutil.Process]
        Groups that are asked to end, one group after the other. Who has not ended in its time, and whoever
        else is of the family, is killed.
    seconds : float, default 5.0
        Time that each group has to end, and the rest of the family after them.
    """
    # A second Ctrl-C must not leave half of them behind.
    with _without_interrupts():
        processes = process_group(variable, value)
        for group in map(list, leaders):
            for process in group:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            _wait(group, seconds)
        _wait(processes, seconds)
        # Those seen at first are not found again by an environment that nobody alive has any more.
        left = {*processes, *process_group(variable, value)}
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # A killed process is there a moment longer.
        _wait(left, seconds)


def process_group(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes that have a variable in their environment, and those of their sessions.

    Flower detaches its parts into sessions of their own, so one process group does not hold them all.
    Ray's workers overwrite their environment and may have lost their parent, but stay in their session.
    """
    everyone = list(psutil.process_iter())
    sessions = set()
    for process in everyone:
        with suppress(psutil.Error, ProcessLookupError):
            if process.environ().get(variable) == value:
                sessions.add(os.getsid(process.pid))
    # The launcher's own session is the user's: it holds more than what the launcher started.
    return [process for process in everyone if _session(process.pid) in sessions - {os.getsid(0)}]


def _wait(processes: Iterable[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


@contextmanager
def _without_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
