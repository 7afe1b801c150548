"""Feature extractors of Frechet distances."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from fgl_app.algorithms.classification import to_input
from fgl_app.models.assets import asset
from fgl_app.models.classifiers import classifier_shape, load_classifier

BUILTIN_EXTRACTORS = {"digits": "digits_features"}
"""Datasets with an embedded extractor, and its folder in ``fgl_app/assets``."""
BATCH_SIZE = 250


@dataclass(frozen=True)
class Extractor:
    """Extract features from images.

    The model is a classifier, whose features are the inputs of its last linear layer, or an extractor of
    uint8 images. ``name`` identifies the extractor in the summary.
    """

    name: str
    model: nn.Module
    classifies: bool

    @property
    def image_size(self) -> int | None:
        """Required side of the images in pixels; None for any."""
        return getattr(self.model, "image_size", None)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features and predicted classes of uint8 images of shape (N, C, H, W) on any device.

        Features are float32 of shape (N, F); classes are int64 of shape (N,), None without a classifier. Both
        are on the CPU.
        """
        device = next(self.model.parameters()).device
        batches = [batch.to(device) for batch in images.split(BATCH_SIZE)]
        if not self.classifies:
            return torch.cat([self.model(batch.expand(-1, 3, -1, -1)).cpu() for batch in batches]), None
        features: list[Tensor] = []
        last = [module for module in self.model.modules() if isinstance(module, nn.Linear)][-1]
        hook = last.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].cpu()))
        try:
            classes = torch.cat([self.model(to_input(batch)).argmax(1).cpu() for batch in batches])
        finally:
            hook.remove()
        return torch.cat(features), classes


def check_extractor(name: str, dataset: str, *, num_classes: int, channels: int) -> None:
    """Raise ValueError if a ``feature-extractor`` config value does not exist or fit the dataset."""
    if name == "auto" and dataset not in BUILTIN_EXTRACTORS:
        raise ValueError(
            f"feature-extractor 'auto' exists for {', '.join(BUILTIN_EXTRACTORS)}, not for '{dataset}'; "
            "give 'inception' or the folder `classifier` of a run with method=classifier"
        )
    if name == "inception" and find_spec("torch_fidelity") is None:
        raise ValueError(
            "feature-extractor 'inception' needs the package torch-fidelity: pip install torch-fidelity"
        )
    if name in ("auto", "inception"):
        return
    if not (Path(name) / "config.json").is_file():
        raise ValueError(
            f"feature-extractor must be 'auto', 'inception' or a classifier's folder, got '{name}'"
        )
    classes, taken = classifier_shape(Path(name))
    if classes != num_classes:
        raise ValueError(
            f"feature-extractor must have the {num_classes} classes of '{dataset}', '{name}' has {classes}"
        )
    if taken not in (None, channels):
        raise ValueError(
            f"feature-extractor must take the {channels} channels of '{dataset}', '{name}' takes {taken}"
        )


def load_extractor(name: str, dataset: str, device: torch.device) -> Extractor:
    """Load the feature extractor of a dataset in evaluation mode.

    ``name`` is "auto" for the embedded extractor of the dataset, "inception" for Inception v3 with the
    standard weights of Frechet distances (downloaded by torch-fidelity), or a folder of ``save_classifier``.
    The extractor's name contains a hash of a classifier's weights.

    Raises
    ------
    ValueError
        If the weights of Inception cannot be downloaded.
    """
    if name == "inception":
        from torchmetrics.image.fid import FrechetInceptionDistance

        try:
            inception = FrechetInceptionDistance(feature=2048).inception
        except OSError as error:
            raise ValueError(
                f"the weights of feature-extractor 'inception' cannot be downloaded: {error}"
            ) from error
        return Extractor("inception-v3-2048", inception.to(device), classifies=False)
    folder = asset(BUILTIN_EXTRACTORS[dataset], "config.json") if name == "auto" else Path(name)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return Extractor(f"{folder.name}-{digest[:12]}", load_classifier(folder).to(device), classifies=True)
