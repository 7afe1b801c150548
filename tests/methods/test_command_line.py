"""`fgl run` in the test's process: exit codes and messages of runs that fail."""

from tests.app_runs import read_summary
from tests.in_process import fgl


def test_a_run_whose_uploads_are_rejected_exits_with_1_and_the_reason(tmp_path):
    # Each upload has two prompts or more, so over 1000 bytes.
    done = fgl("run", "--clients", "2", "dirichlet-alpha=1.0", "max-upload-mb=0.001", cwd=tmp_path)
    assert done.exit_code == 1, done.output
    assert "0 good replies, at least 2 needed" in done.stderr
    assert "Traceback" not in done.stderr
    summary = read_summary(tmp_path / "outputs" / "latest")
    assert summary["status"] == "failed"
    assert len(summary["rejected_uploads"]) == 2


def test_an_impossible_partition_exits_with_2_and_starts_nothing(tmp_path):
    done = fgl("run", "dirichlet-alpha=0.01", "--clients", "20", cwd=tmp_path)
    assert done.exit_code == 2
    assert len(done.stderr.splitlines()) == 1
    assert "leaves one of 20 clients fewer than 10 examples" in done.stderr
    assert not list(tmp_path.glob("outputs/*"))


def test_a_completed_run_cannot_be_resumed(tmp_path, completed):
    folder = completed(guidance_scale=2.0)
    done = fgl("run", "--resume", str(folder), cwd=tmp_path)
    assert done.exit_code == 2
    assert "completed; there is nothing to resume" in done.stderr
