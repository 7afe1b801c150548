"""The launcher against real Flower: a ServerApp that does what `negative-prompt` says."""

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

from fgl_app.progress import log, track

app = ServerApp()

@app.main()
def main(grid, context):
    config = context.run_config
    folder = Path(config["output-dir"]) / config["run-name"]
    log.info(f"in {os.getcwd()}")
    while len(list(grid.get_node_ids())) < config["num-clients"]:
        time.sleep(0.1)
    with track(2, "counting", "steps") as progress:
        progress.update(2)
    log.warning("something to know")
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

# Runs the command's own code on the app above in place of the real one.
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


@pytest.fixture
def command(tmp_path):
    """Return the arguments that run the app with a given behaviour."""
    app = stage_app(tmp_path / "app")
    (app / "fgl_app" / "server_app.py").write_text(SERVER_APP)
    (app / "fgl_app" / "client_app.py").write_text(CLIENT_APP)
    output_dir = tmp_path / "out"
    output_dir.mkdir()
    return lambda behaviour: [sys.executable, "-c", COMMAND, str(app), str(output_dir), behaviour]


@pytest.fixture
def place(monkeypatch):
    """Give the launcher a folder for temporary files; nothing may be left there, no process may be left."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        # A proxy that nobody answers: what runs on this machine must not ask it.
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        before = {process.pid for process in psutil.process_iter()}
        yield Path(folder)
        assert list(Path(folder).iterdir()) == []
        assert [line for line in _command_lines(before) if folder in line] == []


def _command_lines(but_not):
    for process in psutil.process_iter():
        if process.pid not in but_not:
            with suppress(psutil.Error):
                yield " ".join([*process.cmdline(), *process.environ().values()])


@pytest.mark.slow
def test_a_completed_run_ends_with_its_result_and_its_place(command, place, tmp_path):
    done = subprocess.run(command("done"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "out" / "it"
    lines = done.stdout.splitlines()
    assert lines[-1] == str(folder)
    assert any(line.split() == ["accuracy", "87.5", "%"] for line in lines)
    assert "warning: something to know" in lines
    assert any(line.startswith("counting  2/2 steps") for line in lines)
    # The run's directory is neither the user's nor one with a package of the app's name.
    assert any(line.startswith(f"in {place}/fgl-") for line in lines)
    assert not any("INFO" in line or "Traceback" in line for line in lines)
    assert "Starting Flower Simulation" in (folder / "flower.log").read_text()
    assert "Starting Flower SuperLink" in (folder / "superlink.log").read_text()


@pytest.mark.slow
def test_a_failed_run_exits_1_with_the_reason(command, place, tmp_path):
    done = subprocess.run(command("raise"), capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Error: the run failed: no good reply from 3 of 3 nodes" in done.stderr.splitlines()
    assert str(tmp_path / "out" / "it" / "flower.log") in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_an_interrupt_takes_everything_down(command, place):
    # A job in a shell's background ignores interrupts, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command("wait"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    while process.stdout.readline().strip() != "waiting":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("Error: interrupted;")
