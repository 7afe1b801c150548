"""Conversion of images to a size and a number of channels."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn import functional

from fgl_app.algorithms.types import LabeledImages


def resize_images(data: LabeledImages, size: int) -> LabeledImages:
    """Return the examples with images of ``size`` x ``size`` pixels (bilinear, anti-aliased)."""
    if data.images.shape[-2:] == (size, size):
        return data
    resized = functional.interpolate(
        data.images.float(), size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return replace(data, images=resized.round().clamp(0, 255).to(torch.uint8))


def match_channels(data: LabeledImages, channels: int) -> LabeledImages:
    """Return the examples as greyscale (1 channel, ITU-R 601 luma) or colour (3 channels) images."""
    if data.images.shape[1] == channels:
        return data
    if channels == 3:
        return replace(data, images=data.images.expand(-1, 3, -1, -1))
    luma = (data.images.float() * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    return replace(data, images=luma.round().to(torch.uint8))
