"""Measurements of a saved pipeline: accuracy on real handwriting, control by captions, speed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fgl_app.algorithms.strokes import StrokeMeasures, measure_strokes, stroke_captions
from tools.digits_generator.evaluation import accuracy_on_real, real_digits
from tools.digits_generator.renders import LABELS, Renders
from tools.digits_generator.synthesis import load_pipeline, synthesize
from tools.digits_generator.text import TEMPLATE

IMAGES_A_CLASS = 500
SAMPLING_STEPS = 10
GUIDANCES = (1.0, 2.0)
CLASSIFIER_SEEDS = (0, 1)
_CAPTIONED = 1000


@dataclass(frozen=True)
class Quality:
    """Result of `measure_quality`; accuracies are in [0, 1], correlations are Pearson's r.

    Attributes
    ----------
    accuracy : dict
        Accuracy per (guidance, augmented), one value per classifier seed.
    control : dict
        The same for a classifier trained on the same number of renders, per augmented.
    correlation : dict
        Per guidance, Pearson's r of each measure between real digits and those generated from their captions.
    images_per_second : dict
        Sampling speed per guidance.
    """

    accuracy: dict[tuple[float, bool], list[float]]
    control: dict[bool, list[float]]
    correlation: dict[float, dict[str, float]]
    images_per_second: dict[float, float]


def measure_quality(folder: Path, renders: Renders, seed: int, device: torch.device) -> Quality:
    """Measure the pipeline in `folder` on the development split of the real digits."""
    pipeline = load_pipeline(folder, device)
    labels = torch.arange(10).repeat(IMAGES_A_CLASS)
    prompts = [TEMPLATE.format(label=LABELS[label]) for label in labels.tolist()]
    real, truth = real_digits()
    picked = torch.randperm(len(real), generator=torch.Generator().manual_seed(seed))[:_CAPTIONED]
    wanted = measure_strokes(real[picked])
    captions = stroke_captions(wanted)
    described = [
        f"{TEMPLATE.format(label=LABELS[label])}, {caption}"
        for label, caption in zip(truth[picked].tolist(), captions, strict=True)
    ]
    quality = Quality({}, {}, {}, {})
    for guidance in GUIDANCES:
        images, seconds = synthesize(pipeline, prompts, guidance=guidance, steps=SAMPLING_STEPS, seed=seed)
        quality.images_per_second[guidance] = len(images) / seconds
        for augment in (False, True):
            quality.accuracy[guidance, augment] = [
                accuracy_on_real(images, labels, augment=augment, seed=classifier)
                for classifier in CLASSIFIER_SEEDS
            ]
            print(
                f"quality: guidance {guidance}, augmented {augment}: {quality.accuracy[guidance, augment]}",
                flush=True,
            )
        made, _ = synthesize(pipeline, described, guidance=guidance, steps=SAMPLING_STEPS, seed=seed)
        quality.correlation[guidance] = _correlations(wanted, measure_strokes(made))
        print(f"quality: guidance {guidance}: {quality.correlation[guidance]}", flush=True)
    rows = torch.randperm(len(renders.images), generator=torch.Generator().manual_seed(seed))[: len(labels)]
    images = renders.images[rows].float() / 255
    for augment in (False, True):
        quality.control[augment] = [
            accuracy_on_real(images, renders.labels[rows], augment=augment, seed=classifier)
            for classifier in CLASSIFIER_SEEDS
        ]
    return quality


def _correlations(wanted: StrokeMeasures, made: StrokeMeasures) -> dict[str, float]:
    return {
        name: float(np.corrcoef(getattr(wanted, name).numpy(), getattr(made, name).numpy())[0, 1])
        for name in ("width", "slant", "aspect")
    }
