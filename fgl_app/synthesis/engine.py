"""Generation of a synthetic set, shard by shard, in this process or on Ray workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from fgl_app.algorithms.synthesis import PlannedImage, Synthesizer
from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.shards import decode_shard, encode_shard, missing_shards, open_or_create_set, write_shard
from fgl_app.metrics.units import format_range
from fgl_app.models.fingerprints import encoder_fingerprint
from fgl_app.progress import log, track
from fgl_app.results.plots import plot_image_grid
from fgl_app.synthesis.generator import build_synthesizer, cpu_settings, load_generator
from fgl_app.synthesis.job import SynthesisJob
from fgl_app.synthesis.workers import Workers, synthesize_on_workers

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PREVIEW_INTERVAL = 60.0
"""Seconds between two previews of the latest shard."""
MAX_UNWRITTEN = 2
"""Maximum number of shards that wait to be written while the next one is generated."""


def make_set(job: SynthesisJob, out: Path, maker: DiffusionPipeline | Workers) -> Path:
    """Generate the missing shards of a synthetic set and return the folder to read it from.

    The folder is ``out``; or "out-2", "out-3" and so on if it contains another set. ``maker`` is a loaded
    generator, which draws the images in this process, or Ray workers.

    Raises
    ------
    ValueError
        If the embeddings come from another text encoder than the generator's.
    OSError
        If the folder cannot be written.
    """
    if isinstance(maker, Workers):
        job = maker.adapt(job)
        # For the manifest only: the workers load generators of their own.
        folder = _open_set(job, out, load_generator(cpu_settings(job.settings)))
    else:
        folder = _open_set(job, out, maker)
    if folder != out:
        log.info("%s contains another set: writing to %s", out, folder)
    _generate_missing_shards(job, folder, maker)
    return folder


def _open_set(job: SynthesisJob, out: Path, pipeline: DiffusionPipeline) -> Path:
    encoder = encoder_fingerprint(pipeline)
    if job.encoder not in ("", encoder):
        raise ValueError(
            f"the embeddings come from text encoder {job.encoder}, generator '{job.settings.generator}' has "
            f"{encoder}; give the generator of the run"
        )
    return open_or_create_set(out, job.manifest(pipeline))


def _generate_missing_shards(job: SynthesisJob, folder: Path, maker: DiffusionPipeline | Workers) -> None:
    missing = missing_shards(folder, job.num_shards)
    written = set(range(job.num_shards)).difference(missing)
    if written:
        log.info("%d of %d shards exist already", len(written), job.num_shards)
    if not missing:
        return
    last_preview = 0.0

    def write(number: int, content: bytes) -> None:
        nonlocal last_preview
        try:
            write_shard(folder, number, job.num_shards, content)
        except OSError as error:
            raise OSError(
                f"synthetic images cannot be written to {folder}: {error.strerror or error}; "
                f"{len(written)} of {job.num_shards} shards are kept, the same command continues from there"
            ) from error
        written.add(number)
        if time.monotonic() - last_preview > PREVIEW_INTERVAL or len(written) == job.num_shards:
            last_preview = time.monotonic()
            _show_progress(job, written, content, folder.with_name(f"{folder.name}-preview.png"))

    with track(sum(map(job.size, missing)), "synthesizing", "images") as progress:
        if isinstance(maker, Workers):
            for number, content in synthesize_on_workers(job, missing, maker, progress.update):
                write(number, content)
        else:
            synthesizer = build_synthesizer(job.settings, maker)
            _synthesize_here(job, missing, synthesizer, write, progress.update)


def _show_progress(job: SynthesisJob, written: Collection[int], latest: bytes, file: Path) -> None:
    """Log the number of images per class, and plot the latest shard."""
    counts = job.counts_by_class(written)
    log.info("%s images of each class so far, some in %s", format_range(counts), file)
    images = decode_shard(latest)
    try:
        plot_image_grid(images.arrays(), images.labels.numpy(), job.class_names, file, title="Latest images")
    except OSError as error:
        log.warning("no preview: %s", error)


def _synthesize_here(
    job: SynthesisJob,
    numbers: Sequence[int],
    synthesizer: Synthesizer,
    write: Callable[[int, bytes], None],
    callback: Callable[[int], None],
) -> None:
    """Generate shards; each is encoded and written while the next one is generated."""

    def encode_and_write(number: int, images: LabeledImages, planned: Sequence[PlannedImage]) -> None:
        write(number, encode_shard(images, planned, job.class_names))

    unwritten: deque[Future[None]] = deque()
    # Leaving the block waits for the unwritten shards, also after an error.
    with ThreadPoolExecutor(max_workers=1) as writer:
        for number in numbers:
            shard = job.shard(number)
            # No other reference: the images of a written shard are freed.
            task = writer.submit(encode_and_write, number, synthesizer(shard, callback), shard.images)
            unwritten.append(task)
            while unwritten and (len(unwritten) > MAX_UNWRITTEN or unwritten[0].done()):
                unwritten.popleft().result()
        for future in unwritten:
            future.result()
