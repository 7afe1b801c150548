"""CPU threads for the training of small models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

SMALL_MODEL = 2_000_000
"""Models with fewer parameters train with one thread."""


@contextmanager
def limit_threads(model: nn.Module) -> Iterator[None]:
    """Use one CPU thread inside the block if the model is small.

    Starting a second thread takes longer than a kernel of a small model: the small U-Net trains on 640 images
    per second with one thread, and on 400 to 480 with two.
    """
    threads = torch.get_num_threads()
    if sum(parameter.numel() for parameter in model.parameters()) < SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
