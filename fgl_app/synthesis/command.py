"""Synthesis on its own, from the embeddings that a run saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fgl_app.config import RunConfig
from fgl_app.data.shards import open_or_create_set
from fgl_app.models.fingerprints import encoder_fingerprint
from fgl_app.progress import log
from fgl_app.synthesis.engine import generate_missing_shards
from fgl_app.synthesis.generator import generator_settings, load_generator, on_cpu
from fgl_app.synthesis.job import SynthesisJob, load_embeddings
from fgl_app.synthesis.workers import ray_workers

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def synthesize_file(file: Path, out: Path, config: RunConfig) -> Path:
    """Make the synthetic set of saved embeddings, or what is missing of it.

    Parameters
    ----------
    file : Path
        ``embeddings.safetensors`` of a run.
    out : Path
        Where the set goes; beside it, when another set is there.
    config : RunConfig
        Generator, its settings, images of a class, seed, workers.

    Returns
    -------
    Path
        The set's folder.

    Raises
    ------
    ValueError
        When the file is no such file, or its embeddings are of another text encoder than the generator's.
    OSError
        When the folder cannot be written.
    """
    embeddings, names, encoder = load_embeddings(file)
    recipe = generator_settings(config)
    if not uses_ray(config):
        pipeline = load_generator(recipe)
        job = SynthesisJob(recipe, embeddings, names)
        folder = _claim(file, out, job, encoder, pipeline)
        generate_missing_shards(job, folder, pipeline)
        return folder
    with ray_workers(config) as workers:
        if recipe.dtype == "auto":
            recipe = replace(recipe, dtype=workers.dtype)
        job = SynthesisJob(recipe, embeddings, names)
        # Looked at and let go: the workers load their own.
        folder = _claim(file, out, job, encoder, load_generator(on_cpu(recipe)))
        generate_missing_shards(job, folder, workers)
    return folder


def _claim(file: Path, out: Path, job: SynthesisJob, encoder: str, pipeline: DiffusionPipeline) -> Path:
    own = encoder_fingerprint(pipeline)
    if encoder and own != encoder:
        raise ValueError(
            f"the embeddings in {file} are of text encoder {encoder}, that of generator "
            f"'{job.recipe.generator}' is {own}; give the generator of the run"
        )
    folder = open_or_create_set(out, job.manifest(pipeline))
    log.info("%d images in %s", len(job.plan), folder)
    return folder


def uses_ray(config: RunConfig) -> bool:
    """Return whether a config has its images made by Ray's workers."""
    return config.synthesis_workers > 1 or bool(config.ray_address)
