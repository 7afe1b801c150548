"""What is to be synthesized: a job, its plan, and the manifest that tells two jobs apart."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from fgl_app.algorithms.synthesis import (
    PlannedImage,
    Shard,
    allocate_images,
    plan_images,
    select_shard,
)
from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.data.shards import SHARD_SIZE
from fgl_app.files import write_atomically
from fgl_app.models.fingerprints import pipeline_fingerprint
from fgl_app.synthesis.generator import GeneratorSettings

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


EMBEDDINGS, SYNTHETIC = "embeddings.safetensors", "synthetic"
"""Names of the embeddings and of the synthetic set in the folder of a run."""


@dataclass(frozen=True, eq=False)
class SynthesisJob:
    """A synthetic set to be made.

    Parameters
    ----------
    recipe : GeneratorSettings
        Generator, its settings, images of a class, seed.
    embeddings : TextEmbeddings
        Merged uploads.
    class_names : tuple[str, ...]
        Name of each class.
    encoder : str, default ""
        Fingerprint of the embeddings' text encoder, compared with the generator's; empty skips it.
    """

    recipe: GeneratorSettings
    embeddings: TextEmbeddings
    class_names: tuple[str, ...]
    encoder: str = ""

    @cached_property
    def plan(self) -> list[PlannedImage]:
        """All images, in the order of the shards."""
        labels, counts = self.embeddings.labels, self.embeddings.counts
        return plan_images(labels, allocate_images(labels, counts, self.recipe.images_per_class))

    @property
    def num_shards(self) -> int:
        """How many shards the set has."""
        return math.ceil(len(self.plan) / SHARD_SIZE)

    def size(self, number: int) -> int:
        """Return how many images a shard has."""
        return min(SHARD_SIZE, len(self.plan) - number * SHARD_SIZE)

    def shard(self, number: int) -> Shard:
        """Return a part of the plan, with its embeddings."""
        return select_shard(self.embeddings, self.plan, number, SHARD_SIZE)

    def counts_by_class(self, shards: Collection[int]) -> list[int]:
        """Return how many images of each class described some shards have."""
        prompts = [image.prompt for number, image in enumerate(self.plan) if number // SHARD_SIZE in shards]
        counts = torch.bincount(self.embeddings.labels[prompts], minlength=len(self.class_names))
        return [int(counts[label]) for label in self.embeddings.labels.unique()]

    def manifest(self, pipeline: DiffusionPipeline) -> dict[str, Any]:
        """Return what decides over the images, as JSON values; jobs with equal ones make the same set."""
        recipe, labels = self.recipe, self.embeddings.labels
        settings = recipe.settings
        return {
            "format": 1,
            "images": len(self.plan),
            "shards": self.num_shards,
            "classes": list(self.class_names),
            "plan": _digest(json.dumps([SHARD_SIZE, self.plan]).encode()),
            "embeddings": _digest(save({**_prompt_tensors(self.embeddings), "labels": labels})),
            # By content and not by name: the same generator lies elsewhere on another machine.
            "generator": [type(pipeline).__name__, pipeline_fingerprint(pipeline)],
            "settings": {
                "seed": settings.seed,
                "num-inference-steps": settings.num_inference_steps,
                "guidance-scale": settings.guidance_scale,
                "negative-prompt": recipe.negative_prompt if settings.guidance_scale > 1 else "",
                "scheduler": type(pipeline.scheduler).__name__,
                "dtype": str(pipeline.dtype),
            },
        }


def save_embeddings(embeddings: TextEmbeddings, class_names: Iterable[str], encoder: str, file: Path) -> None:
    """Save merged embeddings as safetensors, with the classes' names and the encoder's fingerprint."""
    tensors = _prompt_tensors(embeddings) | {"labels": embeddings.labels, "counts": embeddings.counts}
    metadata = {"classes": json.dumps(list(class_names)), "encoder": encoder}
    write_atomically(file, save(tensors, metadata))


def load_embeddings(file: Path) -> tuple[TextEmbeddings, tuple[str, ...], str]:
    """Load what :func:`save_embeddings` saved: the file, or that in a run's folder.

    Returns
    -------
    tuple[TextEmbeddings, tuple[str, ...], str]
        Embeddings, the classes' names, the encoder's fingerprint.

    Raises
    ------
    ValueError
        When the file cannot be read or holds something else; says what.
    """
    file = file / EMBEDDINGS if file.is_dir() else file
    try:
        with safetensors.safe_open(file, "pt") as content:
            tensors: dict[str, Tensor] = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            metadata = content.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"embeddings file {file} is no safetensors file ({error})") from error
    prompts = {
        name.removeprefix("prompt."): tensor for name, tensor in tensors.items() if name.startswith("prompt.")
    }
    if not prompts or not {"labels", "counts"} <= tensors.keys() or "classes" not in metadata:
        raise ValueError(f"file {file} holds no embeddings as a run saves them (embeddings.safetensors)")
    names = tuple(json.loads(metadata["classes"]))
    labels, counts = tensors["labels"], tensors["counts"]
    if {len(tensor) for tensor in (*prompts.values(), counts)} != {len(labels)} or not len(labels):
        raise ValueError(f"embeddings file {file} has tensors of different lengths, or no prompt")
    if int(labels.min()) < 0 or int(labels.max()) >= len(names) or int(counts.min()) < 1:
        raise ValueError(
            f"embeddings file {file} has labels outside its {len(names)} classes, or empty counts"
        )
    if not all(torch.isfinite(tensor).all() for tensor in prompts.values()):
        raise ValueError(f"embeddings file {file} holds NaN or infinite values")
    return TextEmbeddings(prompts, labels, counts), names, metadata.get("encoder", "")


def _prompt_tensors(embeddings: TextEmbeddings) -> dict[str, Tensor]:
    return {f"prompt.{name}": tensor.contiguous() for name, tensor in embeddings.tensors.items()}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
