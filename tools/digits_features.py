"""Train the feature extractor of the digits: the classifier whose features define Frechet distances.

It is trained only on the real training digits. It takes about 40 seconds on two cores.

    python -m tools.digits_features fgl_app/assets/digits_features
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fgl_app.algorithms.classification import TrainSettings, evaluate, train
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.data.sources import load_dataset
from fgl_app.models.classifiers import build_classifier, save_classifier

SETTINGS = TrainSettings(
    epochs=20,
    batch_size=64,
    learning_rate=0.05,
    momentum=0.9,
    weight_decay=2e-4,
    augmentation="affine",
    schedule="one-cycle",
)


def main() -> None:
    """Train the extractor, print its test accuracy and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="output folder")
    folder = parser.parse_args().folder
    data = load_dataset("digits", 32)
    model = build_classifier("cnn", num_classes=10, in_channels=1, image_size=32, seed=0)
    train(model, data.train, SETTINGS, seeded_generator("digits features"))
    accuracy, loss = evaluate(model, data.test)
    print(f"test accuracy {100 * accuracy:.1f} %, loss {loss:.3f}")
    save_classifier(model, folder, data.class_names)


if __name__ == "__main__":
    main()
