"""Synthesis on Ray workers, on the GPUs or cores of this machine or of a cluster."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch

from fgl_app.algorithms.synthesis import Shard, Synthesizer
from fgl_app.config import RunConfig
from fgl_app.data.shards import encode_shard
from fgl_app.progress import log
from fgl_app.synthesis.generator import GeneratorSettings, build_synthesizer, load_generator
from fgl_app.synthesis.job import SynthesisJob

MAX_RETRIES = 3
"""How often Ray repeats a shard whose worker died, before the run fails."""


@dataclass(frozen=True)
class Workers:
    """A number of Ray workers for synthesis, and the GPUs and cores of each worker."""

    number: int
    gpus: int
    cpus: int

    def adapt(self, job: SynthesisJob) -> SynthesisJob:
        """Return a job with the precision and the device of the workers."""
        placement = job.settings.placement
        if placement.dtype == "auto":
            placement = replace(placement, dtype="float16" if self.gpus else "float32")
        if str(placement.device).startswith("cuda"):
            # Only its own GPU is visible to a worker.
            placement = replace(placement, device="auto")
        return replace(job, settings=replace(job.settings, placement=placement))


@contextmanager
def ray_workers(config: RunConfig) -> Iterator[Workers]:
    """Connect to the Ray cluster of a config, or start a local one for this process.

    Raises
    ------
    ConnectionError
        If no cluster listens at the address.
    """
    # Without it, Ray hides all GPUs from tasks that request none; its next versions no longer do.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    check_cluster(config.ray_address)
    # "local" starts a cluster for this process, even if the user runs another one on this machine.
    address = config.ray_address or "local"
    ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers = allocate_workers(nodes, config.synthesis_workers, use_gpus=config.device != "cpu")
        share = "a GPU" if workers.gpus else "1 core" if workers.cpus == 1 else f"{workers.cpus} cores"
        log.info("%d Ray workers with %s each", workers.number, share)
        yield workers
    finally:
        ray.shutdown()


def check_cluster(address: str) -> None:
    """Raise ConnectionError if nothing listens at a cluster's address; Ray itself would wait for minutes."""
    if not address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster listens at ray-address {address}: {error}") from error


def allocate_workers(nodes: Sequence[Mapping[str, float]], workers: int, *, use_gpus: bool) -> Workers:
    """Allocate the resources of a cluster to workers: one GPU and one core each, or at least one core each.

    ``nodes`` has the resources of each node, as reported by Ray. GPUs limit the requested number of workers;
    without GPUs, or if ``use_gpus`` is False, the cores are shared equally.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus and use_gpus:
        return Workers(min(workers, gpus), gpus=1, cpus=1)
    cores = [int(node.get("CPU", 0)) for node in nodes]
    # A task that requests more cores than any node has would wait forever.
    return Workers(workers, gpus=0, cpus=max(1, min(sum(cores) // workers, max(cores))))


def synthesize_on_workers(
    job: SynthesisJob, numbers: Sequence[int], workers: Workers, callback: Callable[[int], None]
) -> Iterator[tuple[int, bytes]]:
    """Yield the number and content of each shard as it finishes.

    Each shard is a Ray task, which is repeated elsewhere when its worker or machine dies. On cores, worker
    processes keep their loaded pipeline for the next shard. On GPUs, each shard gets a new process, since Ray
    does not guarantee the same GPU to the next task of a process. ``callback`` is called with the number of
    images after each shard.

    Raises
    ------
    RuntimeError
        If a shard fails, or its worker died too often.
    """
    import ray

    options = {"num_gpus": workers.gpus, "num_cpus": workers.cpus, "max_calls": 1 if workers.gpus else 0}
    task = ray.remote(max_retries=MAX_RETRIES, **options)(_synthesize_shard)
    remaining = iter(numbers)
    running: dict[Any, int] = {}
    while True:
        for number in remaining:
            arguments = (job.settings, job.shard(number), job.class_names, workers.cpus)
            running[task.remote(*arguments)] = number
            if len(running) == workers.number:
                break
        if not running:
            return
        (finished, *_), _ = ray.wait(list(running))
        number = running.pop(finished)
        try:
            content = ray.get(finished)
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RuntimeError(f"Ray workers could not generate shard {number}: {reason}") from error
        callback(job.size(number))
        yield number, content


def _synthesize_shard(
    settings: GeneratorSettings, shard: Shard, class_names: tuple[str, ...], threads: int
) -> bytes:
    torch.set_num_threads(threads)
    return encode_shard(_cached_synthesizer(settings)(shard), shard.images, class_names)


@lru_cache(maxsize=1)
def _cached_synthesizer(settings: GeneratorSettings) -> Synthesizer:
    return build_synthesizer(settings, load_generator(settings))
