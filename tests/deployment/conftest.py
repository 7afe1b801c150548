"""Fixtures: a federation of real processes with TLS and keys, and simulations to compare with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from fgl_app.federation.state import FEDERATION_VARIABLE, Federation, read_federation
from tests.deployment.runs import FEDDDPM, FGL, SPLIT, Run

SITES = 3
FAULTS: list[tuple[str, str, float]] = []
"""Killed process, lost work and seconds until the run continued; printed after the tests."""


@dataclass(frozen=True)
class LiveFederation:
    """The federation in a folder.

    Attributes
    ----------
    folder : Path
        The folder of ``fgl federation up``.
    """

    folder: Path

    def fgl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an ``fgl`` command in the directory above the folder."""
        # Connections on this machine must not use a proxy; this one does not exist.
        env = os.environ | {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
        command = [sys.executable, "-m", "fgl_app", *arguments]
        cwd = self.folder.parent
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``fgl federation NAME DIR``."""
        return self.fgl("federation", name, str(self.folder), *arguments)

    @property
    def state(self) -> Federation:
        """The current content of ``federation.json``."""
        return read_federation(self.folder)

    def process(self, name: str) -> psutil.Process:
        """Return a running process of the federation."""
        process = self.state.running(name)
        assert process is not None, f"{name} does not run"
        return process

    def processes(self) -> dict[int, str]:
        """Return the command lines of all processes of this federation by pid."""
        lines = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if process.environ().get(FEDERATION_VARIABLE) == self.state.id:
                    lines[process.pid] = " ".join(process.cmdline())
        return lines

    def log(self, name: str) -> str:
        """Return the log of a process, with the output of its predecessors."""
        return self.state.log(name).read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="session")
def federation(tmp_path_factory) -> Iterator[LiveFederation]:
    """A running federation of three sites; a test that stops processes starts them again."""
    # Flower parses the folder's name in options, where a space needs quotes.
    live = LiveFederation(tmp_path_factory.mktemp("deployment") / "a federation")
    try:
        up = live.command("up", "--sites", str(SITES), "dirichlet-alpha=0.5")
        assert up.returncode == 0, up.stdout + up.stderr
        yield live
    finally:
        live.command("down")
        assert live.processes() == {}


@pytest.fixture(scope="session", autouse=True)
def simulations(federation) -> Iterator[Future[dict[str, Run]]]:
    """Simulations of both methods, one after the other, in the background of the other tests."""

    def simulate() -> dict[str, Run]:
        runs = {}
        for name, arguments in {"fgl": FGL, "fedddpm": FEDDDPM}.items():
            run = Run(federation, f"sim-{name}", f"run-name=sim-{name}", "--clients=3", *SPLIT, *arguments)
            code, _ = run.end()
            assert code == 0, run.output()
            runs[name] = run
        return runs

    with ThreadPoolExecutor() as pool:
        yield pool.submit(simulate)


@pytest.fixture(scope="session")
def simulated(simulations) -> dict[str, Run]:
    """The finished simulations, by method."""
    return simulations.result()


def pytest_terminal_summary(terminalreporter) -> None:
    """Print the table of docs/deployment.md."""
    for fault, lost, seconds in FAULTS:
        terminalreporter.write_line(f"| {fault} | {lost} | {seconds:.0f} s |")
