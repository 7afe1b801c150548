"""`fgl report` and `fgl list`."""

import json
import re

import pytest
from typer.testing import CliRunner

from fgl_app.cli.app import app
from fgl_app.results.run_directory import RunDirectory
from tests.runs import make_run


@pytest.fixture(autouse=True)
def _working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def fgl(*arguments):
    return CliRunner().invoke(app, arguments)


def test_list_prints_one_line_per_run_or_json(tmp_path):
    outputs = tmp_path / "outputs"
    name = "a-name-that-is-longer-than-a-line-of-a-terminal-" * 2
    make_run(outputs, name, dataset="/somewhere/mine")
    make_run(outputs, "bad", accuracies=(), status="failed", uplink_bytes={}, downlink_bytes={}, seconds={})
    going = RunDirectory.create(outputs, "going", {"method": "fgl"})
    done = fgl("list")
    assert done.exit_code == 0, done.stderr
    figures = ["10", "2", "accuracy 80.0 %", "4.1 MB", "5.0 MB", "3 min 5 s"]
    assert [re.split(r"\s{2,}", line.strip()) for line in done.stdout.splitlines()[1:]] == [
        [name, "completed", "fgl-fedavg", "mine", *figures],
        ["bad", "failed", "fgl-fedavg", "digits", "10", "0", "—", "—", "—", "—"],
        ["going", "running", "fgl", "—", "—", "0", "—", "—", "—", "—"],
    ]
    going.close()
    first, *_, last = json.loads(fgl("list", "outputs", "--json").stdout)
    assert (first["metric"], first["value"], first["uplink_bytes"]) == ("accuracy", 0.8, 4_123_450)
    assert (last["status"], last["uplink_bytes"]) == ("unfinished", None)


def test_list_of_a_folder_without_runs():
    missing = fgl("list", "nowhere")
    assert missing.stderr == "Error: the runs in 'nowhere' cannot be listed: No such file or directory\n"
    assert missing.exit_code == 2
    assert fgl("list", ".").exit_code == 0
    assert fgl("list", ".", "--json").stdout == "[]\n"


def test_report_writes_one_page_and_prints_its_path(tmp_path):
    run = make_run(tmp_path, "one", accuracies=(0.5,))
    done = fgl("report", "one")
    assert (done.exit_code, done.stdout) == (0, f"{run / 'report.html'}\n")
    make_run(tmp_path, "two", accuracies=(0.5,))
    done = fgl("report", "one", "two")
    assert done.stdout == f"{tmp_path / 'comparison.html'}\n"
    assert "2 runs compared" in (tmp_path / "comparison.html").read_text()
    (tmp_path / "not-begun").mkdir()
    done = fgl("report", "one", "not-begun", "two", "--out", "page.html")
    assert done.exit_code == 0
    assert done.stderr == ("Note: not-begun is skipped: it has no config.json, so no run started there\n")
    assert (tmp_path / "page.html").is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "nowhere is not a run directory: it has no config.json"),
        (["one", "nowhere"], "nowhere is not a run directory: it has no config.json"),
        (["one", "--out", "no/page.html"], "the page cannot be written: No such file or directory"),
    ],
)
def test_report_rejects_bad_input(tmp_path, arguments, sentence):
    make_run(tmp_path, "one", accuracies=(0.5,))
    done = fgl("report", *arguments)
    assert (done.exit_code, done.stderr) == (2, f"Error: {sentence}\n")
