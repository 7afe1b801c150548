"""The task of training a diffusion model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from fgl_app.algorithms.classification import evaluate as evaluate_classifier
from fgl_app.algorithms.classification import train as train_classifier
from fgl_app.algorithms.diffusion import DiffusionProcess, DiffusionSettings, train_diffusion
from fgl_app.algorithms.image_space import ImageSpace
from fgl_app.algorithms.images import match_channels, resize_images
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.sampling import sample
from fgl_app.algorithms.types import LabeledImages, LabeledLatents
from fgl_app.data.types import ImageDataset
from fgl_app.metrics.generated_images import fidelity
from fgl_app.models.autoencoders import autoencoder_factor, load_autoencoder
from fgl_app.models.devices import resolve_precision
from fgl_app.models.extractors import Extractor, load_extractor
from fgl_app.models.image_pipeline import save_image_pipeline
from fgl_app.models.unets import build_unet
from fgl_app.tasks.classification import new_classifier, synthetic_settings
from fgl_app.tasks.task import Evaluation, LocalRound, Task


class DiffusionTask(Task):
    """Train the config's U-Net in pixel or latent space, with or without class conditioning."""

    primary_metric = "frechet_distance"
    logged_metrics = ("frechet_distance", "label_agreement")
    folder = "diffusion"
    _reference_features: Tensor | None = None
    _reference_split = "training"

    @cached_property
    def space(self) -> ImageSpace:
        """The space of the diffusion process: pixels or latents."""
        if self.config.diffusion_space == "pixel":
            return ImageSpace(None)
        return ImageSpace(load_autoencoder(self.config.generator, self.device))

    @property
    def process(self) -> DiffusionProcess:
        """The diffusion process: prediction type and noise schedule."""
        return DiffusionProcess(self.config.prediction_type, self.config.noise_schedule)

    def new_model(self) -> UNet2DModel:
        """Return a U-Net with the seeded initial weights."""
        vae, side = self.space.vae, self.config.image_size
        if vae is not None:
            side //= autoencoder_factor(self.config.generator)
        unet = build_unet(
            self.config.unet,
            channels=self.channels if vae is None else vae.config.latent_channels,
            side=side,
            num_classes=len(self.class_names) if self.config.class_conditional else 0,
            seed=self.config.seed,
        )
        return unet.to(self.device)

    def encode(self, examples: LabeledImages) -> LabeledLatents:
        """Return images in the space of the diffusion process."""
        return _encode(self.space, examples)

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
        """Train a U-Net in place for one local round; return the mean training loss."""
        assert isinstance(model, UNet2DModel)
        rate = self.config.learning_rate * self.round_factor(local_round.number)
        settings = replace(self.settings(local_round.epochs, rate), proximal_mu=local_round.proximal_mu)
        return train_diffusion(
            model, self.encode(examples), settings, generator, callback=callback, on_gradients=on_gradients
        )

    def pretrain(self, model: UNet2DModel, examples: LabeledImages, generator: torch.Generator) -> float:
        """Train a client's local model for the set-up of FedDDPM in place; return the mean training loss."""
        config = self.config
        settings = replace(
            self.settings(config.local_pretrain_epochs, config.learning_rate),
            min_steps=config.local_pretrain_min_steps,
            schedule="cosine",
        )
        return train_diffusion(model, self.encode(examples), settings, generator)

    def settings(self, epochs: int, learning_rate: float) -> DiffusionSettings:
        """Return the training settings."""
        return DiffusionSettings(
            epochs=epochs,
            batch_size=self.config.batch_size,
            learning_rate=learning_rate,
            ema_decay=self.config.ema_decay,
            process=self.process,
            precision=resolve_precision(self.config.mixed_precision, self.device),
        )

    def round_factor(self, number: int) -> float:
        """Return the learning rate's factor in the round or correction with this number, from 1."""
        rounds = self.config.num_server_rounds - bool(self.config.spec.setup_message)
        if not self.config.round_decay or rounds < 2:
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * (number - 1) / rounds))

    def sample(
        self,
        model: UNet2DModel,
        labels: Tensor,
        generators: Sequence[torch.Generator],
        callback: Callable[[int], None] | None = None,
    ) -> LabeledLatents:
        """Sample one image or latent for each label (int64, shape (N,)) and noise generator."""
        return sample(
            model,
            self.process.sampler(self.config.sampler),
            labels,
            generators,
            num_inference_steps=self.config.sampling_steps,
            batch_size=self.config.synthesis_batch_size,
            callback=callback,
        )

    def evaluate(self, model: nn.Module, data: ImageDataset, *, final: bool) -> Evaluation:
        """Compare samples with the training split in the features of the config's extractor.

        The noise does not depend on method, round or seed, and all classes have equally many samples. The
        final evaluation adds the test accuracy of a classifier that is trained only on the samples.
        """
        assert isinstance(model, UNet2DModel)
        number = self.config.metric_samples
        labels = torch.arange(number) % len(self.label_names)
        generators = [seeded_generator("evaluation", i) for i in range(number)]
        samples = match_channels(self.space.decode(self.sample(model, labels, generators)), self.channels)
        features, classes = self._features(samples)
        metrics = fidelity(self._reference(data), features)
        if self.config.class_conditional and classes is not None:
            metrics["label_agreement"] = float((classes == labels).float().mean())
        if self.config.class_conditional and final:
            classifier = new_classifier(self.config, self.class_names, self.channels).to(self.device)
            train_classifier(
                classifier,
                samples,
                synthetic_settings(self.config),
                seeded_generator("downstream", self.config.seed),
            )
            metrics["downstream_accuracy"] = evaluate_classifier(classifier, data.test)[0]
        return Evaluation(metrics, samples)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The class names, or one name for all images of an unconditional model."""
        return self.class_names if self.config.class_conditional else ("image",)

    @property
    def evaluation_details(self) -> dict[str, str | int]:
        """Feature extractor, number of samples and reference images of the metrics."""
        return {
            "feature_extractor": self._extractor.name,
            "metric_samples": self.config.metric_samples,
            "reference": f"{self.config.dataset}, {self._reference_split} split",
        }

    def save(self, model: nn.Module, folder: Path) -> None:
        """Save the model as a diffusers pipeline."""
        assert isinstance(model, UNet2DModel)
        sampler = self.process.sampler(self.config.sampler)
        save_image_pipeline(model, self.space, sampler, self.class_names, folder)

    @cached_property
    def _extractor(self) -> Extractor:
        return load_extractor(self.config.feature_extractor, self.config.dataset, self.device)

    def _reference(self, data: ImageDataset) -> Tensor:
        if self._reference_features is None:
            # Precision and recall use the first rows only, so the order must mix the classes.
            self._reference_split = "training" if len(data.train) else "test"
            images = data.train if len(data.train) else data.test
            order = torch.randperm(len(images), generator=seeded_generator("reference"))
            self._reference_features = self._features(images.select(order))[0]
        return self._reference_features

    def _features(self, data: LabeledImages) -> tuple[Tensor, Tensor | None]:
        size = self._extractor.image_size or self.config.image_size
        return self._extractor(resize_images(data, size).images)


@lru_cache(maxsize=8)
def _encode(space: ImageSpace, examples: LabeledImages) -> LabeledLatents:
    # Cached because a client encodes the same examples in every round, which can take longer than training.
    channels = examples.images.shape[1] if space.vae is None else space.vae.config.in_channels
    return space.encode(match_channels(examples, channels))
