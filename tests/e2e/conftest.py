"""Fixtures: a SuperLink for the tests of a module."""

import os
import socket
import sysconfig
from pathlib import Path

import psutil
import pytest

BIN = Path(sysconfig.get_path("scripts"))


@pytest.fixture(scope="module")
def flower_home(tmp_path_factory):
    """Return the environment of a managed SuperLink; the SuperLink is stopped after the module."""
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(str(probe.getsockname()[1]))
    home = tmp_path_factory.mktemp("flwr")
    yield os.environ | {
        "FLWR_HOME": str(home),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": ports[0],
        "FLWR_LOCAL_CONTROL_API_PORT": ports[1],
        # Use the packages under test and fetch no others for the run.
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }
    started = [p for p in psutil.process_iter() if _has_home(p, str(home))]
    family = {child for process in started for child in process.children(recursive=True)} | set(started)
    for process in family:
        process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        process.kill()


def _has_home(process, home):
    try:
        return process.environ().get("FLWR_HOME") == home
    except (psutil.Error, OSError):
        return False
