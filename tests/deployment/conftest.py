"""A federation of real processes with TLS and keys, for all tests of a session."""

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
"""What died, what the run lost by it, and the seconds until it went on: printed after the tests."""


@dataclass(frozen=True)
class LiveFederation:
    """The federation in a folder.

    Attributes
    ----------
    folder : Path
        What ``fgl federation up`` was given.
    """

    folder: Path

    def fgl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run an ``fgl`` command in the directory above the folder."""
        # A proxy that nobody answers: what runs on this machine must not ask it.
        env = os.environ | {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
        command = [sys.executable, "-m", "fgl_app", *arguments]
        cwd = self.folder.parent
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=env)

    def command(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``fgl federation NAME DIR``."""
        return self.fgl("federation", name, str(self.folder), *arguments)

    @property
    def state(self) -> Federation:
        """What ``federation.json`` says now."""
        return read_federation(self.folder)

    def process(self, name: str) -> psutil.Process:
        """Return a process that runs."""
        process = self.state.running(name)
        assert process is not None, f"{name} does not run"
        return process

    def processes(self) -> dict[int, str]:
        """Return the command lines of all living processes that are of this federation, by pid."""
        found = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):
                if process.environ().get(FEDERATION_VARIABLE) == self.state.id:
                    found[process.pid] = " ".join(process.cmdline())
        return found

    def log(self, name: str) -> str:
        """Return all that a process and those before it have written."""
        return self.state.log(name).read_text(encoding="utf-8", errors="replace")


@pytest.fixture(scope="session")
def federation(tmp_path_factory) -> Iterator[LiveFederation]:
    """A federation of three sites that is up; a test that ends some of it brings it up again."""
    # Flower reads the folder's name in options, where a space needs quotes.
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
    """Both methods in simulation, one after the other, while the tests of the federation wait."""

    def simulate() -> dict[str, Run]:
        runs = {}
        for name, arguments in {"fgl": FGL, "fedddpm": FEDDDPM}.items():
            run = Run(federation, f"sim-{name}", f"run-name=sim-{name}", "--clients=3", *SPLIT, *arguments)
            code, _ = run.end()
            assert code == 0, run.said()
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
