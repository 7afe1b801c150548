"""Start processes of a federation that outlive the command, and read their output."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import psutil  # type: ignore[import-untyped]

from fgl_app.federation.state import Federation, ProcessRecord
from fgl_app.launch.flower import FlowerEnvironment, start

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_QUOTED_LINES = 4


class StartedProcess(NamedTuple):
    """A process and its part of the log file."""

    process: subprocess.Popen[str]
    log: Path  # Earlier processes of the same name have also written to it.
    offset: int  # Start of this process's part, bytes.

    def output(self) -> str:
        """Return the output of the process so far, without colours."""
        with self.log.open("rb") as file:
            file.seek(self.offset)
            return _ANSI.sub("", file.read().decode("utf-8", errors="replace"))

    def log_tail(self) -> str:
        """Return the log's path and the last lines of the output, for the end of an error message."""
        lines = [line.strip() for line in self.output().splitlines() if line.strip()]
        return f"; the end of {self.log}:" + "".join(f"\n  {line}" for line in lines[-_QUOTED_LINES:])


def start_process(
    federation: Federation, name: str, environment: FlowerEnvironment, command: str, *arguments: str
) -> tuple[Federation, StartedProcess]:
    """Start one of Flower's commands as process ``name``, and record it in ``federation.json``.

    Returns the federation with the new process, and the process.
    """
    log = federation.log(name)
    with log.open("ab") as file:
        offset = file.tell()
        process = start(environment, command, *arguments, stdout=file.fileno())
    created = psutil.Process(process.pid).create_time()
    record = ProcessRecord(name=name, pid=process.pid, create_time=created)
    return federation.with_process(record).save(), StartedProcess(process, log, offset)


def tls_options(federation: Federation) -> tuple[str, ...]:
    """Return the TLS options of a command that connects to the SuperLink."""
    authority = federation.authority
    return ("--root-certificates", str(authority)) if authority else ("--insecure",)
