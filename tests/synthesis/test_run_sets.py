"""A run trains on the set that belongs to it, even if its folder contains another one."""

import pytest
import torch
from safetensors.torch import load_file

from fgl_app.synthesis import engine, job
from tests.app_runs import run


class KilledError(BaseException):
    """Ends a run like a signal."""


@pytest.fixture(scope="module")
def options(tiny_generator):
    return {"generator": str(tiny_generator), "image_size": 16, "images_per_class": 2}


@pytest.fixture(scope="module")
def straight(options, tmp_path_factory):
    """Folder of a run without interruption."""
    folder = tmp_path_factory.mktemp("straight")
    run(folder, **options)
    return folder / "run"


@pytest.mark.parametrize("process", ["this process", "a subprocess"])
def test_a_resumed_run_trains_on_its_own_set_and_not_on_a_stale_one(
    options, straight, tmp_path, monkeypatch, process
):
    """The first attempt dies after one shard of another set: its shards are smaller."""
    write = engine.write_shard

    def dying(folder, number, *rest):
        if number:
            raise KilledError
        write(folder, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(job, "SHARD_SIZE", 10)
        patch.setattr(engine, "write_shard", dying)
        with pytest.raises(KilledError):
            run(tmp_path, **options)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    if process == "a subprocess":
        monkeypatch.setattr("fgl_app.methods.fgl.uses_ray", lambda config: True)
    summary = run(tmp_path, resume=True, broken=(100, 99, 98), **options)
    assert summary["num_synthetic_images"] == 20
    folder = tmp_path / "run"
    assert [file.name for file in folder.glob("synthetic/train-*")] == ["train-00000-of-00002.parquet"]
    assert [file.name for file in folder.glob("synthetic-2/train-*")] == ["train-00000-of-00001.parquet"]
    own, expected = (load_file(each / "classifier" / "model.safetensors") for each in (folder, straight))
    assert all(torch.equal(own[name], expected[name]) for name in own | expected)
