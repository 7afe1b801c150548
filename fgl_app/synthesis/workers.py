"""Synthesis on Ray: on this machine's GPUs or cores, or on a cluster's."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import torch

from fgl_app.algorithms.synthesis import Shard, Synthesizer
from fgl_app.config import RunConfig
from fgl_app.data.shards import encode_shard
from fgl_app.progress import log
from fgl_app.synthesis.generator import GeneratorSettings, load_generator, make_synthesizer
from fgl_app.synthesis.job import SynthesisJob

ATTEMPTS = 3
"""How often a shard whose worker died is made anew before the run fails."""


@dataclass(frozen=True)
class Workers:
    """What Ray has for synthesis.

    Parameters
    ----------
    number : int
        Shards made at a time.
    gpus, cpus : int
        What each takes.
    """

    number: int
    gpus: int
    cpus: int

    @property
    def dtype(self) -> Literal["float16", "float32"]:
        """What ``generator-dtype=auto`` is on them."""
        return "float16" if self.gpus else "float32"


@contextmanager
def ray_workers(config: RunConfig) -> Iterator[Workers]:
    """Connect to a config's Ray cluster, or start one of this process's own.

    Raises
    ------
    ConnectionError
        When there is no cluster at the address.
    """
    # A task that asks for no GPU is to leave the variables of the devices alone, as in Ray's next versions.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    check_cluster(config.ray_address)
    # "local" says: whatever cluster this machine's user has running, start one of this process's own.
    address = config.ray_address or "local"
    ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
    try:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        workers = share_out(nodes, config.synthesis_workers, use_gpus=config.device != "cpu")
        share = "a GPU" if workers.gpus else "1 core" if workers.cpus == 1 else f"{workers.cpus} cores"
        log.info("%d Ray workers with %s each", workers.number, share)
        yield workers
    finally:
        ray.shutdown()


def check_cluster(address: str) -> None:
    """Raise ConnectionError when nothing listens at a cluster's address; Ray itself would wait minutes."""
    if not address:
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster listens at ray-address {address}: {error}") from error


def share_out(nodes: Sequence[Mapping[str, float]], workers: int, *, use_gpus: bool) -> Workers:
    """Share a cluster out over workers: a GPU each where there are any, else as many cores.

    Parameters
    ----------
    nodes : Sequence[Mapping[str, float]]
        Ray's resources of each node.
    workers : int
        How many are asked for; with fewer GPUs there are as many workers as GPUs.
    use_gpus : bool
        False for the cores alone.

    Returns
    -------
    Workers
        How many, and what each takes: a GPU and a core, or at least one core.
    """
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if gpus and use_gpus:
        return Workers(min(workers, gpus), gpus=1, cpus=1)
    cores = [int(node.get("CPU", 0)) for node in nodes]
    # No task may ask for more than some node has, or it waits for ever.
    return Workers(workers, gpus=0, cpus=max(1, min(sum(cores) // workers, max(cores))))


def synthesize_on_workers(
    job: SynthesisJob, numbers: Sequence[int], workers: Workers, callback: Callable[[int], None]
) -> Iterator[tuple[int, bytes]]:
    """Yield finished shards as they come.

    Ray places a task for each shard and runs it again elsewhere when its worker or machine dies. On cores the
    worker processes keep their loaded pipeline from shard to shard; on GPUs each shard has a new process, as
    Ray does not promise the next task of a process the same GPU.

    Parameters
    ----------
    job : SynthesisJob
        What to make.
    numbers : Sequence[int]
        The shards to make.
    workers : Workers
        Of :func:`ray_workers`, which is still open.
    callback : Callable[[int], None]
        Called with the number of images of each finished shard.

    Raises
    ------
    RuntimeError
        When a shard fails, or has lost its worker too often.
    """
    import ray

    recipe = job.recipe
    if recipe.device.startswith("cuda"):
        # A worker sees its own GPU alone.
        recipe = replace(recipe, device="auto")
    options = {"num_gpus": workers.gpus, "num_cpus": workers.cpus, "max_calls": 1 if workers.gpus else 0}
    task = ray.remote(max_retries=ATTEMPTS, **options)(_make_shard)
    left = iter(numbers)
    running: dict[Any, int] = {}
    while True:
        for number in left:
            arguments = (recipe, job.shard(number), job.class_names, workers.cpus)
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
            raise RuntimeError(f"Ray's workers could not make shard {number}: {reason}") from error
        callback(job.size(number))
        yield number, content


def _make_shard(recipe: GeneratorSettings, shard: Shard, class_names: tuple[str, ...], threads: int) -> bytes:
    torch.set_num_threads(threads)
    return encode_shard(_synthesizer(recipe)(shard), shard.images, class_names)


@lru_cache(maxsize=1)
def _synthesizer(recipe: GeneratorSettings) -> Synthesizer:
    return make_synthesizer(recipe, load_generator(recipe))
