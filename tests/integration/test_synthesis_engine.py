"""Synthetic sets on disk: whatever happens on the way, the same images."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from datasets import load_dataset

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.config import parse_config
from fgl_app.data.shards import SHARD_SIZE, missing_shards, open_or_create_set, read_shards
from fgl_app.models.fingerprints import encoder_fingerprint
from fgl_app.synthesis.command import synthesize_file
from fgl_app.synthesis.generator import generator_settings, load_generator
from fgl_app.synthesis.job import SynthesisJob, load_embeddings, save_embeddings
from fgl_app.synthesis.workers import Workers, share_out

NAMES = ("zero", "one", "two")
SHARDS = 5
IMAGES = SHARDS * SHARD_SIZE - 100


@pytest.fixture(scope="module")
def values(tiny_generator):
    # The last class has its budget from two prompts.
    return {
        "generator": str(tiny_generator),
        "images-per-class": IMAGES // 3,
        "num-inference-steps": 1,
        "synthesis-batch-size": 64,
        "device": "cpu",
    }


@pytest.fixture(scope="module")
def embeddings(values, tmp_path_factory):
    """File of four prompts' embeddings."""
    pipeline = load_generator(generator_settings(parse_config(values)))
    labels, counts = torch.tensor([0, 1, 2, 2]), torch.tensor([5, 5, 3, 2])
    merged = TextEmbeddings(encode_texts(pipeline, ["a", "b", "c", "d"]), labels, counts)
    file = tmp_path_factory.mktemp("embeddings") / "embeddings.safetensors"
    save_embeddings(merged, NAMES, encoder_fingerprint(pipeline), file)
    return file


@pytest.fixture(scope="module")
def reference(values, embeddings, tmp_path_factory):
    """What an undisturbed process makes."""
    return content(synthesize_file(embeddings, tmp_path_factory.mktemp("set") / "set", parse_config(values)))


def content(folder):
    """Return a set's images as one array, after a look at its other columns."""
    data = load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))["train"]
    assert data.features["label"].names == list(NAMES)
    assert len(set(zip(data["prompt"], data["number"], strict=True))) == len(data) == IMAGES // 3 * 3
    assert data["label"] == [(0, 1, 2, 2)[prompt] for prompt in data["prompt"]]
    return np.stack([np.asarray(image) for image in data["image"]])


def command(embeddings, out, values, **more):
    pairs = [f"{key}={value}" for key, value in {**values, **more}.items()]
    return [sys.executable, "-m", "fgl_app", "synthesize", str(embeddings), "--out", str(out), *pairs]


def start(*args, **more):
    # One thread, as in this process; a group of its own, to be killed with all that it started.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(*args, **more),
        env=environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def wait_for_shards(process, folder, number):
    while len(list(folder.glob("train-*.parquet"))) < number:
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.005)


def test_embeddings_come_back_from_their_file(embeddings):
    loaded, names, encoder = load_embeddings(embeddings)
    assert torch.equal(load_embeddings(embeddings.parent)[0].labels, loaded.labels)
    assert names == NAMES
    assert encoder
    assert loaded.labels.tolist() == [0, 1, 2, 2]
    assert loaded.counts.tolist() == [5, 5, 3, 2]


def test_a_finished_set_is_not_made_again(values, embeddings, reference, tmp_path):
    config = parse_config(values)
    folder = synthesize_file(embeddings, tmp_path / "set", config)
    times = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert synthesize_file(embeddings, tmp_path / "set", config) == folder
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == times
    # A missing shard alone is made.
    lost = sorted(folder.glob("train-*"))[2]
    lost.unlink()
    assert missing_shards(folder, SHARDS) == [2]
    synthesize_file(embeddings, tmp_path / "set", config)
    changed = [file.name for file in times if file.stat().st_mtime_ns != times[file]]
    assert changed == [lost.name]
    assert np.array_equal(content(folder), reference)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"num-inference-steps": 2}, {"images-per-class": 5}])
def test_another_set_goes_beside(values, embeddings, tmp_path, changed):
    few = values | {"images-per-class": 4}
    first = synthesize_file(embeddings, tmp_path / "set", parse_config(few))
    second = synthesize_file(embeddings, tmp_path / "set", parse_config(few | changed))
    assert (first.name, second.name) == ("set", "set-2")
    # What does not change the images does not change the folder.
    other = parse_config(few | {"synthesis-batch-size": 2})
    assert synthesize_file(embeddings, tmp_path / "set", other) == first


def test_a_set_is_read_in_the_order_of_its_prompts(values, embeddings, reference, tmp_path):
    folder = synthesize_file(embeddings, tmp_path / "set", parse_config(values))
    images = read_shards(folder, 16, 3)
    rows = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]
    order = sorted(range(len(rows)), key=lambda row: (rows[row]["prompt"], rows[row]["number"]))
    assert order != sorted(order, key=order.__getitem__)
    assert np.array_equal(images.images.permute(0, 2, 3, 1).numpy(), reference[order])
    assert images.labels.tolist() == [rows[row]["label"] for row in order]
    grey = read_shards(folder, 8, 1)
    assert grey.images.shape == (len(reference), 1, 8, 8)
    # Nothing is left beside the set.
    assert {file.name.split("-")[0] for file in folder.iterdir()} == {".manifest.json", "train"}


def test_sets_of_one_name_are_not_taken_for_each_other(values, embeddings, tmp_path):
    """The cache of ``datasets`` goes by the folder's name and what it finds in it."""
    for number in (3, 6):
        config = parse_config(values | {"images-per-class": number})
        synthesize_file(embeddings, tmp_path / str(number) / "set", config)
    for number in (3, 6):
        folder = str(tmp_path / str(number) / "set")
        assert len(load_dataset(folder, cache_dir=str(tmp_path / "cache"))["train"]) == 3 * number


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_set(values, embeddings, reference, tmp_path):
    out = tmp_path / "set"
    rng = np.random.default_rng(0)
    for number in (1, 2, 4):
        process = start(embeddings, out, values)
        wait_for_shards(process, out, number)
        time.sleep(rng.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(list(out.glob("train-*"))) < SHARDS
    process = start(embeddings, out, values)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert "shards are there already" in said
    assert said.splitlines()[-1] == str(out)
    assert np.array_equal(content(out), reference)


def test_a_full_disk_keeps_what_is_written(values, embeddings, reference, tmp_path):
    """The limit on a file's size stands for the disk: the third shard's file is over it."""
    out = tmp_path / "set"
    small = tmp_path / "limited.py"
    small.write_text(
        "import resource, runpy, sys\n"
        "from fgl_app.data import shards\n"
        "write = shards.write_shard\n"
        "def limited(folder, number, total, content):\n"
        "    if number == 2:\n"
        "        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, -1))\n"
        "    write(folder, number, total, content)\n"
        "shards.write_shard = limited\n"
        "runpy.run_module('fgl_app', run_name='__main__')\n"
    )
    arguments = command(embeddings, out, values)
    done = subprocess.run(
        [sys.executable, str(small), *arguments[3:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"Error: synthetic images cannot be written to {out}: File too large; 2 of {SHARDS} shards are kept, "
        "the same command goes on from there"
    )
    assert len(list(out.glob("train-*"))) == 2
    assert not list(out.glob(".train-*"))
    assert np.array_equal(content(synthesize_file(embeddings, out, parse_config(values))), reference)


@pytest.mark.slow
def test_workers_make_the_same_set_and_a_dead_one_is_replaced(values, embeddings, reference, tmp_path):
    out = tmp_path / "set"
    process = start(embeddings, out, values, **{"synthesis-workers": 2})
    wait_for_shards(process, out, 1)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.name().startswith("ray::_make")
    ]
    workers[0].kill()
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert np.array_equal(content(out), reference)


RAY = str(Path(sys.executable).with_name("ray"))


def start_node(home, *arguments):
    # Given exactly this address, Ray listens on loopback alone. Killed, it leaves its address in its folder,
    # where every later Ray that is told no address would look for it.
    return subprocess.Popen(
        [RAY, "start", "--num-cpus=1", "--node-ip-address=127.0.0.1", "--block", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_TMPDIR": home},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_for_nodes(address, number):
    for _ in range(60):
        status = subprocess.run(
            [RAY, "status", "--address", address], capture_output=True, text=True, check=False
        )
        if status.stdout.count(" node_") == number:
            return
        time.sleep(0.5)
    raise AssertionError(f"the cluster has not got {number} nodes: {status.stdout}{status.stderr}")


@pytest.mark.slow
def test_a_cluster_loses_a_node_and_makes_the_same_set(values, embeddings, reference, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    # A short name: sockets lie there.
    home = tempfile.mkdtemp(prefix="ray-")
    nodes = [start_node(home, "--head", f"--port={port}", "--include-dashboard=false")]
    try:
        wait_for_nodes(address, 1)
        nodes.append(start_node(home, f"--address={address}"))
        wait_for_nodes(address, 2)
        out = tmp_path / "set"
        process = start(embeddings, out, values, **{"synthesis-workers": 2, "ray-address": address})
        wait_for_shards(process, out, 1)
        os.killpg(nodes[1].pid, signal.SIGKILL)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert np.array_equal(content(out), reference)
    finally:
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(home)


@pytest.mark.parametrize(
    ("nodes", "workers", "use_gpus", "expected"),
    [
        ([{"CPU": 2}], 2, True, Workers(2, gpus=0, cpus=1)),
        ([{"CPU": 8}], 3, True, Workers(3, gpus=0, cpus=2)),
        # No node has the two cores that one worker for two nodes could be given.
        ([{"CPU": 1}, {"CPU": 1}], 1, True, Workers(1, gpus=0, cpus=1)),
        ([{"CPU": 2}] * 3, 2, True, Workers(2, gpus=0, cpus=2)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 1}], 4, True, Workers(3, gpus=1, cpus=1)),
        ([{"CPU": 16, "GPU": 2}], 4, False, Workers(4, gpus=0, cpus=4)),
    ],
)
def test_a_cluster_is_shared_out_so_that_every_worker_finds_a_place(nodes, workers, use_gpus, expected):
    assert share_out(nodes, workers, use_gpus=use_gpus) == expected


# --- bad input


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"generator": "nowhere"}, "generator must be 'embedded', a folder or a hub id"),
        ({"generator-lora": "nowhere"}, "generator-lora must be a safetensors file"),
        ({"generator-offload": "model"}, "generator-offload must be 'none' without a GPU"),
    ],
)
def test_what_a_run_would_refuse_is_refused(values, embeddings, tmp_path, changed, sentence):
    done = subprocess.run(
        command(embeddings, tmp_path / "set", values, **changed), capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"Error: {sentence}")
    assert not (tmp_path / "set").exists()


def test_no_cluster_at_the_address_is_one_sentence(values, embeddings, tmp_path):
    arguments = command(embeddings, tmp_path / "set", values, **{"ray-address": "127.0.0.1:9"})
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("Error: no Ray cluster listens at ray-address 127.0.0.1:9")
    assert not (tmp_path / "set").exists()


def test_embeddings_of_another_encoder_are_refused(values, embeddings, tmp_path):
    loaded, names, _ = load_embeddings(embeddings)
    other = tmp_path / "other.safetensors"
    save_embeddings(loaded, names, "0123456789abcdef", other)
    with pytest.raises(ValueError, match="are of text encoder 0123456789abcdef"):
        synthesize_file(other, tmp_path / "set", parse_config(values))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda e: TextEmbeddings(e.tensors, e.labels + 1, e.counts), "labels outside its 3 classes"),
        (
            lambda e: TextEmbeddings(e.tensors, e.labels, e.counts * 0),
            "labels outside its 3 classes, or empty counts",
        ),
        (lambda e: TextEmbeddings(e.tensors, e.labels[:2], e.counts), "tensors of different lengths"),
        (
            lambda e: TextEmbeddings({k: v * torch.nan for k, v in e.tensors.items()}, e.labels, e.counts),
            "NaN or infinite",
        ),
        (lambda e: TextEmbeddings({}, e.labels, e.counts), "holds no embeddings as a run saves them"),
    ],
)
def test_a_file_of_senseless_embeddings_is_refused(embeddings, tmp_path, spoil, message):
    loaded, names, encoder = load_embeddings(embeddings)
    file = tmp_path / "bad.safetensors"
    save_embeddings(spoil(loaded), names, encoder, file)
    with pytest.raises(ValueError, match=message):
        load_embeddings(file)


def test_what_is_no_file_of_embeddings_is_refused(tmp_path):
    (tmp_path / "text").write_text("no tensors")
    for file in (tmp_path / "text", tmp_path / "missing"):
        with pytest.raises(ValueError, match="is no safetensors file"):
            load_embeddings(file)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="must be new, empty or a synthetic set"):
        open_or_create_set(tmp_path, {"format": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"folder .*/file/set cannot be made: Not a directory"):
        open_or_create_set(tmp_path / "file" / "set", {"format": 1})


def test_images_are_counted_by_class(values, embeddings):
    loaded, names, _ = load_embeddings(embeddings)
    job = SynthesisJob(generator_settings(parse_config(values)), loaded, names)
    # The classes take turns: a shard of 256 has 86, 85 and 85 of them, two have 171, 171 and 170.
    assert job.counts_by_class({0}) == [86, 85, 85]
    assert job.counts_by_class({0, 1}) == [171, 171, 170]
    assert sum(job.counts_by_class(range(SHARDS))) == len(job.plan)


def test_a_folder_is_claimed_once_for_each_set(tmp_path):
    first = open_or_create_set(tmp_path / "set", {"format": 1})
    assert json.loads((first / ".manifest.json").read_text()) == {"format": 1}
    assert open_or_create_set(tmp_path / "set", {"format": 2}).name == "set-2"
    assert open_or_create_set(tmp_path / "set", {"format": 3}).name == "set-3"
    assert open_or_create_set(tmp_path / "set", {"format": 2}).name == "set-2"
