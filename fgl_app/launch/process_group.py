"""Ending all processes that Flower and Ray started for a run or a federation."""

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
    """Return whether a process runs; a zombie does not."""
    with suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def terminate_process_group(
    variable: str, value: str, *stages: Iterable[psutil.Process], seconds: float = END_SECONDS
) -> None:
    """Terminate the processes of each stage together, then kill all that remain of the group.

    The environment variable marks the group, see :func:`process_group`. The time limit applies to each
    stage, and to the rest of the group afterwards.
    """
    # A second Ctrl-C must not leave processes behind.
    with _without_interrupts():
        group = process_group(variable, value)
        for stage in map(list, stages):
            for process in stage:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            _wait(stage, seconds)
        _wait(group, seconds)
        # A second search can miss Ray's workers: it finds their session only while a marked process runs.
        remaining = {*group, *process_group(variable, value)}
        for process in remaining:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        # Killed processes take a moment to disappear.
        _wait(remaining, seconds)


def process_group(variable: str, value: str) -> list[psutil.Process]:
    """Return the processes with an environment variable, and all processes of their sessions.

    Flower starts its parts in sessions of their own, so one system process group does not hold them all.
    Ray's workers overwrite their environment and can lose their parent, but stay in their session.
    """
    processes = list(psutil.process_iter())
    sessions = set()
    for process in processes:
        with suppress(psutil.Error, ProcessLookupError):
            if process.environ().get(variable) == value:
                sessions.add(os.getsid(process.pid))
    # The session of this process is the user's and holds other programs.
    return [process for process in processes if _session(process.pid) in sessions - {os.getsid(0)}]


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
