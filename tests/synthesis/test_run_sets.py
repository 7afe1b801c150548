"""A run trains on the set that belongs to it, whatever its folder held before."""

import json

import pytest

from fgl_app.synthesis import engine, job
from tests.integration.test_apps import run
from tests.integration.test_resume import KilledError, assert_equal_runs


@pytest.mark.parametrize("process", ["this process", "a process of its own"])
def test_a_resumed_run_trains_on_its_own_set_and_not_on_a_stale_one(
    tiny_generator, tmp_path, monkeypatch, process
):
    """The first attempt dies after one shard of two, of a set that the second attempt does not make."""
    options = {"generator": str(tiny_generator), "image_size": 16, "images_per_class": 2}
    monkeypatch.setattr(job, "SHARD_SIZE", 10)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write = engine.write_shard

    def dying(folder, number, *rest):
        if number:
            raise KilledError
        write(folder, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_shard", dying)
        with pytest.raises(KilledError):
            run(tmp_path, "died", **options)
    stale = tmp_path / "died" / "synthetic"
    with monkeypatch.context() as patch:
        if process == "this process":
            manifest = json.loads((stale / ".manifest.json").read_text())
            manifest["settings"]["dtype"] = "torch.float16"
            (stale / ".manifest.json").write_text(json.dumps(manifest))
        else:
            # The other process makes larger shards: another manifest.
            patch.setattr("fgl_app.methods.fgl.uses_ray", lambda config: True)
            monkeypatch.setattr(job, "SHARD_SIZE", 256)
        resumed = run(tmp_path, "died", resume=True, broken=(100, 99, 98), **options)
    assert resumed["num_synthetic_images"] == 20
    assert [file.name for file in stale.glob("train-*")] == ["train-00000-of-00002.parquet"]
    assert list((tmp_path / "died" / "synthetic-2").glob("train-*"))
    assert_equal_runs(tmp_path, resumed, run(tmp_path, "straight", **options))
