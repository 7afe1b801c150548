"""Synthesis: from text embeddings to a labelled image set (arXiv 2306.16064, section 3.3)."""

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
    """How images are denoised.

    Parameters
    ----------
    num_inference_steps : int
        Denoising steps (paper: 50).
    guidance_scale : float
        Classifier-free guidance w (paper: 2); 1 is none.
    batch_size : int
        Images denoised at a time at most; it does not change the images.
    seed : int
        Seed of the images' noise.
    """

    num_inference_steps: int
    guidance_scale: float
    batch_size: int
    seed: int


def allocate_images(labels: Tensor, counts: Tensor, images_per_class: int) -> Tensor:
    """Share each class's image budget among its prompts in proportion to their counts.

    Parameters
    ----------
    labels : Tensor
        int64, shape (P,): the class of each prompt.
    counts : Tensor
        int64, shape (P,), positive: private examples behind each prompt.
    images_per_class : int
        Budget of a class.

    Returns
    -------
    Tensor
        int64, shape (P,). The shares of a class add up to the budget (largest remainder; the earlier
        prompt wins a tie).
    """
    shares = torch.zeros_like(counts)
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1)
        floors = apportion(counts[rows].tolist(), images_per_class)
        shares[rows] = torch.tensor(floors, dtype=shares.dtype)
    return shares


class PlannedImage(NamedTuple):
    """An image to be made: the row of its prompt, and its number among that prompt's images."""

    prompt: int
    number: int


def plan_images(labels: Tensor, shares: Tensor) -> list[PlannedImage]:
    """Return the images to be made, the classes in turn.

    Parameters
    ----------
    labels : Tensor
        int64, shape (P,): the class of each prompt.
    shares : Tensor
        int64, shape (P,): images of each prompt, as :func:`allocate_images` gives them.

    Returns
    -------
    list[PlannedImage]
        Each once. Any run of them has as much of every class as there is, and within a class of every prompt.
    """
    classes = []
    for label in labels.unique():
        rows = (labels == label).nonzero().squeeze(1).tolist()
        images = [PlannedImage(row, number) for row in rows for number in range(int(shares[row]))]
        classes.append(sorted(images, key=lambda image: (image.number, image.prompt)))
    return [image for turn in zip_longest(*classes) for image in turn if image is not None]


@dataclass(frozen=True, eq=False)
class Shard:
    """A part of a plan that is made in one piece.

    Parameters
    ----------
    number : int
        From 0.
    images : tuple[PlannedImage, ...]
        At least one.
    embeddings : TextEmbeddings
        Those prompts that the images are of, in ascending order of their row in the plan.
    """

    number: int
    images: tuple[PlannedImage, ...]
    embeddings: TextEmbeddings


def select_shard(embeddings: TextEmbeddings, plan: Sequence[PlannedImage], number: int, size: int) -> Shard:
    """Return a plan's shard of ``size`` images, or as many as are left for the last, by its number."""
    images = tuple(plan[number * size : (number + 1) * size])
    return Shard(number, images, embeddings.select(sorted({image.prompt for image in images})))


class Synthesizer:
    """Makes shards of images with a text-to-image pipeline.

    Parameters
    ----------
    pipeline : DiffusionPipeline
        Its call takes the embeddings' names as arguments.
    settings : SynthesisSettings
        Steps, guidance, batch size, seed. When memory runs out the batch size is halved, for good.
    negative : Mapping[str, Tensor] or None, default None
        Encoded negative prompt, shape (1, ...) each, of those that bring none of their own; needed when the
        guidance scale is above 1.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        settings: SynthesisSettings,
        negative: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.pipeline, self.settings = pipeline, settings
        self.batch_size = settings.batch_size
        # Models that were distilled with guidance take no negative prompt.
        self._takes = set(inspect.signature(pipeline.__call__).parameters)
        self._fixed: dict[str, Any] = {
            "num_inference_steps": settings.num_inference_steps,
            "guidance_scale": settings.guidance_scale,
            "output_type": "pt",
        }
        if "use_resolution_binning" in self._takes:
            # The images keep the model's own size, whatever list of sizes its family has.
            self._fixed["use_resolution_binning"] = False
        if "negative_prompt" in self._takes:
            # For some it is "" by default, which must not come beside an encoded one.
            self._fixed["negative_prompt"] = None
        self._negative = self._placed({f"negative_{name}": each for name, each in (negative or {}).items()})

    @torch.inference_mode()
    def __call__(self, shard: Shard, callback: Callable[[int], None] | None = None) -> LabeledImages:
        """Make a shard's images.

        Parameters
        ----------
        shard : Shard
            What to make.
        callback : Callable[[int], None] or None, default None
            Called with the number of images of each finished batch.

        Returns
        -------
        LabeledImages
            uint8 images of the pipeline's own size, in the order of the shard.
        """
        from accelerate.utils import find_executable_batch_size

        prompts = torch.tensor([image.prompt for image in shard.images])
        which = prompts.unique(return_inverse=True)[1]
        conditions = self._placed(shard.embeddings.tensors)
        batches: list[Tensor] = []

        def halve() -> int:
            if self.batch_size == 1:
                raise RuntimeError(
                    "memory does not hold a single image; set generator-offload=model or attention-slicing"
                )
            self.batch_size //= 2
            log.warning("out of memory: going on with %d images at a time", self.batch_size)
            return self.batch_size

        def make_the_rest(batch_size: int) -> None:
            while (done := sum(map(len, batches))) < len(which):
                part = slice(done, done + batch_size)
                rows = {name: tensor[which[part]] for name, tensor in conditions.items()}
                batches.append(self._batch(rows, shard.images[part]))
                if callback:
                    callback(len(batches[-1]))

        find_executable_batch_size(make_the_rest, self.batch_size, halve)()
        return LabeledImages(torch.cat(batches), shard.embeddings.labels[which])

    def _batch(self, conditions: Mapping[str, Tensor], images: Sequence[PlannedImage]) -> Tensor:
        negative = {name: each.expand(len(images), *each.shape[1:]) for name, each in self._negative.items()}
        pixels: Tensor = self.pipeline(
            **{**negative, **conditions},
            **self._fixed,
            # A stream for each image: it is the same image in any batch and after any interruption.
            generator=[seeded_generator("image", self.settings.seed, *image) for image in images],
        ).images
        return (pixels.float() * 255).round().to(torch.uint8).cpu()

    def _placed(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        denoiser = self.pipeline.components.get("unet") or self.pipeline.components["transformer"]
        device = self.pipeline._execution_device
        return {
            name: each.to(device, denoiser.dtype) for name, each in tensors.items() if name in self._takes
        }
