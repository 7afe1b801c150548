"""Experiments as runs of `fgl run`, each in its own process, and the values of their run directories."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fgl_app.launch.config_sources import resolve_config


def run(name: str, arguments: list[str], out: Path) -> Path:
    """Run an experiment, unless it has completed, and return its run directory."""
    folder = out / name
    file = folder / "summary.json"
    if file.is_file() and summary(folder)["status"] == "completed":
        changed = changed_keys(folder, arguments)
        if changed:
            raise SystemExit(
                f"{folder} was run with other values of {', '.join(changed)}; give another --out"
            )
        return folder
    print(f"{name}: running", flush=True)
    command = [sys.executable, "-m", "fgl_app", "run", "--quiet", f"output-dir={out}", f"run-name={name}"]
    subprocess.run([*command, *arguments], check=True)
    return folder


def changed_keys(folder: Path, arguments: list[str]) -> list[str]:
    """Return the config keys whose values in a run differ from those of a new run."""
    output = [f"output-dir={folder.parent}", f"run-name={folder.name}"]
    config = resolve_config((), [*arguments, *output], None, Path.cwd(), datetime.now(UTC))
    now = config.to_run_config()
    then: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return [key for key, value in then.items() if key in now and now[key] != value]


def summary(folder: Path) -> dict[str, Any]:
    """Return a run's summary."""
    values: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return values


def round_events(folder: Path) -> dict[int, dict[str, Any]]:
    """Return the metrics, bytes and seconds of a run after each round."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    return {event["round"]: event for event in events if event["event"] == "round"}


def spread(values: list[float], scale: float = 1.0, digits: int = 1) -> str:
    """Return mean and standard deviation over seeds as text; only the value if there is one."""
    text = f"{scale * mean(values):.{digits}f}"
    return f"{text} ± {scale * stdev(values):.{digits}f}" if len(values) > 1 else text
