"""Values of the choice keys, and the defaults that depend on the method."""

from __future__ import annotations

from typing import Literal

Method = Literal["fgl", "classifier", "fedddpm", "fedddpm-plus", "diffusion"]
InnerStrategy = Literal[
    "fedavg", "fedprox", "fedadam", "fedyogi", "scaffold", "centralized", "local-only", "auxiliary-only"
]
Partitioning = Literal["iid", "dirichlet", "pathological", "size", "domain", "sites"]
Prompts = Literal["class", "instance", "labels-only"]
Augmentation = Literal["none", "affine"]
EmbeddingDtype = Literal["float16", "float32"]
DiffusionSpace = Literal["latent", "pixel"]
UNetName = Literal["small", "ddpm"]
PredictionType = Literal["epsilon", "v_prediction"]
NoiseSchedule = Literal["linear", "cosine"]
Sampler = Literal["ddim", "dpm++", "ddpm"]
GeneratorDtype = Literal["auto", "float32", "float16", "bfloat16"]
GeneratorScheduler = Literal["auto", "dpm++", "ddim", "unipc", "euler", "lcm"]
Offload = Literal["none", "model", "sequential"]
Precision = Literal["auto", "no", "fp16", "bf16"]

BASELINES: dict[str, tuple[str, ...]] = {
    "centralized": ("classifier", "diffusion"),
    "local-only": ("classifier", "diffusion"),
    "auxiliary-only": ("fedddpm",),
}
"""Values of `inner-strategy` that are not Flower strategies, and the methods they need."""

TRACKERS = ("tensorboard", "wandb")
"""Experiment trackers that a run can log to."""

NO_DATASET = "none"
"""Value of `dataset` for a server without a dataset."""

BUILTIN_NAMES = (
    *("digits", "none", "embedded", "auto", "inception", "strokes"),
    *("cnn", "resnet18", "resnet34", "resnet50", "vit-small", "convnext-tiny"),
)
"""Built-in names, which are never read as folders, even if such a folder exists."""

METHOD_DEFAULT = {
    "num_server_rounds": 0,
    "local_epochs": 0,
    "batch_size": 0,
    "learning_rate": 0.0,
    "server_epochs": -1,
    "server_learning_rate": 0.0,
}
"""The value of each key that selects the default of the method."""


def _each(fgl: float, classifier: float, diffusion: float, fedddpm: float, plus: float) -> dict[str, float]:
    return dict(
        zip(
            ("fgl", "classifier", "diffusion", "fedddpm", "fedddpm-plus"),
            (fgl, classifier, diffusion, fedddpm, plus),
            strict=True,
        )
    )


METHOD_DEFAULTS: dict[str, dict[str, float]] = {
    "num_server_rounds": _each(1, 10, 8, 9, 9),
    "local_epochs": _each(5, 5, 2, 2, 2),
    "batch_size": _each(64, 64, 32, 32, 32),
    "learning_rate": _each(0.02, 0.02, 0.002, 0.002, 0.002),
    "server_epochs": _each(0, 0, 0, 3, 20),
    "server_learning_rate": _each(0.01, 0.01, 0.002, 0.002, 0.002),
}


def describe_method_default(name: str) -> str:
    """Return a sentence with a key's default for each method."""
    values = ", ".join(f"{method} {value:g}" for method, value in METHOD_DEFAULTS[name].items())
    return f"{METHOD_DEFAULT[name]:g}: the default of the method ({values})"
