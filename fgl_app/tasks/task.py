"""The interface of a task, for clients and server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from fgl_app.algorithms.types import LabeledImages, State
from fgl_app.algorithms.weights import load_weights
from fgl_app.config import RunConfig
from fgl_app.data.types import ImageDataset
from fgl_app.metrics.specs import METRICS, format_metrics
from fgl_app.models.devices import resolve_device


@dataclass(frozen=True)
class LocalRound:
    """One round of training on a client: epochs, round of the inner strategy from 1, and mu of FedProx."""

    epochs: int
    number: int = 1
    proximal_mu: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Parameters
    ----------
    metrics : dict[str, float]
        Values by key of ``METRICS``.
    samples : LabeledImages or None, default None
        Images sampled from a generative model, from the same noise in every round.
    by_domain : dict[str, float], default {}
        Primary metric on each domain of the test split, by domain name.
    """

    metrics: dict[str, float]
    samples: LabeledImages | None = None
    by_domain: dict[str, float] = field(default_factory=dict)


class Task(ABC):
    """Create, train, evaluate and save a kind of model.

    Parameters
    ----------
    config : RunConfig
        The validated config.
    class_names : tuple[str, ...]
        Name of each class.
    channels : int
        Number of channels of the dataset's images.
    """

    primary_metric: str
    """Key in METRICS of the metric that ranks models."""
    logged_metrics: tuple[str, ...]
    """Keys in METRICS of the metrics in a round's log line."""
    folder: str
    """Name of the folder for the trained model."""

    def __init__(self, config: RunConfig, class_names: tuple[str, ...], channels: int) -> None:
        self.config = config
        self.class_names = class_names
        self.channels = channels
        self.device = resolve_device(config.device)

    @abstractmethod
    def new_model(self) -> nn.Module:
        """Return a model with the seeded initial weights, on the config's device."""

    def model_with(self, state: State) -> nn.Module:
        """Return a model with the weights of a state, on the config's device."""
        model = self.new_model()
        load_weights(model, state)
        return model

    @abstractmethod
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
        """Train a model in place for one local round; return the mean training loss."""

    @abstractmethod
    def evaluate(self, model: nn.Module, data: ImageDataset, *, final: bool) -> Evaluation:
        """Evaluate a model; ``final`` adds metrics that are too expensive for every round."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels of generated images."""
        return self.class_names

    @property
    def evaluation_details(self) -> dict[str, str | int]:
        """Details of the evaluation for the summary, such as the feature extractor."""
        return {}

    def score(self, metrics: Mapping[str, float]) -> float:
        """Return the primary metric with the sign that makes higher values better."""
        value = metrics[self.primary_metric]
        return value if METRICS[self.primary_metric].higher_is_better else -value

    def log_text(self, metrics: Mapping[str, float]) -> str:
        """Return the logged metrics as text, such as ``"accuracy 96.3 %, loss 0.143"``."""
        return format_metrics({key: metrics[key] for key in self.logged_metrics if key in metrics})

    @abstractmethod
    def save(self, model: nn.Module, folder: Path) -> None:
        """Save a trained model in the standard format of its library."""
