"""How many CPU threads a model trains best with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

SMALL = 2_000_000
"""Parameters below which one thread is taken."""


@contextmanager
def limit_threads(model: nn.Module) -> Iterator[None]:
    """Train with one thread inside the block when the model is small.

    The kernels of a small model are over before a second thread has joined in: the small U-Net trains on 640
    images a second with one thread and on 400 to 480 with two.
    """
    threads = torch.get_num_threads()
    if sum(parameter.numel() for parameter in model.parameters()) < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
