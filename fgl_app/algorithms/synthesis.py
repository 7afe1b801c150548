"""Synthesis of a labelled image set from text embeddings (arXiv 2306.16064, section 3.3)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fgl_app.algorithms.apportion import apportion
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import LabeledImages, TextEmbeddings
from fgl_app.progress import log

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class SynthesisSettings:
    """Settings of the denoising.

    Parameters
    ----------
    num_inference_steps : int
        Denoising steps (paper: 50).
    guidance_scale : float
        Classifier-free guidance scale w (paper: 2); 1 disables guidance.
    batch_size : int
        Maximum number of images per batch; it does not change the images.
    seed : int
        Seed of the initial noise.
    """

    num_inference_steps: int
    guidance_scale: float
    batch_size: int
    seed: int


def allocate_images(labels: Tensor, counts: Tensor, images_per_class: int) -> Tensor:
    """Split ``images_per_class`` images of each class over its prompts, in proportion to their counts.

    ``labels`` and ``counts`` are int64 of shape (P,): the class of each prompt, and the number of private
    examples behind it, positive. The shares have the same dtype and shape, and those of a class add up to
    ``images_per_class`` (largest remainder method; the earlier prompt wins a tie).
    """
    shares = torch.zeros_like(counts)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        of_class = apportion(counts[rows].tolist(), images_per_class)
        shares[rows] = torch.tensor(of_class, dtype=shares.dtype)
    return shares


class PlannedImage(NamedTuple):
    """An image to generate: the row of its prompt, and its number among the images of that prompt."""

    prompt: int
    number: int


def plan_images(labels: Tensor, shares: Tensor) -> list[PlannedImage]:
    """Return the images to generate, each once, alternating between classes.

    ``labels`` and ``shares`` are int64 of shape (P,): the class of each prompt, and its number of images from
    :func:`allocate_images`. Any consecutive part is balanced over classes, and within a class over prompts,
    as far as their numbers of images allow.
    """
    classes = []
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1).tolist()
        images = [PlannedImage(row, number) for row in rows for number in range(int(shares[row]))]
        classes.append(sorted(images, key=lambda image: (image.number, image.prompt)))
    return [image for one_each in zip_longest(*classes) for image in one_each if image is not None]


@dataclass(frozen=True, eq=False)
class Shard:
    """A part of a plan, generated and written as one file, with its index from 0 and at least one image.

    The embeddings are the prompts of the images, in ascending order of their row in the plan.
    """

    number: int
    images: tuple[PlannedImage, ...]
    embeddings: TextEmbeddings


def select_shard(embeddings: TextEmbeddings, plan: Sequence[PlannedImage], number: int, size: int) -> Shard:
    """Return shard ``number`` of a plan: ``size`` images, or the rest in the last shard."""
    images = tuple(plan[number * size : (number + 1) * size])
    return Shard(number, images, embeddings.select(sorted({image.prompt for image in images})))


class Synthesizer:
    """Generate shards of images with a text-to-image pipeline.

    Parameters
    ----------
    pipeline : DiffusionPipeline
        Its call takes the names of the embeddings as arguments.
    settings : SynthesisSettings
        Steps, guidance, batch size, seed. The batch size is halved permanently when memory runs out.
    negative : Mapping[str, Tensor] or None, default None
        Encoded negative prompt, each tensor of shape (1, ...), for embeddings without one; required for a
        guidance scale above 1.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        settings: SynthesisSettings,
        negative: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.pipeline, self.settings = pipeline, settings
        self.batch_size = settings.batch_size
        # Models distilled with guidance take no negative prompt.
        self._parameters = set(inspect.signature(pipeline.__call__).parameters)
        self._arguments: dict[str, Any] = {
            "num_inference_steps": settings.num_inference_steps,
            "guidance_scale": settings.guidance_scale,
            "output_type": "pt",
        }
        if "use_resolution_binning" in self._parameters:
            # Images keep the native size of the model; binning would change it to one of a fixed list.
            self._arguments["use_resolution_binning"] = False
        if "negative_prompt" in self._parameters:
            # The default "" of some pipelines is rejected together with an encoded negative prompt.
            self._arguments["negative_prompt"] = None
        self._negative = self._to_denoiser(
            {f"negative_{name}": each for name, each in (negative or {}).items()}
        )

    @torch.inference_mode()
    def __call__(self, shard: Shard, callback: Callable[[int], None] | None = None) -> LabeledImages:
        """Generate the images of a shard: uint8, of the pipeline's native size, in the order of the shard.

        ``callback`` is called with the number of images after each batch.
        """
        from accelerate.utils import find_executable_batch_size

        prompts = torch.tensor([image.prompt for image in shard.images])
        rows = prompts.unique(return_inverse=True)[1]
        conditions = self._to_denoiser(shard.embeddings.tensors)
        batches: list[Tensor] = []

        def halve_batch_size() -> int:
            if self.batch_size == 1:
                raise RuntimeError(
                    "not enough memory for a single image; set generator-offload=model or attention-slicing"
                )
            self.batch_size //= 2
            log.warning("out of memory: continuing with batches of %d images", self.batch_size)
            return self.batch_size

        def generate_rest(batch_size: int) -> None:
            while (done := sum(map(len, batches))) < len(rows):
                part = slice(done, done + batch_size)
                batch = {name: tensor[rows[part]] for name, tensor in conditions.items()}
                batches.append(self._generate(batch, shard.images[part]))
                if callback:
                    callback(len(batches[-1]))

        find_executable_batch_size(generate_rest, self.batch_size, halve_batch_size)()
        return LabeledImages(torch.cat(batches), shard.embeddings.labels[rows])

    def _generate(self, conditions: Mapping[str, Tensor], images: Sequence[PlannedImage]) -> Tensor:
        negative = {name: each.expand(len(images), *each.shape[1:]) for name, each in self._negative.items()}
        pixels: Tensor = self.pipeline(
            **{**negative, **conditions},
            **self._arguments,
            # One generator per image: it is the same image in any batch and after any interruption.
            generator=[seeded_generator("image", self.settings.seed, *image) for image in images],
        ).images
        return (pixels.float() * 255).round().to(torch.uint8).cpu()

    def _to_denoiser(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        denoiser = self.pipeline.components.get("unet") or self.pipeline.components["transformer"]
        device = self.pipeline._execution_device
        return {
            name: each.to(device, denoiser.dtype)
            for name, each in tensors.items()
            if name in self._parameters
        }
