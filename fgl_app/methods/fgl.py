"""``method="fgl"``: embeddings from clients, synthesis and training on the server, further rounds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from fgl_app.algorithms.classification import TrainSettings
from fgl_app.algorithms.embedding import embed_prompts, encode_texts
from fgl_app.algorithms.prompts import write_prompts
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import LabeledImages, State, TextEmbeddings
from fgl_app.data.shards import read_shards
from fgl_app.data.vocabulary import load_vocabulary
from fgl_app.models.fingerprints import encoder_fingerprint
from fgl_app.progress import log
from fgl_app.server.session import Session
from fgl_app.server.training import train_with_progress
from fgl_app.strategies.fgl import FGLStrategy
from fgl_app.synthesis.command import synthesize_in_subprocess, uses_ray
from fgl_app.synthesis.engine import make_set
from fgl_app.synthesis.generator import cpu_settings, generator_settings, load_generator
from fgl_app.synthesis.job import EMBEDDINGS, SYNTHETIC, SynthesisJob, save_embeddings
from fgl_app.tasks.classification import server_settings, synthetic_settings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def run_fgl(session: Session) -> nn.Module:
    """Run FGL and return the last global model."""
    config = session.config
    with session.directory.phase("loading the generator"):
        # Ray's workers load their own generator; the server's encodes texts only and leaves them the GPU.
        settings = generator_settings(config)
        pipeline = load_generator(cpu_settings(settings) if uses_ray(config) else settings)
        # The negative prompt is encoded in any case: its shapes are those of a valid upload.
        negative = encode_texts(pipeline, [config.negative_prompt])

    def synthesize_fn(embeddings: TextEmbeddings) -> LabeledImages:
        _plot_label_counts(session, strategy)
        return _synthesize(session, pipeline, embeddings)

    def train_fn(state: State, data: LabeledImages) -> State:
        return _train(session, state, data, synthetic_settings(config), "training on synthetic images")

    def correct_fn(state: State, data: LabeledImages) -> State:
        return _train(session, state, data, server_settings(config), "fine-tuning on synthetic images")

    labels_only = config.prompts == "labels-only"
    strategy = FGLStrategy(
        session.checked_strategy(),
        synthesize_fn=synthesize_fn,
        train_fn=train_fn,
        correct_fn=correct_fn if config.server_epochs else None,
        num_classes=len(session.dataset.class_names),
        embeddings=_embed_class_names(session, pipeline) if labels_only else None,
        embedding_shapes=_embedding_shapes(session, negative),
        encoder=encoder_fingerprint(pipeline),
        max_upload_bytes=int(config.max_upload_mb * 1e6),
        max_weight_ratio=config.max_weight_ratio,
        num_nodes=config.num_clients,
        min_uploads=config.min_nodes,
        setup_timeout=config.node_timeout,
    )
    rounds = f"then {config.num_server_rounds - 1} rounds of {config.inner_strategy}"
    log.info(
        "FGL over %d clients, %s%s",
        len(session.nodes),
        "one-shot" if config.num_server_rounds == 1 else rounds,
        "; labels only: no upload" if labels_only else ": requesting text embeddings",
    )
    return session.run(strategy)


def _synthesize(session: Session, pipeline: DiffusionPipeline, embeddings: TextEmbeddings) -> LabeledImages:
    config, names = session.config, session.dataset.class_names
    absent = sorted(set(range(len(names))) - set(embeddings.labels.tolist()))
    if absent:
        log.warning("no client described %s: no images of these classes", ", ".join(names[i] for i in absent))
    path = session.directory.path
    save_embeddings(embeddings, names, encoder_fingerprint(pipeline), path / EMBEDDINGS)
    with session.directory.phase("synthesis"):
        if uses_ray(config):
            folder = synthesize_in_subprocess(path)
        else:
            job = SynthesisJob(generator_settings(config), embeddings, names)
            folder = make_set(job, path / SYNTHETIC, pipeline)
    with session.directory.phase("reading images"):
        images = read_shards(folder, config.image_size, session.dataset.test.images.shape[1])
    session.plot_images(images, "synthetic_images.png", "Synthetic images")
    session.state.results |= {"num_prompts": len(embeddings), "num_synthetic_images": len(images)}
    return images


def _train(
    session: Session, state: State, data: LabeledImages, settings: TrainSettings, description: str
) -> State:
    model = session.task.model_with(state)
    # Each fine-tuning, one after every round, has its own order and augmentation.
    generator = seeded_generator("server", session.config.seed, len(session.state.curve))
    with session.directory.phase(description):
        train_with_progress(model, data, settings, generator, description)
    return model.state_dict()


def _embed_class_names(session: Session, pipeline: DiffusionPipeline) -> TextEmbeddings:
    """Embed one prompt for each class name: what the server can do without any client."""
    names = session.dataset.class_names
    prompts = write_prompts(session.config.template, range(len(names)), names)
    return embed_prompts(pipeline, prompts, dtype=getattr(torch, session.config.embedding_dtype))


def _embedding_shapes(session: Session, encoded: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of one prompt's tensors; clients with domains may add negative prompts."""
    shapes = {name: tuple(tensor.shape[1:]) for name, tensor in encoded.items()}
    if load_vocabulary(session.config.vocabulary).negatives:
        shapes |= {f"negative_{name}": shape for name, shape in shapes.items()}
    return shapes


def _plot_label_counts(session: Session, strategy: FGLStrategy[LabeledImages]) -> None:
    """Plot the examples of each class that each client reported in its upload."""
    num_classes = len(session.dataset.class_names)
    counts = [
        np.bincount(upload.labels, weights=upload.counts, minlength=num_classes).astype(np.int64)
        for _, upload in sorted(strategy.uploads.items())
    ]
    if counts:
        session.plot_label_counts(np.stack(counts))
