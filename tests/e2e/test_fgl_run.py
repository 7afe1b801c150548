"""The app through real Flower and Ray: `fgl run`, and plain `flwr run .`."""

import json
import subprocess
import sysconfig
from pathlib import Path

import pytest

from fgl_app.models.image_pipeline import ClassConditionalPipeline

ROOT = Path(__file__).parents[2]
BIN = Path(sysconfig.get_path("scripts"))


def resume(run):
    command = [BIN / "fgl", "run", "--resume", str(run)]
    return subprocess.run(command, cwd=run.parents[1], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_terminated_run_is_resumed_and_prints_its_results(tmp_path):
    # The synthesis has its own Ray workers. Small images, but enough rounds that the run does not complete.
    settings = ["images-per-class=5", "num-inference-steps=2", "synthetic-epochs=1", "partitioning=iid"]
    settings += ["num-server-rounds=30", "local-epochs=2", "image-size=16", "synthesis-workers=2"]
    process = subprocess.Popen(
        [BIN / "fgl", "run", "--clients", "2", *settings],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = []
    while not (lines and lines[-1].startswith("round 1/30")):
        lines.append(process.stdout.readline())
        assert process.poll() is None, "".join(lines)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert any("2 Ray workers" in line for line in lines)
    folder = (tmp_path / "outputs" / "latest").resolve()
    assert folder.parent == tmp_path / "outputs"
    assert f"`fgl run --resume {folder}`" in errors

    done = resume(folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-2:] == [str(folder), str(folder / "report.html")]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["status"] == "completed"
    assert summary["num_clients"] == 2
    assert summary["rounds"] == 30
    assert summary["resumed_after_round"][0] >= 1
    assert summary["num_synthetic_images"] == 50
    assert set(summary["uplink_bytes"]) == {"total", "setup", "train"}
    assert (folder / "report.html").is_file()
    assert (folder / "synthetic" / "train-00000-of-00001.parquet").is_file()
    assert (folder / "classifier" / "model.safetensors").is_file()


@pytest.mark.slow
def test_flwr_run_uses_its_own_number_of_supernodes(flower_home, tmp_path):
    """With FedDDPM, so that its messages pass through Flower too, and its model to another process."""
    values = ["method='fedddpm'", "partitioning='iid'", "num-server-rounds=2", "local-epochs=1"]
    values += ["batch-size=500", "local-pretrain-epochs=1", "local-pretrain-min-steps=2", "auxiliary-size=30"]
    values += ["server-epochs=1", "sampling-steps=2", "metric-samples=40", "synthetic-epochs=1"]
    values += [f"output-dir='{tmp_path}'", "run-name='plain'"]
    command = [BIN / "flwr", "run", ".", "--stream", "--run-config", " ".join(values)]
    command += ["--federation-config", "num-supernodes=3 client-resources-num-cpus=1"]
    subprocess.run(command, cwd=ROOT, env=flower_home, check=True, timeout=240, capture_output=True)
    summary = json.loads((tmp_path / "plain" / "summary.json").read_text())
    assert (summary["status"], summary["num_clients"]) == ("completed", 3)
    assert summary["auxiliary_images"] == {"00000": 10, "00001": 10, "00002": 10}
    assert summary["corrections"] == 1
    pipeline = ClassConditionalPipeline.from_pretrained(tmp_path / "plain" / "diffusion")
    images = pipeline([1, 2, 3], num_inference_steps=2).images
    assert [image.size for image in images] == [(32, 32)] * 3
