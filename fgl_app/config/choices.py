"""Values of the choice keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fgl_app.config.methods import METHODS

if TYPE_CHECKING:
    Method = str
else:
    Method = Literal[*METHODS]

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

TRACKERS = ("tensorboard", "wandb")
"""Experiment trackers that a run can log to."""

NO_DATASET = "none"
"""Value of `dataset` for a server without a dataset."""

BUILTIN_NAMES = (
    *("digits", "none", "embedded", "auto", "inception", "strokes"),
    *("cnn", "resnet18", "resnet34", "resnet50", "vit-small", "convnext-tiny"),
)
"""Built-in names, which are never read as folders, even if such a folder exists."""
