"""Image classifiers: a small CNN, architectures of ``transformers``, and pretrained models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fgl_app.models.hub_ids import is_hub_id, unknown_source_error, unreachable_error

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _resnet(depths: list[int], widths: list[int], layer_type: str) -> tuple[str, dict[str, Any]]:
    return "resnet", {"depths": depths, "hidden_sizes": widths, "layer_type": layer_type}


ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet18": _resnet([2, 2, 2, 2], [64, 128, 256, 512], "basic"),
    "resnet34": _resnet([3, 4, 6, 3], [64, 128, 256, 512], "basic"),
    "resnet50": _resnet([3, 4, 6, 3], [256, 512, 1024, 2048], "bottleneck"),
    "vit-small": ("vit", {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}),
    "convnext-tiny": ("convnext", {}),
}
"""Classifiers of ``transformers`` trained from scratch: model type and changes to its default config."""
PREPROCESSOR = "preprocessor_config.json"
SMALL_CNN = "fgl_app.models.SmallCNN"


class SmallCNN(nn.Sequential):
    """Three convolutions and two linear layers: 0.2 million weights at 32 x 32 pixels, 10 classes.

    It has no normalization layers: their running statistics do not average well over skewed clients.
    """

    def __init__(self, num_classes: int, in_channels: int, image_size: int) -> None:
        # The strided convolution rounds up, the two poolings round down.
        side = (image_size + 1) // 2 // 4
        super().__init__(
            nn.Conv2d(in_channels, 16, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * side * side, 128),
            nn.ReLU(),
            nn.Linear(128, num_classes),
        )
        self.in_channels, self.image_size = in_channels, image_size


class TransformersClassifier(nn.Module):
    """An image classifier of ``transformers`` that returns logits.

    Greyscale images are repeated to match ``config.num_channels``. ``mean`` and ``std`` are the normalization
    of pixels in [0, 1] that the model was trained with, per channel or for all channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, model: PreTrainedModel, mean: Sequence[float] = (0.5,), std: Sequence[float] = (0.5,)
    ) -> None:
        super().__init__()
        self.model = model
        # Not persistent: they are not exchanged like weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, C, H, W) in [-1, 1]."""
        channels = getattr(self.model.config, "num_channels", 3)
        pixels = (images + 1) / 2
        logits: Tensor = self.model(((pixels.expand(-1, channels, -1, -1)) - self.mean) / self.std).logits
        return logits


def check_classifier(name: str) -> None:
    """Raise ValueError if a ``classifier`` config value is not a known name, a model's folder or a hub id."""
    if name == "cnn" or name in ARCHITECTURES:
        return
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ValueError(f"classifier folder {folder} is not a saved model: it has no config.json")
    if not (folder.is_dir() or is_hub_id(name)):
        names = ", ".join(f"'{known}'" for known in ("cnn", *ARCHITECTURES))
        raise unknown_source_error("classifier", f"one of {names}", name)


def build_classifier(
    name: str, *, num_classes: int, in_channels: int, image_size: int, seed: int
) -> nn.Module:
    """Build a classifier with seeded or pretrained initial weights, on the CPU.

    ``name`` is "cnn" or one of :data:`ARCHITECTURES`, from scratch; or the hub id or folder of a pretrained
    ``transformers`` image classifier, which gets a new head if its number of classes differs. The model maps
    (N, C, H, W) in [-1, 1] to logits (N, num_classes). The global random state does not change.

    Raises
    ------
    ValueError
        If there is no such classifier.
    """
    check_classifier(name)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "cnn":
            return SmallCNN(num_classes, in_channels, image_size)
        if name not in ARCHITECTURES:
            return _pretrained(name, num_classes)
        from transformers import AutoConfig, AutoModelForImageClassification

        kind, changes = ARCHITECTURES[name]
        if kind == "vit":
            # About as many patches on small images as ViT-S/16 has on 224 pixels.
            changes = {**changes, "image_size": image_size, "patch_size": 16 if image_size >= 128 else 4}
        config = AutoConfig.for_model(kind, num_channels=in_channels, num_labels=num_classes, **changes)
        return TransformersClassifier(AutoModelForImageClassification.from_config(config))


def save_classifier(model: nn.Module, folder: Path, class_names: Sequence[str]) -> None:
    """Save a classifier as ``config.json`` and ``model.safetensors``.

    ``AutoModelForImageClassification`` loads the folder of a ``transformers`` model; the weights of the small
    CNN are its state dict.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, TransformersClassifier):
        model.model.config.id2label = dict(enumerate(class_names))
        model.model.config.label2id = {name: i for i, name in enumerate(class_names)}
        model.model.save_pretrained(folder)
        pixels = {"image_mean": model.mean.flatten().tolist(), "image_std": model.std.flatten().tolist()}
        (folder / PREPROCESSOR).write_text(json.dumps(pixels) + "\n", encoding="utf-8")
        return
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    # safetensors writes it readable only for its owner, unlike the other results.
    (folder / "model.safetensors").chmod(0o644)
    config = {
        "architecture": SMALL_CNN,
        "num_classes": len(class_names),
        "in_channels": model.in_channels,
        "image_size": model.image_size,
        "class_names": list(class_names),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def classifier_shape(folder: Path) -> tuple[int, int | None]:
    """Return the number of classes and of channels of a saved classifier; None channels: any."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("architecture") == SMALL_CNN:
        return config["num_classes"], config["in_channels"]
    # The default of transformers for a config without classes is two.
    return len(config.get("id2label", "..")), None


def load_classifier(folder: Path) -> nn.Module:
    """Load a classifier saved by a run or by ``save_classifier``.

    Parameters
    ----------
    folder : Path
        Folder ``classifier`` of a run.

    Returns
    -------
    nn.Module
        On the CPU, in evaluation mode; maps float32 (N, C, H, W) in [-1, 1] to logits (N, classes).

    Raises
    ------
    FileNotFoundError
        If the folder has no ``config.json``.
    ValueError
        If the classifier cannot be loaded.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("architecture") == SMALL_CNN:
        model: nn.Module = SmallCNN(config["num_classes"], config["in_channels"], config["image_size"])
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
    return _pretrained(str(folder)).eval()


def _pretrained(source: str, num_classes: int | None = None) -> TransformersClassifier:
    from transformers import AutoModelForImageClassification
    from transformers.utils import cached_file

    head = {} if num_classes is None else {"num_labels": num_classes, "ignore_mismatched_sizes": True}
    try:
        # Safetensors only: a pickled weight file can run code.
        model = AutoModelForImageClassification.from_pretrained(source, use_safetensors=True, **head)
        file = cached_file(source, PREPROCESSOR, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise unreachable_error("classifier", source) from error
    pixels = json.loads(Path(file).read_text(encoding="utf-8")) if file else {}
    return TransformersClassifier(
        model, pixels.get("image_mean") or (0.5,), pixels.get("image_std") or (0.5,)
    )
