"""Which processes belong to a federation and are stopped with it."""

import os
import subprocess

import psutil
import pytest

from fgl_app.federation.lifecycle import stop_federation
from fgl_app.federation.planning import plan_federation
from fgl_app.federation.state import FEDERATION_VARIABLE, ProcessRecord, read_federation
from tests.federation.conftest import IID


@pytest.fixture
def sleeper():
    """Return a function that starts a process in a session of its own."""
    started = []

    def start(**variables):
        process = subprocess.Popen(
            ["sleep", "600"], start_new_session=True, env={"PATH": os.defpath, **variables}
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def record(name, process, seconds=0.0):
    created = psutil.Process(process.pid).create_time() + seconds
    return ProcessRecord(name=name, pid=process.pid, create_time=created)


def test_a_later_process_with_the_same_id_is_not_the_recorded_one(sleeper):
    process = sleeper()
    assert record("site-0", process).find() == psutil.Process(process.pid)
    assert record("site-0", process, seconds=-60).find() is None
    process.kill()
    # A zombie until the parent waits for it.
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert record("site-0", process).find() is None


def test_only_the_processes_of_a_federation_are_stopped(tmp_path, sleeper):
    federation = plan_federation(tmp_path, 2, IID, insecure=True)
    recorded, detached = (sleeper(**{FEDERATION_VARIABLE: federation.id}) for _ in range(2))
    # A user's shell with the federation's home, and a process with the id of a dead one.
    shell, reused = sleeper(FLWR_HOME=str(federation.home)), sleeper()
    federation = federation.with_process(record("superlink", recorded))
    federation = federation.with_process(record("site-0", reused, seconds=-60))
    federation = stop_federation(federation.save())
    assert [recorded.wait(5), detached.wait(5)] == [-15, -15]
    assert [shell.poll(), reused.poll()] == [None, None]
    assert federation.processes == ()
    assert read_federation(tmp_path) == federation
    assert stop_federation(federation) == federation
