"""The real app through real Flower and Ray: `fgl run`, and plain `flwr run .`."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sysconfig.get_path("scripts"))
TINY = ["images-per-class=5", "num-inference-steps=2", "synthetic-epochs=1", "dirichlet-alpha=1.0"]


def fgl_run(*arguments, cwd):
    return subprocess.run(
        [BIN / "fgl", "run", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_one_command_runs_fgl_and_says_where_the_results_are(tmp_path):
    # Ray's workers in a process beside Flower's Ray.
    more = ["num-server-rounds=2", "local-epochs=1", "synthesis-workers=2"]
    done = fgl_run("--clients", "2", *TINY, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    folder = (tmp_path / "outputs" / "latest").resolve()
    assert folder.parent == tmp_path / "outputs"
    assert done.stdout.splitlines()[-2:] == [str(folder), str(folder / "report.html")]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["num_clients"] == 2
    assert summary["rounds"] == 2
    assert summary["num_synthetic_images"] == 50
    assert set(summary["uplink_bytes"]) == {"total", "setup", "train"}
    assert (folder / "report.html").is_file()
    assert "2 Ray workers" in done.stdout
    assert (folder / "synthetic" / "train-00000-of-00001.parquet").is_file()
    assert (folder / "classifier" / "model.safetensors").is_file()


@pytest.mark.slow
def test_a_run_that_cannot_have_enough_clients_exits_1_and_says_why(tmp_path):
    # The uploads of two prompts or more are over 1000 bytes: every client is rejected.
    done = fgl_run("--clients", "2", *TINY, "max-upload-mb=0.001", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 good replies, at least 2 needed" in done.stderr
    assert "Traceback" not in done.stderr
    summary = json.loads((tmp_path / "outputs" / "latest" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert len(summary["rejected_uploads"]) == 2


def test_a_run_that_was_ended_goes_on_with_resume(tmp_path):
    settings = [
        "method=classifier",
        "num-server-rounds=6",
        "local-epochs=2",
        "partitioning=iid",
        "device=cpu",
    ]
    command = [
        BIN / "fgl",
        "run",
        "--clients",
        "2",
        "run-name=r",
        "batch-size=256",
        "augmentation=none",
        *settings,
    ]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    while not process.stdout.readline().startswith("round 1/6"):
        assert process.poll() is None
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    run = tmp_path / "outputs" / "r"
    assert f"`fgl run --resume {run}` goes on from what was finished" in errors
    result = fgl_run("--resume", str(run), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["rounds"] == 6
    assert summary["resumed_after_round"][0] >= 1
    again = fgl_run("--resume", str(run), cwd=tmp_path)
    assert again.returncode == 2
    assert "completed; there is nothing to resume" in again.stderr


def test_bad_input_exits_2_with_one_sentence_and_starts_nothing(tmp_path):
    done = fgl_run("dirichlet-alpha=0.01", "--clients", "50", cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "leaves one of 50 clients fewer than 10 examples" in done.stderr
    assert not list(tmp_path.glob("outputs/*"))


@pytest.mark.slow
def test_plain_flwr_run_works_with_its_own_number_of_supernodes(flower_home, tmp_path):
    overrides = [*TINY, f"output-dir='{tmp_path}'", "run-name='plain'", "partitioning='iid'"]
    command = [BIN / "flwr", "run", ".", "--stream", "--run-config", " ".join(overrides)]
    command += ["--federation-config", "num-supernodes=3 client-resources-num-cpus=1"]
    subprocess.run(command, cwd=ROOT, env=flower_home, check=True, timeout=240, capture_output=True)
    summary = json.loads((tmp_path / "plain" / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["num_clients"] == 3
