"""What choice keys may be, and the defaults that depend on the method."""

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
"""Inner strategies that are no strategy, and the methods they belong to."""

TRACKERS = ("tensorboard", "wandb")
"""Who can be told a run's numbers."""

NO_DATASET = "none"
"""The data set of a server that has none."""

BUILTIN_NAMES = (
    *("digits", "none", "embedded", "auto", "inception", "strokes"),
    *("cnn", "resnet18", "resnet34", "resnet50", "vit-small", "convnext-tiny"),
)
"""Names of our own that are no folder, whatever lies in the directory."""

METHOD_DEFAULT = {
    "num_server_rounds": 0,
    "local_epochs": 0,
    "batch_size": 0,
    "learning_rate": 0.0,
    "server_epochs": -1,
    "server_learning_rate": 0.0,
}
"""The value that stands for the method's own default."""


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
    """Say what a key's default is for each method."""
    values = ", ".join(f"{method} {value:g}" for method, value in METHOD_DEFAULTS[name].items())
    return f"{METHOD_DEFAULT[name]:g}: the method's own ({values})"
