"""Captions of private images: choose the examples and caption each distinct image once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, MutableMapping

import torch
from torch import Tensor


def choose_examples(labels: Tensor, per_class: int, generator: torch.Generator) -> Tensor:
    """Choose the examples to caption.

    Parameters
    ----------
    labels : Tensor
        int64, shape (N,).
    per_class : int
        Maximum number of examples per class; 0 selects all.
    generator : torch.Generator
        Source of the choice, on the CPU.

    Returns
    -------
    Tensor
        int64, shape (M,): indices in ascending order.
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
    """Caption images, each distinct image once.

    Parameters
    ----------
    images : Tensor
        uint8, shape (N, C, H, W).
    captioner : Callable[[Tensor], list[str]]
        Captions a batch.
    cache : MutableMapping[str, str]
        Captions by :func:`content_key`; new ones are added after each batch.
    batch_size : int
        Images per batch.
    callback : Callable[[int], None] or None, default None
        Called with the number of captions of each batch, once they are in the cache.

    Returns
    -------
    list[str]
        N captions.
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
