import json
import logging
import subprocess
import sys
import time
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path

import pytest

from fgl_app.files import write_atomically
from fgl_app.results.run_directory import RunDirectory, versions


def read_events(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_create_writes_the_config_and_points_latest_at_the_newest_run(tmp_path):
    first = RunDirectory.create(tmp_path / "new" / "outputs", "first", {"seed": 1})
    latest = tmp_path / "new" / "outputs" / "latest"
    assert first.path == tmp_path / "new" / "outputs" / "first"
    assert json.loads((latest / "config.json").read_text()) == {"seed": 1}
    RunDirectory.create(tmp_path / "new" / "outputs", "second", {"seed": 2})
    assert latest.is_symlink()
    assert latest.readlink() == Path("second")
    assert sorted(entry.name for entry in latest.parent.iterdir()) == ["first", "latest", "second"]


def test_create_accepts_a_folder_that_holds_only_logs(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "superlink.log").touch()
    assert (RunDirectory.create(tmp_path, "run", {}).path / "config.json").is_file()


def test_create_rejects_a_used_folder_and_changes_nothing(tmp_path):
    RunDirectory.create(tmp_path, "run", {"seed": 1})
    RunDirectory.create(tmp_path, "other", {})
    with pytest.raises(OSError, match=r"run directory .*run must be new .* it holds config\.json"):
        RunDirectory.create(tmp_path, "run", {"seed": 2})
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 1}
    assert (tmp_path / "latest").readlink() == Path("other")


def test_create_names_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(OSError, match=r"the run directory .*outputs/run cannot be written: "):
        RunDirectory.create(tmp_path / "outputs", "run", {})


def test_a_link_that_cannot_be_created_is_logged(tmp_path, caplog):
    (tmp_path / "latest").mkdir()
    with caplog.at_level(logging.INFO, logger="fgl"):
        run = RunDirectory.create(tmp_path, "run", {})
    assert "latest to this run cannot be created: " in caplog.text
    assert run.path.is_dir()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "run"]


def test_log_appends_one_json_line_with_time_and_elapsed(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    run.log({"event": "round", "round": 1, "accuracy": 0.5, "loss": float("nan")})
    assert len(read_events(run)) == 1
    run.log({"event": "note", "text": "two\nlines, ünïcode"})
    first, second = read_events(run)
    assert first["accuracy"] == 0.5
    assert first["loss"] is None
    assert second["text"] == "two\nlines, ünïcode"
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert 0 <= first["elapsed"] <= second["elapsed"]


def test_phases_of_one_name_add_up_and_each_is_logged(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    for name in ("train", "evaluate", "train"):
        with run.phase(name):
            time.sleep(0.02)
    events = read_events(run)
    assert [event["phase"] for event in events] == ["train", "evaluate", "train"]
    assert list(run.seconds) == ["total", "train", "evaluate"]
    # Each number is rounded to a millisecond.
    assert run.seconds["train"] == pytest.approx(events[0]["seconds"] + events[2]["seconds"], abs=0.0021)
    assert run.seconds["train"] >= 0.04
    assert run.seconds["total"] >= run.seconds["train"] + run.seconds["evaluate"] - 0.0021


def test_a_phase_that_raises_is_measured_and_logged(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    with pytest.raises(RuntimeError, match="no images"), run.phase("synthesis"):
        raise RuntimeError("no images")
    assert read_events(run)[0]["error"] == "RuntimeError: no images"
    assert "synthesis" in run.seconds


def test_drop_rounds_after_keeps_the_other_lines_and_removes_an_incomplete_one(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    for number in (1, 2, 3):
        with run.phase("träin"):
            pass
        run.log({"event": "round", "round": number, "loss": 1e-5 / 3, "sizes": [1, 2.0, None, True]})
    file = run.path / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines) + '{"event": "round", "rou')
    run.drop_rounds_after(2)
    assert file.read_text() == "".join(lines[:-1])


def test_summary_is_ordered_strict_json_and_replaces_the_old_one(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    run.write_summary({"status": "failed"})
    run.write_summary(
        {"versions": {}, "zeta": 1, "alpha": 2, "recall": 1.0, "loss": float("inf"), "status": "completed"}
    )
    text = (run.path / "summary.json").read_text()
    assert list(json.loads(text)) == ["status", "loss", "recall", "alpha", "zeta", "versions"]
    assert json.loads(text)["loss"] is None
    assert sorted(entry.name for entry in run.path.glob("[!.]*")) == ["config.json", "summary.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_versions_are_read_without_imports():
    assert versions()["python"] == sys.version.split()[0]
    assert versions()["flwr"] == metadata.version("flwr")
    heavy = "{'torch', 'flwr', 'diffusers', 'transformers', 'datasets', 'matplotlib', 'jinja2'}"
    code = (
        "import sys, fgl_app.results.plots, fgl_app.results.report, fgl_app.results.run_directory as r;"
        f"r.versions(); print({heavy} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
