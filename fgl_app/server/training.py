"""Training on the server, with progress."""

from __future__ import annotations

import torch
from torch import nn

from fgl_app.algorithms.classification import TrainSettings, train
from fgl_app.algorithms.types import LabeledImages
from fgl_app.progress import track


def train_with_progress(
    model: nn.Module,
    data: LabeledImages,
    settings: TrainSettings,
    generator: torch.Generator,
    description: str,
) -> None:
    """Train a classifier in place and log the progress."""
    with track(settings.epochs * len(data), description, "images") as progress:
        train(model, data, settings, generator, callback=progress.update)
