"""Starting a process of a federation so that it outlives the command, and reading what it writes."""

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
    """A process, and the part of its log that it wrote itself.

    Attributes
    ----------
    process : subprocess.Popen
        The process.
    log : Path
        Its log file, in which those before it have written too.
    offset : int
        Where its part begins, bytes.
    """

    process: subprocess.Popen[str]
    log: Path
    offset: int

    def output(self) -> str:
        """Return what it has written, without colours."""
        with self.log.open("rb") as file:
            file.seek(self.offset)
            return _ANSI.sub("", file.read().decode("utf-8", errors="replace"))

    def log_tail(self) -> str:
        """Return the log's path and the end of what it has written, to follow what went wrong."""
        lines = [line.strip() for line in self.output().splitlines() if line.strip()]
        return f"; the end of {self.log}:" + "".join(f"\n  {line}" for line in lines[-_QUOTED_LINES:])


def start_process(
    federation: Federation, name: str, where: FlowerEnvironment, command: str, *arguments: str
) -> tuple[Federation, StartedProcess]:
    """Start one of Flower's commands, and write down that it runs.

    Parameters
    ----------
    federation : Federation
        As it is.
    name : str
        Name of the process.
    where : FlowerEnvironment
        Of :meth:`Federation.surroundings`.
    command, *arguments : str
        The command line.

    Returns
    -------
    tuple[Federation, StartedProcess]
        The federation with it, as ``federation.json`` has it; and the process.
    """
    log = federation.log(name)
    with log.open("ab") as file:
        offset = file.tell()
        process = start(where, command, *arguments, stdout=file.fileno())
    created = psutil.Process(process.pid).create_time()
    record = ProcessRecord(name=name, pid=process.pid, create_time=created)
    return federation.with_process(record).save(), StartedProcess(process, log, offset)


def tls_options(federation: Federation) -> tuple[str, ...]:
    """Return the options by which a command trusts the SuperLink."""
    authority = federation.authority
    return ("--root-certificates", str(authority)) if authority else ("--insecure",)
