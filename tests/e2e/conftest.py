"""Fixtures: a Flower of the test's own."""

import os
import socket
import sysconfig
from pathlib import Path

import psutil
import pytest

BIN = Path(sysconfig.get_path("scripts"))


@pytest.fixture
def flower_home(tmp_path):
    """Environment of a managed SuperLink of the test's own; it is ended afterwards."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
    home = tmp_path / "flwr"
    home.mkdir()
    env = os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": ports[0],
        "FLWR_LOCAL_CONTROL_API_PORT": ports[1],
        # The packages under test, not others fetched for the run.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    yield env
    own = [p for p in psutil.process_iter() if _has(p, str(home))]
    family = {child for process in own for child in process.children(recursive=True)} | set(own)
    for process in family:
        process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        process.kill()


def _has(process, home):
    try:
        return process.environ().get("FLWR_HOME") == home
    except (psutil.Error, OSError):
        return False
