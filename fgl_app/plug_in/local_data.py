"""Data that ``dataset_fn`` returns to the handlers, and its validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from fgl_app.algorithms.image_space import ImageSpace
from fgl_app.algorithms.types import LabeledImages, LabeledLatents

if TYPE_CHECKING:
    from diffusers import UNet2DModel


@dataclass(frozen=True, eq=False)
class PromptData:
    """Labels and descriptions for the prompts of a client, without images.

    Parameters
    ----------
    labels : Tensor
        int64, shape (N,): the class of each private example.
    captions : Sequence[str] or None, default None
        Caption of each example, for a template with ``{caption}`` (instance-level prompts).
    domains : Sequence[str] or None, default None
        Phrase for the domain of each example, such as "a pencil sketch", for a template with ``{domain}``.
    """

    labels: Tensor
    captions: Sequence[str] | None = None
    domains: Sequence[str] | None = None


def checked_labels(labels: Tensor, classes: int) -> list[int]:
    """Return labels as a list; raise ValueError if they are empty or not class numbers."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(
            f"dataset_fn's labels must be an int64 tensor of shape (N,), got {_describe(labels)}"
        )
    if not len(labels):
        raise ValueError("dataset_fn returned no examples")
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"dataset_fn's labels must be between 0 and {classes - 1}, "
            f"got {int(labels.min())} to {int(labels.max())}"
        )
    numbers: list[int] = labels.tolist()
    return numbers


def requested_texts(
    data: PromptData | LabeledImages, kind: Literal["captions", "domains"], template: str
) -> Sequence[str] | None:
    """Return the captions or domains of a client's examples; None if the template does not use them."""
    if "{" + kind.removesuffix("s") + "}" not in template:
        return None
    texts = getattr(data, kind) if isinstance(data, PromptData) else None
    if texts is None:
        raise ValueError(f"prompt_template uses {kind}, but dataset_fn returned none")
    if len(texts) != len(data.labels):
        raise ValueError(f"dataset_fn returned {len(texts)} {kind} for {len(data.labels)} labels")
    return list(map(str, texts))


def to_model_input(data: LabeledImages | LabeledLatents, unet: UNet2DModel) -> LabeledLatents:
    """Return examples as inputs of the U-Net; raise ValueError if they do not fit it."""
    checked_labels(data.labels, unet.config.num_class_embeds or 2**31)
    if isinstance(data, LabeledImages):
        if data.images.dtype != torch.uint8:
            raise ValueError(f"dataset_fn's LabeledImages must be uint8, got {data.images.dtype}")
        latents = ImageSpace(None).encode(data)
    else:
        if not data.latents.is_floating_point() or not data.latents.isfinite().all():
            raise ValueError(
                f"dataset_fn's LabeledLatents must be finite floats, got {_describe(data.latents)}"
            )
        latents = LabeledLatents(data.latents.float(), data.labels)
    side = unet.config.sample_size
    expected = (len(latents), unet.config.in_channels, side, side)
    if tuple(latents.latents.shape) != expected:
        raise ValueError(
            f"dataset_fn's examples must have shape {expected} for this U-Net, "
            f"got {tuple(latents.latents.shape)}"
        )
    return latents


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__
