"""Synthesis on Ray workers."""

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

from fgl_app.data.shards import write_shard
from fgl_app.synthesis import engine
from fgl_app.synthesis.workers import Workers, allocate_workers, check_cluster
from tests.synthesis.conftest import read_images

RAY = str(Path(sys.executable).with_name("ray"))


def start_node(home, *arguments):
    # With this address, Ray listens on loopback only. A killed Ray leaves its address in its folder, where
    # every later Ray without an address would look for it.
    return subprocess.Popen(
        [RAY, "start", "--num-cpus=1", "--node-ip-address=127.0.0.1", "--block", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1", "RAY_TMPDIR": home},
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_listening(address):
    try:
        check_cluster(address)
    except ConnectionError:
        return False
    return True


@pytest.fixture
def cluster(monkeypatch):
    """Address of a Ray cluster, and its two nodes of one core each."""
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    # A short path: it contains sockets.
    home = tempfile.mkdtemp(prefix="ray-")
    nodes = [start_node(home, "--head", f"--port={port}", "--include-dashboard=false")]
    try:
        wait_until(lambda: is_listening(address))
        nodes.append(start_node(home, f"--address={address}"))
        ray.init(address, log_to_driver=False, configure_logging=False)
        wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2)
        ray.shutdown()
        yield address, nodes
    finally:
        ray.shutdown()
        for node in nodes:
            if node.poll() is None:
                os.killpg(node.pid, signal.SIGKILL)
            node.wait()
        shutil.rmtree(home)


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_and_a_node_makes_the_same_set(
    cluster, saved, reference, tmp_path, monkeypatch
):
    address, nodes = cluster
    killed = []

    def write(folder, number, total, content):
        write_shard(folder, number, total, content)
        if not killed:
            processes = [each for node in nodes for each in psutil.Process(node.pid).children(recursive=True)]
            worker = next(each for each in processes if each.name().startswith("ray::_synth"))
            worker.kill()
            killed.append(worker)
        elif len(killed) == 1:
            os.killpg(nodes[1].pid, signal.SIGKILL)
            killed.append(nodes[1])

    monkeypatch.setattr(engine, "write_shard", write)
    folder = saved.make(tmp_path / "set", synthesis_workers=2, ray_address=address)
    assert len(killed) == 2
    assert np.array_equal(read_images(folder), reference)


@pytest.mark.parametrize(
    ("nodes", "workers", "use_gpus", "expected"),
    [
        ([{"CPU": 2}], 2, True, Workers(2, gpus=0, cpus=1)),
        ([{"CPU": 8}], 3, True, Workers(3, gpus=0, cpus=2)),
        # No node has the two cores that one worker for two nodes would get.
        ([{"CPU": 1}, {"CPU": 1}], 1, True, Workers(1, gpus=0, cpus=1)),
        ([{"CPU": 2}] * 3, 2, True, Workers(2, gpus=0, cpus=2)),
        ([{"CPU": 16, "GPU": 2}, {"CPU": 16, "GPU": 1}], 4, True, Workers(3, gpus=1, cpus=1)),
        ([{"CPU": 16, "GPU": 2}], 4, False, Workers(4, gpus=0, cpus=4)),
    ],
)
def test_every_worker_fits_on_a_node(nodes, workers, use_gpus, expected):
    assert allocate_workers(nodes, workers, use_gpus=use_gpus) == expected
