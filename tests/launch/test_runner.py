"""The launcher with real Flower: `negative-prompt` selects what the ServerApp does."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from fgl_app.launch.app_bundle import stage_app

SERVER_APP = """
import json, os, time
from pathlib import Path

import ray
from flwr.serverapp import ServerApp

from fgl_app.progress import log, log_to_stdout, track

app = ServerApp()

@app.main()
def main(grid, context):
    log_to_stdout()
    config = context.run_config
    folder = Path(config["output-dir"]) / config["run-name"]
    log.info(f"in {os.getcwd()}")
    while len(list(grid.get_node_ids())) < config["num-clients"]:
        time.sleep(0.1)
    with track(2, "counting", "steps") as progress:
        progress.update(2)
    log.warning("a warning")
    if config["negative-prompt"] == "raise":
        raise RuntimeError("no good reply from 3 of 3 nodes")
    if config["negative-prompt"] == "wait":
        while not ray.is_initialized():
            time.sleep(0.1)
        log.info("waiting")
        time.sleep(600)
    if config["negative-prompt"] != "silent":
        summary = {"status": "completed", "strategy": "tiny", "accuracy": 0.875, "seconds": {"total": 2.5}}
        (folder / "summary.json").write_text(json.dumps(summary))
"""
CLIENT_APP = "from flwr.clientapp import ClientApp\n\napp = ClientApp()\n"

# Runs the code of `fgl run` on the app above.
COMMAND = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from fgl_app.cli.run import RunTarget, execute
from fgl_app.cli.console import Mode
from fgl_app.launch.config_sources import resolve_config
app, output_dir, behaviour = sys.argv[1:]
overrides = [f"output-dir={output_dir}", "run-name=it", f"negative-prompt={behaviour}"]
config = resolve_config((), overrides, 3, Path.cwd(), datetime.now(timezone.utc))
sys.exit(execute(config, RunTarget(), Mode.READABLE, lambda folder: Path(app)))
"""


@pytest.fixture(scope="module")
def temporary():
    """The launcher's folder for temporary files; at the end no file and no process may remain."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        before = {process.pid for process in psutil.process_iter()}
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []
        assert [line for line in _processes_except(before) if folder in line] == []


def _processes_except(pids):
    for process in psutil.process_iter():
        if process.pid not in pids:
            with suppress(psutil.Error):
                yield " ".join([*process.cmdline(), *process.environ().values()])


@pytest.fixture(scope="module")
def start(temporary, tmp_path_factory):
    """Return a function that starts the app; it returns the process and the run's folder."""
    root = tmp_path_factory.mktemp("launcher")
    app = stage_app(root / "app")
    (app / "fgl_app" / "server_app.py").write_text(SERVER_APP)
    (app / "fgl_app" / "client_app.py").write_text(CLIENT_APP)
    # Connections on this machine must not use a proxy; this one does not exist.
    env = os.environ | {"TMPDIR": str(temporary), "http_proxy": "http://127.0.0.1:9"}

    def start(behaviour):
        output_dir = root / behaviour
        output_dir.mkdir()
        command = [sys.executable, "-c", COMMAND, str(app), str(output_dir), behaviour]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
        )
        return process, output_dir / "it"

    return start


@pytest.fixture(scope="module")
def ended(start):
    """Exit code, stdout, stderr and folder of a completed and a failed run, which run at the same time."""
    runs = {behaviour: start(behaviour) for behaviour in ("done", "raise")}
    outputs = {behaviour: process.communicate() for behaviour, (process, _) in runs.items()}
    return {b: (process.returncode, *outputs[b], folder) for b, (process, folder) in runs.items()}


@pytest.mark.slow
def test_a_completed_run_ends_with_its_result_and_its_folder(ended, temporary):
    code, stdout, stderr, folder = ended["done"]
    assert code == 0, stdout + stderr
    lines = stdout.splitlines()
    assert lines[-1] == str(folder)
    assert any(line.split() == ["accuracy", "87.5", "%"] for line in lines)
    assert "warning: a warning" in lines
    assert any(line.startswith("counting  2/2 steps") for line in lines)
    # The working directory is not the user's and holds no package of the app's name.
    assert any(line.startswith(f"in {temporary}/fgl-") for line in lines)
    assert not any("INFO" in line or "Traceback" in line for line in lines)
    assert "Starting Flower Simulation" in (folder / "flower.log").read_text()
    assert "Starting Flower SuperLink" in (folder / "superlink.log").read_text()


@pytest.mark.slow
def test_a_failed_run_exits_1_with_the_reason(ended):
    code, stdout, stderr, folder = ended["raise"]
    assert code == 1, stdout + stderr
    assert "Error: the run failed: no good reply from 3 of 3 nodes" in stderr.splitlines()
    assert str(folder / "flower.log") in stderr
    assert "Traceback" not in stdout + stderr


@pytest.mark.slow
def test_an_interrupt_stops_everything(start, temporary):
    # A background job of a shell ignores interrupts, and its children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process, _ = start("wait")
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "waiting":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("Error: interrupted;")
    assert list(temporary.iterdir()) == []
