"""Captions of private images: choose the examples and caption each distinct image once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, MutableMapping

import torch
from torch import Tensor


def choose_examples(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """Return the ascending indices of the examples to caption: int64, shape (M,).

    At most ``per_class`` random examples of each class; 0 selects all. The generator is on the CPU.
    """
    if not per_class:
        return torch.arange(len(labels))
    order = torch.randperm(len(labels), generator=generator)
    chosen = [order[labels[order] == label][:per_class] for label in labels.unique()]
    return torch.cat(chosen).sort().values


def caption_images(
    images: Tensor,
    captioner: Callable[[Tensor], list[str]],
    cache: MutableMapping[str, str],
    *,
    batch_size: int,
    callback: Callable[[int], None] | None = None,
) -> list[str]:
    """Caption uint8 images of shape (N, C, H, W), each distinct image once.

    The cache holds captions by :func:`content_key`; new ones are added after each batch. ``callback`` is
    called with the number of captions of each batch, once they are in the cache.
    """
    keys = [content_key(image) for image in images]
    missing = [row for key, row in {key: row for row, key in enumerate(keys)}.items() if key not in cache]
    for start in range(0, len(missing), batch_size):
        rows = missing[start : start + batch_size]
        for row, caption in zip(rows, captioner(images[rows]), strict=True):
            cache[keys[row]] = caption
        if callback:
            callback(len(rows))
    return [cache[key] for key in keys]


def content_key(image: Tensor) -> str:
    """Return a hash of an image's pixels."""
    return hashlib.sha256(image.contiguous().numpy().tobytes()).hexdigest()
