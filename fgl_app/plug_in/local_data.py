"""What a client's own code gives to the handlers here, and the rules for it."""

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
    """What a client's prompts are written from: no image is needed.

    Parameters
    ----------
    labels : Tensor
        int64, shape (N,): the class of each private example.
    captions : Sequence[str] or None, default None
        A caption of each example, for a template with ``{caption}`` (instance-level prompts).
    domains : Sequence[str] or None, default None
        A phrase for each example's domain, such as "a pencil sketch", for a template with ``{domain}``.
    """

    labels: Tensor
    captions: Sequence[str] | None = None
    domains: Sequence[str] | None = None


def checked_labels(labels: Tensor, classes: int) -> list[int]:
    """Return labels as numbers; raise ValueError when they are no classes, or none at all."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        raise ValueError(f"dataset_fn's labels must be an int64 tensor of shape (N,), got {_kind(labels)}")
    if not len(labels):
        raise ValueError("dataset_fn returned no example")
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
    """Return what a client's examples have of a kind of texts; None when the template does not ask for it."""
    if "{" + kind.removesuffix("s") + "}" not in template:
        return None
    texts = getattr(data, kind) if isinstance(data, PromptData) else None
    if texts is None:
        raise ValueError(f"prompt_template asks for {kind}, but dataset_fn returned none")
    if len(texts) != len(data.labels):
        raise ValueError(f"dataset_fn returned {len(texts)} {kind} for {len(data.labels)} labels")
    return list(map(str, texts))


def to_model_input(data: LabeledImages | LabeledLatents, unet: UNet2DModel) -> LabeledLatents:
    """Return examples as the U-Net sees them; raise ValueError when they do not fit it."""
    checked_labels(data.labels, unet.config.num_class_embeds or 2**31)
    if isinstance(data, LabeledImages):
        if data.images.dtype != torch.uint8:
            raise ValueError(f"dataset_fn's LabeledImages must be uint8, got {data.images.dtype}")
        latents = ImageSpace(None).encode(data)
    else:
        if not data.latents.is_floating_point() or not data.latents.isfinite().all():
            raise ValueError(f"dataset_fn's LabeledLatents must be finite floats, got {_kind(data.latents)}")
        latents = LabeledLatents(data.latents.float(), data.labels)
    side = unet.config.sample_size
    expected = (len(latents), unet.config.in_channels, side, side)
    if tuple(latents.latents.shape) != expected:
        raise ValueError(
            f"dataset_fn's examples must have shape {expected} for this U-Net, "
            f"got {tuple(latents.latents.shape)}"
        )
    return latents


def _kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    return type(value).__name__
