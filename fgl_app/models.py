"""Building and loading models: classifiers, and pipelines by hub id, folder or the embedded one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote, urlparse

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from transformers import ResNetForImageClassification

RESNETS: dict[str, dict[str, Any]] = {
    "resnet18": {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
    "resnet34": {"depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"},
    "resnet50": {"depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048], "layer_type": "bottleneck"},
}
FAMILIES = ("StableDiffusionPipeline",)
NOT_NEEDED_FOR_TEXT = ("unet", "transformer", "vae", "safety_checker", "feature_extractor", "image_encoder")


class SmallCNN(nn.Sequential):
    """Three convolutions and two linear layers: 0.2 million weights at 32 x 32 pixels, 10 classes.

    Without normalization layers: their running statistics do not average well over skewed clients.
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


class ResNetClassifier(nn.Module):
    """A ResNet of ``transformers`` that returns logits."""

    def __init__(self, model: ResNetForImageClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (N, classes) of images (N, C, H, W)."""
        logits: Tensor = self.model(images).logits
        return logits


def build_classifier(
    name: str, *, num_classes: int, in_channels: int, image_size: int, seed: int
) -> nn.Module:
    """Build a classifier with seeded initial weights.

    Parameters
    ----------
    name : str
        "cnn", "resnet18", "resnet34" or "resnet50".
    num_classes, in_channels, image_size : int
        Shape of its output and input.
    seed : int
        Seed of the initial weights; the global random state is left alone.

    Returns
    -------
    nn.Module
        On the CPU, maps (N, C, H, W) in [-1, 1] to logits (N, num_classes).
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if name == "cnn":
            return SmallCNN(num_classes, in_channels, image_size)
        from transformers import ResNetConfig, ResNetForImageClassification

        config = ResNetConfig(num_channels=in_channels, num_labels=num_classes, **RESNETS[name])
        return ResNetClassifier(ResNetForImageClassification(config))


def save_classifier(model: nn.Module, folder: Path, class_names: Sequence[str]) -> None:
    """Save a classifier as ``config.json`` and ``model.safetensors``.

    A ResNet's folder is one that ``transformers.AutoModelForImageClassification`` loads; the small CNN's
    weights are its plain state dict.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, ResNetClassifier):
        model.model.config.id2label = dict(enumerate(class_names))
        model.model.config.label2id = {name: i for i, name in enumerate(class_names)}
        model.model.save_pretrained(folder)
        return
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    # Written for its owner alone; the other results can be read by everybody.
    (folder / "model.safetensors").chmod(0o644)
    config = {
        "architecture": "fgl_app.models.SmallCNN",
        "num_classes": len(class_names),
        "in_channels": model.in_channels,
        "image_size": model.image_size,
        "class_names": list(class_names),
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_classifier(folder: Path) -> nn.Module:
    """Load a classifier that :func:`save_classifier` saved.

    Parameters
    ----------
    folder : Path
        The folder ``classifier`` of a run.

    Returns
    -------
    nn.Module
        On the CPU, in evaluation mode; maps (N, C, H, W) in [-1, 1] to logits (N, classes).
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config.get("architecture") == "fgl_app.models.SmallCNN":
        model: nn.Module = SmallCNN(config["num_classes"], config["in_channels"], config["image_size"])
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model.eval()
    from transformers import ResNetForImageClassification

    return ResNetClassifier(ResNetForImageClassification.from_pretrained(folder)).eval()


def resolve_device(name: str) -> torch.device:
    """Return the torch device of a config value; "auto" is CUDA, else Apple's, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def embedded_generator() -> Path:
    """Return the folder of the embedded text-to-image model.

    Flower's app bundle carries no binary files and shadows the installed package, so the folder is looked
    up through the installed distribution and never beside this module.

    Raises
    ------
    FileNotFoundError
        When fgl-app is not installed in this environment, or without its weights.
    """
    try:
        installed = distribution("fgl-app")
    except PackageNotFoundError:
        raise FileNotFoundError("fgl-app is not installed here: run `pip install fgl-app[app]`") from None
    origin = json.loads(installed.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        root = Path(unquote(urlparse(origin["url"]).path))
    else:
        root = Path(str(installed.locate_file("")))
    folder = root / "fgl_app" / "assets" / "digits"
    if not (folder / "model_index.json").is_file():
        raise FileNotFoundError(f"the embedded generator is missing: no model_index.json in {folder}")
    return folder


def generator_source(generator: str) -> str:
    """Return what diffusers loads for a ``generator`` config value: a folder or a hub id.

    Raises
    ------
    ValueError
        When the value names a folder that holds no supported pipeline, or is neither a folder nor a hub id.
    """
    if generator == "embedded":
        return str(embedded_generator())
    folder = Path(generator).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ValueError(
                f"generator folder {folder} is no diffusers pipeline: it has no model_index.json"
            )
        _check_family(generator, json.loads((folder / "model_index.json").read_text(encoding="utf-8")))
        return str(folder)
    looks_like_hub_id = generator.count("/") == 1 and not generator.startswith((".", "/", "~"))
    if not looks_like_hub_id:
        raise ValueError(
            f"generator must be 'embedded', a folder or a hub id such as 'owner/name', got '{generator}'"
        )
    return generator


def check_device(name: str) -> None:
    """Raise ValueError when this machine does not have the device of a config value."""
    lacking = (name.startswith("cuda") and not torch.cuda.is_available()) or (
        name == "mps" and not torch.backends.mps.is_available()
    )
    if lacking:
        raise ValueError(f"device '{name}' is not available on this machine; use 'auto' or 'cpu'")


@lru_cache(maxsize=1)
def load_text_encoder(generator: str, device: torch.device) -> DiffusionPipeline:
    """Load the part of a pipeline that encodes prompts: tokenizer and text encoder, no U-Net, no VAE.

    Parameters
    ----------
    generator : str
        "embedded", a hub id or a folder.
    device : torch.device
        Where the text encoder goes.

    Returns
    -------
    DiffusionPipeline
        Its ``encode_prompt`` works. Kept in memory for the next call.
    """
    diffusers = _quiet_diffusers()
    source = generator_source(generator)
    config = _pipeline_config(source)
    absent = {name: None for name in NOT_NEEDED_FOR_TEXT if name in config}
    # Safetensors only: a pickled weight file can run code.
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        source, dtype=_dtype(device), use_safetensors=True, **absent
    )
    return pipeline.to(device)


def load_pipeline(generator: str, device: torch.device) -> DiffusionPipeline:
    """Load a whole text-to-image pipeline with the few-step scheduler DPM-Solver++.

    Half precision on CUDA; the safety checker is off, since its black images would become training data.

    Parameters
    ----------
    generator : str
        "embedded", a hub id or a folder.
    device : torch.device
        Where its models go.

    Returns
    -------
    DiffusionPipeline
        Ready to be called with ``prompt_embeds``.
    """
    diffusers = _quiet_diffusers()
    source = generator_source(generator)
    _pipeline_config(source)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(source, dtype=_dtype(device), use_safetensors=True)
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    pipeline.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(device)


def _pipeline_config(source: str) -> dict[str, Any]:
    diffusers = _quiet_diffusers()
    try:
        config: dict[str, Any] = diffusers.DiffusionPipeline.load_config(source)
    except OSError as error:
        raise ValueError(
            f"generator '{source}' is neither in the hub's cache nor to be reached; give a local folder"
        ) from error
    _check_family(source, config)
    return config


def _check_family(source: str, config: Mapping[str, Any]) -> None:
    family = config.get("_class_name")
    if family not in FAMILIES:
        raise ValueError(f"generator '{source}' is a {family}; supported so far: {', '.join(FAMILIES)}")


def _dtype(device: torch.device) -> torch.dtype:
    # Half precision is fast on CUDA only; on a CPU it is slow and less exact.
    return torch.float16 if device.type == "cuda" else torch.float32


def _quiet_diffusers() -> ModuleType:
    """Import diffusers without the bars and notices that mean nothing to who runs a federation."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    return cast(ModuleType, diffusers)
