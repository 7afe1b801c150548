"""Making a synthetic set: what is missing of it, shard by shard, here or on workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from fgl_app.algorithms.synthesis import Synthesizer
from fgl_app.data.shards import decode_shard, encode_shard, missing_shards, write_shard
from fgl_app.progress import log, track
from fgl_app.results.plots import plot_image_grid
from fgl_app.synthesis.job import SynthesisJob, make_synthesizer
from fgl_app.synthesis.workers import synthesize_on_workers

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PREVIEW_EVERY = 60.0
"""Seconds between two drawings of the newest shard."""
WAITING = 2
"""Shards that may wait to be encoded while the next is denoised."""


def fill_folder(job: SynthesisJob, folder: Path, pipeline: DiffusionPipeline | None) -> None:
    """Make what a folder lacks of a job's set.

    Parameters
    ----------
    job : SynthesisJob
        What to make.
    folder : Path
        As :func:`fgl_app.data.shards.claim_folder` returned it.
    pipeline : DiffusionPipeline or None
        Makes the images in this process; None leaves it to Ray's workers.

    Raises
    ------
    OSError
        When the folder cannot be written; says what is kept.
    """
    missing = missing_shards(folder, job.num_shards)
    made = job.num_shards - len(missing)
    if made:
        log.info("%d of %d shards are there already", made, job.num_shards)
    if not missing:
        return
    drawn = 0.0
    with track(sum(map(job.size, missing)), "synthesizing", "images") as progress:
        if pipeline is None:
            finished = synthesize_on_workers(job, missing, progress.update)
        else:
            finished = _synthesize_here(job, missing, make_synthesizer(job.config, pipeline), progress.update)
        for number, content in finished:
            try:
                write_shard(folder, number, job.num_shards, content)
            except OSError as error:
                raise OSError(
                    f"synthetic images cannot be written to {folder}: {error.strerror or error}; "
                    f"{made} of {job.num_shards} shards are kept, the same command goes on from there"
                ) from error
            made += 1
            if time.monotonic() - drawn > PREVIEW_EVERY or made == job.num_shards:
                drawn = time.monotonic()
                _draw(content, job.class_names, folder / "preview.png")


def _draw(shard: bytes, class_names: Sequence[str], file: Path) -> None:
    images = decode_shard(shard)
    pixels = images.images.permute(0, 2, 3, 1).squeeze(-1).numpy()
    plot_image_grid(pixels, images.labels.numpy(), class_names, file, title="The newest images")


def _synthesize_here(
    job: SynthesisJob, numbers: Sequence[int], synthesizer: Synthesizer, callback: Callable[[int], None]
) -> Iterator[tuple[int, bytes]]:
    """Yield finished shards; one is encoded while the next is denoised."""
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    with ThreadPoolExecutor(max_workers=1) as encoder:
        for number in numbers:
            shard = job.shard(number)
            images = synthesizer(shard, callback)
            waiting.append((number, encoder.submit(encode_shard, images, shard.images, job.class_names)))
            while waiting and (len(waiting) > WAITING or waiting[0][1].done()):
                number_done, content = waiting.popleft()
                yield number_done, content.result()
        for number_done, content in waiting:
            yield number_done, content.result()
