"""Public-renders control: train the classifier on renders like those that the generator was trained on.

It needs the packages and fonts of the tool (`pip install -c constraints.txt -e '.[app,tools]'`, npm). The
number of images per class and the training are those of FGL: only the source of the images differs.

    python -m benchmarks.public_renders --work-dir /tmp/digits
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev

import torch

from fgl_app.algorithms.classification import evaluate, train
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import parse_config
from fgl_app.data.sources import config_dataset
from fgl_app.tasks.classification import new_classifier, synthetic_settings
from tools.digits_generator.fonts import install_fonts
from tools.digits_generator.recipe import Recipe
from tools.digits_generator.renders import make_renders


def main() -> None:
    """Print the accuracy on real test digits for each seed, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="folder for the fonts")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    fonts = install_fonts(options.work_dir)
    per_class = parse_config({}).images_per_class
    results = []
    for seed in range(options.seeds):
        config = parse_config({"seed": seed})
        # Renders come in blocks of 500 per class: round up to whole blocks.
        renders = make_renders(fonts, Recipe(renders=5000 * -(-per_class // 500), seed=seed))
        rows = torch.cat([(renders.labels == label).nonzero()[:per_class, 0] for label in range(10)])
        images = LabeledImages(renders.images[rows], renders.labels[rows])
        data = config_dataset(config)
        model = new_classifier(config, data.class_names, images.images.shape[1])
        train(model, images, synthetic_settings(config), seeded_generator("server", seed, 0))
        results.append(100 * evaluate(model, data.test)[0])
        print(f"seed {seed}: {len(images)} renders, accuracy {results[-1]:.1f} %", flush=True)
    deviation = stdev(results) if len(results) > 1 else 0.0
    print(f"public renders: {mean(results):.1f} ± {deviation:.1f} %")


if __name__ == "__main__":
    main()
