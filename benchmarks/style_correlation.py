"""Correlation of style: stroke measures of private digits and of images generated from their captions.

python -m benchmarks.style_correlation --digits 1000
"""

from __future__ import annotations

import argparse
from dataclasses import fields

import torch

from fgl_app.algorithms.embedding import embed_prompts
from fgl_app.algorithms.prompts import Prompt
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.strokes import StrokeMeasures, measure_strokes, stroke_captions
from fgl_app.algorithms.synthesis import PlannedImage, Shard
from fgl_app.config import RunConfig, parse_config
from fgl_app.data.sources import config_dataset
from fgl_app.synthesis.generator import build_synthesizer, generator_settings, load_generator


def correlations(config: RunConfig, digits: int) -> dict[str, float]:
    """Return Pearson's r of each measure, between private digits and one image per caption."""
    data = config_dataset(config)
    chosen = torch.randperm(len(data.train), generator=seeded_generator("choice", config.seed))[:digits]
    private = data.train.select(chosen)
    measured = measure_strokes(private.images.float() / 255)
    captions = stroke_captions(measured)
    prompts = [
        Prompt(config.template.format(label=data.class_names[label], caption=caption), label, 1)
        for label, caption in zip(private.labels.tolist(), captions, strict=True)
    ]
    pipeline = load_generator(generator_settings(config))
    one_each = tuple(PlannedImage(row, 0) for row in range(len(prompts)))
    shard = Shard(0, one_each, embed_prompts(pipeline, prompts))
    images = build_synthesizer(generator_settings(config), pipeline)(shard)
    made = measure_strokes(images.images.float() / 255)
    return {
        field.name: torch.corrcoef(torch.stack([getattr(measured, field.name), getattr(made, field.name)]))[
            0, 1
        ].item()
        for field in fields(StrokeMeasures)
    }


def main() -> None:
    """Print the correlations for two guidance scales and several seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--digits", type=int, default=1000, help="private training digits to describe")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    for guidance_scale in (1.0, 2.0):
        for seed in range(options.seeds):
            values = {"prompts": "instance", "guidance-scale": guidance_scale, "seed": seed}
            result = correlations(parse_config(values), options.digits)
            text = ", ".join(f"{name} {value:.3f}" for name, value in result.items())
            print(f"guidance {guidance_scale:g}, seed {seed}: {text}", flush=True)


if __name__ == "__main__":
    main()
