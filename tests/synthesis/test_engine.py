"""Synthetic sets on disk: an interrupted synthesis ends with the same images as an undisturbed one."""

import multiprocessing
import resource
import shutil
import time

import numpy as np
import pytest
import torch
from datasets import load_dataset

from fgl_app.data.shards import missing_shards, read_shards, write_shard
from fgl_app.synthesis import engine
from fgl_app.synthesis.command import synthesize_file
from fgl_app.synthesis.job import load_embeddings, save_embeddings
from tests.in_process import fgl
from tests.synthesis.conftest import SHARDS, read_images


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the complete set."""
    return shutil.copytree(finished, tmp_path / "set")


def test_a_finished_set_is_not_made_again(saved, copy, reference):
    times = {file: file.stat().st_mtime_ns for file in copy.iterdir()}
    assert saved.make(copy) == copy
    assert {file: file.stat().st_mtime_ns for file in copy.iterdir()} == times
    # Only a missing shard is made.
    lost = sorted(copy.glob("train-*"))[2]
    lost.unlink()
    assert missing_shards(copy, SHARDS) == [2]
    saved.make(copy)
    assert [file.name for file in times if file.stat().st_mtime_ns != times[file]] == [lost.name]
    assert np.array_equal(read_images(copy), reference)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"num_inference_steps": 2}, {"images_per_class": 5}])
def test_another_set_gets_another_folder(saved, tmp_path, changed):
    few = {"images_per_class": 4}
    first = saved.make(tmp_path / "set", **few)
    second = saved.make(tmp_path / "set", **(few | changed))
    assert (first.name, second.name) == ("set", "set-2")
    # A key that does not change the images does not change the folder.
    assert saved.make(tmp_path / "set", **few, synthesis_batch_size=2) == first


def test_a_set_is_read_in_the_order_of_its_prompts(finished, reference, tmp_path):
    images = read_shards(finished, 16, 3)
    rows = load_dataset(str(finished), cache_dir=str(tmp_path / "cache"))["train"]
    order = sorted(range(len(rows)), key=lambda row: (rows[row]["prompt"], rows[row]["number"]))
    assert order != sorted(order, key=order.__getitem__)
    assert np.array_equal(images.images.permute(0, 2, 3, 1).numpy(), reference[order])
    assert images.labels.tolist() == [rows[row]["label"] for row in order]
    grey = read_shards(finished, 8, 1)
    assert grey.images.shape == (len(reference), 1, 8, 8)
    # Temporary files are deleted.
    assert {file.name.split("-")[0] for file in finished.iterdir()} == {".manifest.json", "train"}


def test_sets_of_the_same_name_are_not_confused(saved, tmp_path):
    """The cache of ``datasets`` depends on the folder's name and contents."""
    for number in (3, 6):
        saved.make(tmp_path / str(number) / "set", images_per_class=number)
    for number in (3, 6):
        folder = str(tmp_path / str(number) / "set")
        assert len(load_dataset(folder, cache_dir=str(tmp_path / "cache"))["train"]) == 3 * number


# A server that has imported the heavy modules once, and forks a process for each start.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [__name__, "diffusers.pipelines.stable_diffusion", "transformers.models.clip"]
)


def make_set_with_one_thread(saved, out):
    torch.set_num_threads(1)
    saved.make(out)


@pytest.mark.slow
def test_a_process_killed_at_any_moment_leaves_a_set_that_can_be_completed(saved, reference, tmp_path):
    out = tmp_path / "set"
    rng = np.random.default_rng(0)
    for number in (1, 2, 4):
        process = PROCESSES.Process(target=make_set_with_one_thread, args=(saved, out))
        process.start()
        while len(list(out.glob("train-*.parquet"))) < number:
            assert process.is_alive()
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.join()
    assert len(list(out.glob("train-*"))) < SHARDS
    done = fgl(*saved.arguments(out))
    assert done.exit_code == 0, done.output
    assert "shards exist already" in done.output
    assert done.stdout.splitlines()[-1] == str(out)
    assert np.array_equal(read_images(out), reference)


def test_a_full_disk_keeps_the_written_shards(saved, reference, tmp_path, monkeypatch):
    """A limit on the size of files simulates the full disk: shards from the third on exceed it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write_to_full_disk(folder, number, total, content):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 if number >= 2 else limits[0], limits[1]))
        try:
            write_shard(folder, number, total, content)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(engine, "write_shard", write_to_full_disk)
        done = fgl(*saved.arguments(out))
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        f"Error: synthetic images cannot be written to {out}: File too large; 2 of {SHARDS} shards are kept, "
        "the same command continues from there"
    )
    assert len(list(out.glob("train-*"))) == 2
    assert not list(out.glob(".train-*"))
    assert np.array_equal(read_images(saved.make(out)), reference)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"generator": "nowhere"}, "generator must be 'embedded', a folder or a hub id"),
        ({"generator_lora": "nowhere"}, "generator-lora must be a safetensors file"),
        ({"generator_offload": "model"}, "generator-offload must be 'none' without a GPU"),
        ({"ray_address": "127.0.0.1:9"}, "no Ray cluster listens at ray-address 127.0.0.1:9"),
    ],
)
def test_invalid_values_are_rejected_before_the_synthesis(saved, tmp_path, changed, message):
    done = fgl(*saved.arguments(tmp_path / "set", **changed))
    assert done.exit_code == 2
    assert done.stderr.splitlines()[-1].startswith(f"Error: {message}")
    assert not (tmp_path / "set").exists()


def test_embeddings_of_another_encoder_are_rejected(saved, tmp_path):
    loaded, names, _ = load_embeddings(saved.file)
    other = tmp_path / "other.safetensors"
    save_embeddings(loaded, names, "0123456789abcdef", other)
    with pytest.raises(ValueError, match="come from text encoder 0123456789abcdef"):
        synthesize_file(other, tmp_path / "set", saved.config())
    assert not (tmp_path / "set").exists()
