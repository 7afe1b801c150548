"""Synthesis on Ray: on this machine's GPUs or cores, or on a cluster's."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import torch

from fgl_app.algorithms.synthesis import Shard, Synthesizer
from fgl_app.config import RunConfig
from fgl_app.data.shards import encode_shard
from fgl_app.progress import log
from fgl_app.synthesis.job import SynthesisJob, load_generator, make_synthesizer

ATTEMPTS = 3
"""How often a shard whose worker died is made anew before the run fails."""


def synthesize_on_workers(
    job: SynthesisJob, numbers: Sequence[int], callback: Callable[[int], None]
) -> Iterator[tuple[int, bytes]]:
    """Yield finished shards as they come.

    Ray places a task for each shard, keeps the worker processes with their loaded pipelines, and runs a task
    again elsewhere when its worker or machine dies.

    Parameters
    ----------
    job : SynthesisJob
        Its config says how many workers, and the address of the cluster; empty is this machine alone.
    numbers : Sequence[int]
        The shards to make.
    callback : Callable[[int], None]
        Called with the number of images of each finished shard.

    Raises
    ------
    RuntimeError
        When a shard fails, or has lost its worker too often.
    ConnectionError
        When there is no cluster at the address.
    """
    # A task that asks for no GPU is to leave the variables of the devices alone, as in Ray's next versions.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    config = job.config
    if config.device.startswith("cuda"):
        # A worker sees its own GPU alone.
        config = config.model_copy(update={"device": "auto"})
    address = config.ray_address or "local"
    # "local" says: whatever cluster this machine's user has running, start one of this process's own.
    ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
    try:
        resources = _resources_of_a_worker(ray.cluster_resources(), config.synthesis_workers)
        share = "a GPU" if resources["num_gpus"] else f"{resources['num_cpus']} cores"
        log.info("%d Ray workers with %s each", config.synthesis_workers, share)
        task = ray.remote(max_calls=0, max_retries=ATTEMPTS, **resources)(_make_shard)
        left = iter(numbers)
        running: dict[Any, int] = {}
        while True:
            for number in left:
                shard = job.shard(number)
                running[task.remote(config, shard, job.class_names, resources["num_cpus"])] = number
                if len(running) == config.synthesis_workers:
                    break
            if not running:
                return
            (finished, *_), _ = ray.wait(list(running))
            number = running.pop(finished)
            try:
                content = ray.get(finished)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[-1]
                raise RuntimeError(f"Ray's workers could not make shard {number}: {reason}") from error
            callback(job.size(number))
            yield number, content
    finally:
        ray.shutdown()


def _resources_of_a_worker(cluster: dict[str, float], workers: int) -> dict[str, int]:
    """Return what Ray is asked for: a GPU each where there are any, else an equal share of the cores."""
    if cluster.get("GPU"):
        return {"num_gpus": 1, "num_cpus": 1}
    return {"num_gpus": 0, "num_cpus": max(1, int(cluster.get("CPU", 1)) // workers)}


def _make_shard(config: RunConfig, shard: Shard, class_names: tuple[str, ...], threads: int) -> bytes:
    torch.set_num_threads(threads)
    return encode_shard(_synthesizer(config)(shard), shard.images, class_names)


@lru_cache(maxsize=1)
def _synthesizer(config: RunConfig) -> Synthesizer:
    return make_synthesizer(config, load_generator(config))
