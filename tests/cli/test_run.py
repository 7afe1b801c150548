"""`fgl run`: invalid input and the reason of a failure."""

from contextlib import closing

import pytest

from fgl_app.cli.run import failure_reason
from fgl_app.config import config_keys
from fgl_app.launch.runner import RunOutcome
from fgl_app.results.run_directory import RunDirectory
from tests.in_process import fgl

COMPLETED = RunOutcome("finished:completed", "")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["seed=seven"], "config key 'seed' must be a valid integer, got 'seven'"),
        (["datasett=digits"], "unknown config key 'datasett'; did you mean 'dataset'?"),
        (["seed"], "config values are given as KEY=VALUE, without spaces around '=', got 'seed'"),
        (["--clients", "1"], "min-nodes must be at most num-clients (1), got 2"),
        (["--preset", "nosuch"], "unknown preset 'nosuch'"),
        (["--stream", "--quiet"], "--stream and --quiet exclude each other"),
        (["--config", "nosuch.toml"], "config file 'nosuch.toml' cannot be read: No such file or directory"),
        (["--config", "bad.toml"], "config file 'bad.toml' is not valid TOML"),
        (["output-dir=bad.toml"], "config key 'output-dir' must be a writable folder"),
        (["output-dir=.", "run-name=taken"], "config key 'run-name' must be new in"),
        (["partitioning=sites"], "partitioning 'sites' needs --federation DIR"),
        (["--federation", "taken"], "there is no federation in 'taken'"),
        (
            ["--resume", "taken", "--clients", "3"],
            "--resume keeps the run's config: no --preset, --config or",
        ),
        (["resume=true"], "resume needs run-name, the folder of the run in output-dir"),
    ],
)
def test_invalid_input_exits_2_with_one_sentence(tmp_path, arguments, sentence):
    (tmp_path / "bad.toml").write_text("seed = \n")
    (tmp_path / "taken").mkdir()
    done = fgl("run", *arguments, cwd=tmp_path)
    assert done.exit_code == 2, done.stderr
    assert done.stderr.startswith(f"Error: {sentence}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert {path.name for path in tmp_path.iterdir()} == {"bad.toml", "taken"}


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    done = fgl("run", "--resume", str(tmp_path), cwd=tmp_path)
    assert done.exit_code == 2
    assert done.stderr == f"Error: {tmp_path} is not a run directory: its config.json cannot be read\n"


def test_a_running_run_cannot_be_resumed(tmp_path):
    with closing(RunDirectory.create(tmp_path, "it", config_keys())):
        before = sorted(tmp_path.rglob("*"))
        done = fgl("run", "--resume", "it", cwd=tmp_path)
        assert done.exit_code == 2
        assert done.stderr == f"Error: the run in {tmp_path / 'it'} is still running in another process\n"
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("outcome", "summary", "reason"),
    [
        (COMPLETED, {"status": "completed"}, ""),
        (COMPLETED, {"status": "failed", "error": "3 of 5 nodes failed"}, "3 of 5 nodes failed"),
        (COMPLETED, {}, "it ended without a summary.json"),
        (COMPLETED, {"status": "running"}, "summary.json has the status 'running'"),
        (RunOutcome("finished:failed", "Simulation failed with exception: no"), {}, "no"),
        (RunOutcome("finished:failed", "boom"), {"status": "completed"}, "boom"),
        (RunOutcome("finished:stopped", ""), {}, "Flower ended it as 'finished:stopped'"),
    ],
)
def test_a_run_completed_only_according_to_flower_and_the_app(outcome, summary, reason):
    assert failure_reason(outcome, summary) == reason
