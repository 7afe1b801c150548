"""Runs of `fgl run` in the background, and their config values."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import datetime

FGL = ["images-per-class=80", "num-inference-steps=4", "synthetic-epochs=2"]
FEDDDPM = [
    *("method=fedddpm", "num-server-rounds=2", "local-epochs=1", "local-pretrain-epochs=1"),
    *("local-pretrain-min-steps=5", "auxiliary-size=60", "server-epochs=1", "sampling-steps=4"),
    *("metric-samples=60", "synthetic-epochs=1", "batch-size=128"),
]
SPLIT = ["dirichlet-alpha=0.5", "device=cpu"]
"""The partition of the federation's data, for simulated clients."""

TIMEOUT = 600.0


class Run:
    """A run in the background."""

    def __init__(self, live, name, *arguments):
        self.folder = live.folder.parent / "outputs" / name
        self._log = live.folder.parent / f"{name}-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "fgl_app", "run", *arguments]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=live.folder.parent, env=os.environ
            )

    def output(self):
        return self._log.read_text()

    def wait_for(self, happened, what):
        """Wait for an event of the run."""
        deadline = time.monotonic() + TIMEOUT
        while not happened():
            assert self._process.poll() is None, f"the run ended before {what}:\n{self.output()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.output()}"
            time.sleep(0.05)

    def stop(self):
        """Stop the run as a batch system does, and return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=TIMEOUT)

    def end(self):
        """Wait for the end of the run, and return the exit code and the summary."""
        code = self._process.wait(timeout=TIMEOUT)
        assert (self.folder / "summary.json").is_file(), self.output()
        return code, json.loads((self.folder / "summary.json").read_text())

    def events(self, kind):
        with suppress(OSError, ValueError):
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
            return [event for event in map(json.loads, lines) if event["event"] == kind]
        return []

    def when(self, kind, **values):
        """Return the time of the last event with these values, seconds since 1970."""
        events = [event for event in self.events(kind) if values.items() <= event.items()]
        return datetime.fromisoformat(events[-1]["time"]).timestamp()

    def rounds(self):
        return [event["round"] for event in self.events("round")]
