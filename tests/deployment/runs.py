"""Runs of `fgl run` in the background, and what is run."""

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
"""How the federation's sites got their data, and how simulated clients get the same."""

PATIENCE = 240.0


class Run:
    """A run that goes on in the background."""

    def __init__(self, live, name, *arguments):
        self.folder = live.folder.parent / "outputs" / name
        self._log = live.folder.parent / f"{name}-{time.monotonic_ns()}.log"
        command = [sys.executable, "-m", "fgl_app", "run", *arguments]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=live.folder.parent, env=os.environ
            )

    def said(self):
        return self._log.read_text()

    def wait_for(self, happened, what):
        """Wait until something has happened in the run."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert self._process.poll() is None, f"the run ended before {what}:\n{self.said()}"
            assert time.monotonic() < deadline, f"no {what}:\n{self.said()}"
            time.sleep(0.05)

    def stop(self):
        """Have it end, as a batch system does; return the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(timeout=PATIENCE)

    def end(self):
        """Wait for its end, and return the exit code and the summary."""
        code = self._process.wait(timeout=PATIENCE)
        assert (self.folder / "summary.json").is_file(), self.said()
        return code, json.loads((self.folder / "summary.json").read_text())

    def events(self, kind):
        with suppress(OSError, ValueError):
            lines = (self.folder / "metrics.jsonl").read_text().splitlines()
            return [event for event in map(json.loads, lines) if event["event"] == kind]
        return []

    def when(self, kind, **values):
        """Return when an event was written, seconds since 1970; of several of its kind the last."""
        found = [event for event in self.events(kind) if values.items() <= event.items()]
        return datetime.fromisoformat(found[-1]["time"]).timestamp()

    def rounds(self):
        return [event["round"] for event in self.events("round")]
