"""Making a synthetic set: what is missing of it, shard by shard, here or on workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from fgl_app.algorithms.synthesis import PlannedImage, Synthesizer
from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.shards import (
    decode_shard,
    encode_shard,
    missing_shards,
    open_or_create_set,
    write_shard,
)
from fgl_app.metrics.units import format_range
from fgl_app.models.fingerprints import encoder_fingerprint
from fgl_app.progress import log, track
from fgl_app.results.plots import plot_image_grid
from fgl_app.synthesis.generator import load_generator, make_synthesizer, on_cpu
from fgl_app.synthesis.job import SynthesisJob
from fgl_app.synthesis.workers import Workers, synthesize_on_workers

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PREVIEW_EVERY = 60.0
"""Seconds between two drawings of the newest shard."""
WAITING = 2
"""Shards that may wait to be written while the next is denoised."""


def make_set(job: SynthesisJob, out: Path, maker: DiffusionPipeline | Workers) -> Path:
    """Generate the missing shards of a synthetic set and return its folder.

    Parameters
    ----------
    job : SynthesisJob
        The set.
    out : Path
        Folder of the set; "out-2", "out-3" and so on when it holds another set.
    maker : DiffusionPipeline or Workers
        Loaded generator to generate the images in this process, or Ray workers.

    Returns
    -------
    Path
        Folder of the complete set: the one to read.

    Raises
    ------
    ValueError
        If the embeddings come from another text encoder than the generator's.
    OSError
        If the folder cannot be written.
    """
    # Workers load generators of their own: this one is freed before they start.
    folder = _open_set(job, out, load_generator(on_cpu(job.recipe)) if isinstance(maker, Workers) else maker)
    if folder != out:
        log.info("%s holds another set: writing to %s", out, folder)
    _generate_missing_shards(job, folder, maker)
    return folder


def _open_set(job: SynthesisJob, out: Path, pipeline: DiffusionPipeline) -> Path:
    encoder = encoder_fingerprint(pipeline)
    if job.encoder not in ("", encoder):
        raise ValueError(
            f"the embeddings are of text encoder {job.encoder}, that of generator '{job.recipe.generator}' "
            f"is {encoder}; give the generator of the run"
        )
    return open_or_create_set(out, job.manifest(pipeline))


def _generate_missing_shards(job: SynthesisJob, folder: Path, maker: DiffusionPipeline | Workers) -> None:
    missing = missing_shards(folder, job.num_shards)
    there = set(range(job.num_shards)).difference(missing)
    if there:
        log.info("%d of %d shards are there already", len(there), job.num_shards)
    if not missing:
        return
    last_drawn = 0.0

    def finish(number: int, content: bytes) -> None:
        nonlocal last_drawn
        try:
            write_shard(folder, number, job.num_shards, content)
        except OSError as error:
            raise OSError(
                f"synthetic images cannot be written to {folder}: {error.strerror or error}; "
                f"{len(there)} of {job.num_shards} shards are kept, the same command goes on from there"
            ) from error
        there.add(number)
        if time.monotonic() - last_drawn > PREVIEW_EVERY or len(there) == job.num_shards:
            last_drawn = time.monotonic()
            _show(job, there, content, folder.with_name(f"{folder.name}-preview.png"))

    with track(sum(map(job.size, missing)), "synthesizing", "images") as progress:
        if isinstance(maker, Workers):
            for number, content in synthesize_on_workers(job, missing, maker, progress.update):
                finish(number, content)
        else:
            synthesizer = make_synthesizer(job.recipe, maker)
            _synthesize_here(job, missing, synthesizer, finish, progress.update)


def _show(job: SynthesisJob, there: Collection[int], newest: bytes, file: Path) -> None:
    """Say how far each class is, and draw the newest shard."""
    counts = job.counts_by_class(there)
    log.info("%s images of each class so far, some in %s", format_range(counts), file)
    images = decode_shard(newest)
    try:
        plot_image_grid(
            images.arrays(), images.labels.numpy(), job.class_names, file, title="The newest images"
        )
    except OSError as error:
        log.warning("no preview: %s", error)


def _synthesize_here(
    job: SynthesisJob,
    numbers: Sequence[int],
    synthesizer: Synthesizer,
    finish: Callable[[int, bytes], None],
    callback: Callable[[int], None],
) -> None:
    """Make shards; one is encoded and written while the next is denoised."""

    def write(number: int, images: LabeledImages, planned: Sequence[PlannedImage]) -> None:
        finish(number, encode_shard(images, planned, job.class_names))

    waiting: deque[Future[None]] = deque()
    # On leaving, whatever the reason, what waits is still written.
    with ThreadPoolExecutor(max_workers=1) as writer:
        for number in numbers:
            shard = job.shard(number)
            waiting.append(writer.submit(write, number, synthesizer(shard, callback), shard.images))
            while waiting and (len(waiting) > WAITING or waiting[0].done()):
                waiting.popleft().result()
        for future in waiting:
            future.result()
