"""From the run config to the settings of the algorithms, the same for clients, server and baselines."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from fgl_app.algorithms.classification import TrainSettings
from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import RunConfig
from fgl_app.models.classifiers import build_classifier


def client_settings(config: RunConfig, *, epochs: int, proximal_mu: float = 0.0) -> TrainSettings:
    """Return the settings of training on private examples."""
    return TrainSettings(
        epochs=epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        augmentation=config.augmentation,
        proximal_mu=proximal_mu,
    )


def synthetic_settings(config: RunConfig) -> TrainSettings:
    """Return the settings of FGL's first training, on the synthetic set alone."""
    return replace(
        client_settings(config, epochs=config.synthetic_epochs),
        learning_rate=config.synthetic_learning_rate,
        schedule="one-cycle",
    )


def server_settings(config: RunConfig) -> TrainSettings:
    """Return the settings of fine-tuning on the synthetic set after an aggregate."""
    settings = client_settings(config, epochs=config.server_epochs)
    return replace(settings, learning_rate=config.server_learning_rate)


def new_classifier(config: RunConfig, like: LabeledImages, num_classes: int) -> nn.Module:
    """Return the config's classifier with its seeded initial weights, for images like these."""
    return build_classifier(
        config.classifier,
        num_classes=num_classes,
        in_channels=like.images.shape[1],
        image_size=config.image_size,
        seed=config.seed,
    )
