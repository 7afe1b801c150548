"""The task of training an image classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from fgl_app.algorithms.classification import TrainSettings, evaluate, train
from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import RunConfig
from fgl_app.data.types import ImageDataset
from fgl_app.models.classifiers import build_classifier, save_classifier
from fgl_app.tasks.task import Evaluation, LocalRound, Task


class ClassificationTask(Task):
    """Train the config's classifier with SGD on the cross-entropy."""

    primary_metric = "accuracy"
    logged_metrics = ("accuracy", "loss")
    folder = "classifier"

    def new_model(self) -> nn.Module:
        """Return a classifier with the seeded initial weights."""
        return new_classifier(self.config, self.class_names, self.channels).to(self.device)

    def train(
        self,
        model: nn.Module,
        examples: LabeledImages,
        local_round: LocalRound,
        generator: torch.Generator,
        *,
        callback: Callable[[int], None] | None = None,
        on_gradients: Callable[[nn.Module], None] | None = None,
    ) -> float:
        """Train a classifier in place for one local round; return the mean training loss."""
        settings = client_settings(
            self.config, epochs=local_round.epochs, proximal_mu=local_round.proximal_mu
        )
        return train(model, examples, settings, generator, callback=callback, on_gradients=on_gradients)

    def evaluate(self, model: nn.Module, data: ImageDataset, *, final: bool) -> Evaluation:
        """Return accuracy and loss on the test split, and accuracy on each domain of the split."""
        accuracy, loss = evaluate(model, data.test)
        by_domain = {}
        if data.test.domains is not None:
            for number in data.test.domains.unique().tolist():
                examples = data.test.select((data.test.domains == number).nonzero().squeeze(1))
                by_domain[data.domain_names[number]] = evaluate(model, examples)[0]
        return Evaluation({"accuracy": accuracy, "loss": loss}, by_domain=by_domain)

    def save(self, model: nn.Module, folder: Path) -> None:
        """Save the classifier."""
        save_classifier(model, folder, self.class_names)


def new_classifier(config: RunConfig, class_names: tuple[str, ...], channels: int) -> nn.Module:
    """Return the config's classifier with seeded initial weights, on the CPU."""
    return build_classifier(
        config.classifier,
        num_classes=len(class_names),
        in_channels=channels,
        image_size=config.image_size,
        seed=config.seed,
    )


def client_settings(config: RunConfig, *, epochs: int, proximal_mu: float = 0.0) -> TrainSettings:
    """Return the settings for training on private examples."""
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
    """Return the settings for training only on synthetic images."""
    return replace(
        client_settings(config, epochs=config.synthetic_epochs),
        learning_rate=config.synthetic_learning_rate,
        schedule="one-cycle",
    )


def server_settings(config: RunConfig) -> TrainSettings:
    """Return the settings for fine-tuning on synthetic images after an aggregation."""
    settings = client_settings(config, epochs=config.server_epochs)
    return replace(settings, learning_rate=config.server_learning_rate)
