"""FedDDPM through real Flower and Ray, and its model in another process."""

import json
import subprocess
import sys

import pytest

from tests.e2e.test_fgl_run import fgl_run

TINY = [
    *("partitioning=iid", "num-server-rounds=2", "local-epochs=1", "batch-size=500"),
    *("local-pretrain-epochs=1", "local-pretrain-min-steps=2", "auxiliary-size=20", "server-epochs=1"),
    *("sampling-steps=2", "metric-samples=40"),
]
DRAW = """
import sys
from fgl_app.models.image_pipeline import ClassConditionalPipeline
images = ClassConditionalPipeline.from_pretrained(sys.argv[1])([1, 2, 3], num_inference_steps=2).images
print([image.size for image in images])
"""


@pytest.mark.slow
def test_fedddpm_runs_and_its_model_draws_elsewhere(tmp_path):
    done = fgl_run("--clients", "2", "method=fedddpm", *TINY, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Frechet distance" in done.stdout
    folder = tmp_path / "outputs" / "latest"
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["status"], summary["corrections"]) == ("completed", 1)
    assert summary["auxiliary_images"] == {"00000": 10, "00001": 10}
    command = [sys.executable, "-c", DRAW, str(folder / "diffusion")]
    drawn = subprocess.run(command, capture_output=True, text=True, check=True)
    assert drawn.stdout.strip() == "[(32, 32), (32, 32), (32, 32)]"
