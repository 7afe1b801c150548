"""Feature extractors: what Frechet distances are measured in."""

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
"""Data sets with an embedded extractor, and its folder in ``fgl_app/assets``."""
BATCH = 250


@dataclass(frozen=True)
class Extractor:
    """Turns images into features.

    Parameters
    ----------
    name : str
        Says which it is; goes into the summary.
    model : nn.Module
        A classifier, whose features enter its last linear layer; or a bare extractor of uint8 images.
    classifies : bool
        Whether it is a classifier.
    """

    name: str
    model: nn.Module
    classifies: bool

    @property
    def image_size(self) -> int | None:
        """The side of images it takes, pixels; None takes any."""
        return getattr(self.model, "image_size", None)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return features and predicted classes.

        Parameters
        ----------
        images : Tensor
            uint8, shape (N, C, H, W), any device.

        Returns
        -------
        tuple[Tensor, Tensor or None]
            float32 of shape (N, F), and int64 of shape (N,) when it classifies; both on the CPU.
        """
        device = next(self.model.parameters()).device
        batches = [images_.to(device) for images_ in images.split(BATCH)]
        if not self.classifies:
            return torch.cat([self.model(batch.expand(-1, 3, -1, -1)).cpu() for batch in batches]), None
        entering: list[Tensor] = []
        last = [module for module in self.model.modules() if isinstance(module, nn.Linear)][-1]
        hook = last.register_forward_pre_hook(lambda _, inputs: entering.append(inputs[0].cpu()))
        try:
            classes = torch.cat([self.model(to_input(batch)).argmax(1).cpu() for batch in batches])
        finally:
            hook.remove()
        return torch.cat(entering), classes


def check_extractor(name: str, dataset: str, *, num_classes: int, channels: int) -> None:
    """Raise ValueError when a ``feature-extractor`` config value is none for images of a data set.

    Parameters
    ----------
    name : str
        The config value.
    dataset : str
        Name of the data set.
    num_classes, channels : int
        Of the data set.

    Raises
    ------
    ValueError
        Says what the value must be.
    """
    if name == "auto" and dataset not in BUILTIN_EXTRACTORS:
        raise ValueError(
            f"feature-extractor 'auto' is there for {', '.join(BUILTIN_EXTRACTORS)}, not for '{dataset}'; "
            "give 'inception' or the folder `classifier` of a run with method=classifier"
        )
    if name == "inception" and find_spec("torch_fidelity") is None:
        raise ValueError("feature-extractor 'inception' needs the package torch-fidelity: pip install it")
    if name in ("auto", "inception"):
        return
    if not (Path(name) / "config.json").is_file():
        raise ValueError(
            f"feature-extractor must be 'auto', 'inception' or a classifier's folder, got '{name}'"
        )
    known, taken = classifier_shape(Path(name))
    if known != num_classes:
        raise ValueError(
            f"feature-extractor must know the {num_classes} classes of '{dataset}', '{name}' knows {known}"
        )
    if taken not in (None, channels):
        raise ValueError(
            f"feature-extractor must take the {channels} channels of '{dataset}', '{name}' takes {taken}"
        )


def load_extractor(name: str, dataset: str, device: torch.device) -> Extractor:
    """Load a feature extractor.

    Parameters
    ----------
    name : str
        "auto" for the data set's own, "inception" for Inception v3 with the weights that Frechet distances
        are quoted for (torch-fidelity fetches them), or a folder that ``save_classifier`` made.
    dataset : str
        Name of the data set.
    device : torch.device
        Where it goes.

    Returns
    -------
    Extractor
        In evaluation mode; the name of a classifier holds a hash of its weights.

    Raises
    ------
    ValueError
        When Inception's weights cannot be fetched.
    """
    if name == "inception":
        from torchmetrics.image.fid import FrechetInceptionDistance

        try:
            inception = FrechetInceptionDistance(feature=2048).inception
        except OSError as error:
            raise ValueError(
                f"the weights of feature-extractor 'inception' cannot be had: {error}"
            ) from error
        return Extractor("inception-v3-2048", inception.to(device), classifies=False)
    folder = asset(BUILTIN_EXTRACTORS[dataset], "config.json") if name == "auto" else Path(name)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    return Extractor(f"{folder.name}-{digest[:12]}", load_classifier(folder).to(device), classifies=True)
