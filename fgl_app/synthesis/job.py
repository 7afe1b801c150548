"""A synthesis job: its plan, the manifest that identifies its set, and the file of its embeddings."""

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

from fgl_app.algorithms.synthesis import PlannedImage, Shard, allocate_images, plan_images, select_shard
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
    """A synthetic set to generate.

    Parameters
    ----------
    settings : GeneratorSettings
        Generator, its settings, images per class, seed.
    embeddings : TextEmbeddings
        Merged uploads.
    class_names : tuple[str, ...]
        Name of each class.
    encoder : str, default ""
        Fingerprint of the embeddings' text encoder, compared with the generator's; empty skips it.
    """

    settings: GeneratorSettings
    embeddings: TextEmbeddings
    class_names: tuple[str, ...]
    encoder: str = ""

    @cached_property
    def plan(self) -> list[PlannedImage]:
        """All images, in the order of the shards."""
        labels, counts = self.embeddings.labels, self.embeddings.counts
        return plan_images(labels, allocate_images(labels, counts, self.settings.images_per_class))

    @property
    def num_shards(self) -> int:
        """Number of shards of the set."""
        return math.ceil(len(self.plan) / SHARD_SIZE)

    def size(self, number: int) -> int:
        """Return the number of images of a shard."""
        return min(SHARD_SIZE, len(self.plan) - number * SHARD_SIZE)

    def shard(self, number: int) -> Shard:
        """Return a shard of the plan, with its embeddings."""
        return select_shard(self.embeddings, self.plan, number, SHARD_SIZE)

    def counts_by_class(self, shards: Collection[int]) -> list[int]:
        """Return the number of images of each described class in some shards."""
        prompts = [image.prompt for number, image in enumerate(self.plan) if number // SHARD_SIZE in shards]
        counts = torch.bincount(self.embeddings.labels[prompts], minlength=len(self.class_names))
        return [int(counts[label]) for label in self.embeddings.labels.unique()]

    def manifest(self, pipeline: DiffusionPipeline) -> dict[str, Any]:
        """Return all that determines the images, as JSON values: jobs with equal manifests share a set."""
        synthesis, labels = self.settings.synthesis, self.embeddings.labels
        return {
            "format": 1,
            "images": len(self.plan),
            "shards": self.num_shards,
            "classes": list(self.class_names),
            "plan": _digest(json.dumps([SHARD_SIZE, self.plan]).encode()),
            "embeddings": _digest(save({**_prompt_tensors(self.embeddings), "labels": labels})),
            # By content and not by name: the path of a generator differs between machines.
            "generator": [type(pipeline).__name__, pipeline_fingerprint(pipeline)],
            "settings": {
                "seed": synthesis.seed,
                "num-inference-steps": synthesis.num_inference_steps,
                "guidance-scale": synthesis.guidance_scale,
                "negative-prompt": self.settings.negative_prompt if synthesis.guidance_scale > 1 else "",
                "scheduler": type(pipeline.scheduler).__name__,
                "dtype": str(pipeline.dtype),
            },
        }


def save_embeddings(embeddings: TextEmbeddings, class_names: Iterable[str], encoder: str, file: Path) -> None:
    """Save merged embeddings as safetensors, with the class names and the fingerprint of the text encoder."""
    tensors = _prompt_tensors(embeddings) | {"labels": embeddings.labels, "counts": embeddings.counts}
    metadata = {"classes": json.dumps(list(class_names)), "encoder": encoder}
    write_atomically(file, save(tensors, metadata))


def load_embeddings(file: Path) -> tuple[TextEmbeddings, tuple[str, ...], str]:
    """Load embeddings of :func:`save_embeddings` from their file or from the folder of a run.

    Returns
    -------
    tuple[TextEmbeddings, tuple[str, ...], str]
        Embeddings, class names, fingerprint of the text encoder.

    Raises
    ------
    ValueError
        If the file cannot be read or is invalid.
    """
    file = file / EMBEDDINGS if file.is_dir() else file
    try:
        with safetensors.safe_open(file, "pt") as content:
            tensors: dict[str, Tensor] = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            metadata = content.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"embeddings file {file} is not a safetensors file ({error})") from error
    prompts = {
        name.removeprefix("prompt."): tensor for name, tensor in tensors.items() if name.startswith("prompt.")
    }
    if not prompts or not {"labels", "counts"} <= tensors.keys() or "classes" not in metadata:
        raise ValueError(f"file {file} has no embeddings of a run (embeddings.safetensors)")
    names = tuple(json.loads(metadata["classes"]))
    labels, counts = tensors["labels"], tensors["counts"]
    if {len(tensor) for tensor in (*prompts.values(), counts)} != {len(labels)} or not len(labels):
        raise ValueError(f"embeddings file {file} has tensors of different lengths, or no prompts")
    if int(labels.min()) < 0 or int(labels.max()) >= len(names) or int(counts.min()) < 1:
        raise ValueError(
            f"embeddings file {file} has labels outside its {len(names)} classes, or counts below 1"
        )
    if not all(torch.isfinite(tensor).all() for tensor in prompts.values()):
        raise ValueError(f"embeddings file {file} contains NaN or infinity")
    return TextEmbeddings(prompts, labels, counts), names, metadata.get("encoder", "")


def _prompt_tensors(embeddings: TextEmbeddings) -> dict[str, Tensor]:
    return {f"prompt.{name}": tensor.contiguous() for name, tensor in embeddings.tensors.items()}


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
