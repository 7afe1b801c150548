"""What the commands of the documentation name and a reader would have: data, models and runs, but tiny."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from fgl_app.config import BUILTIN_NAMES
from fgl_app.config.presets import preset_file
from fgl_app.launch.config_sources import merge_config_sources

DOMAINS = ["photo", "sketch"]
SIDE = 16


def make_dataset(place: Path, values: Mapping[str, Any], _generator: Path) -> None:
    """Save a set with the columns and the classes that a config chooses: the mean grey tells the class."""
    chosen = [part.strip() for part in str(values.get("class-subset", "")).split(",") if part.strip()]
    if all(part.isdigit() for part in chosen):
        names = [str(number) for number in range(1 + max(map(int, chosen), default=9))]
        classes = [int(part) for part in chosen] or list(range(len(names)))
    else:
        names, classes = chosen, list(range(len(chosen)))
    image, label, domain = (values.get(f"{kind}-column") or kind for kind in ("image", "label", "domain"))
    features = datasets.Features(
        {
            image: datasets.Image(),
            label: datasets.ClassLabel(names=names),
            domain: datasets.ClassLabel(names=DOMAINS),
        }
    )

    def split(each: int) -> datasets.Dataset:
        labels = np.repeat(classes, each)
        noise = np.random.default_rng(each).integers(0, 40, (len(labels), SIDE, SIDE, 3))
        grey = 20 * (np.arange(len(labels)) // each % 10)
        rows = {
            image: list((noise + grey[:, None, None, None]).astype(np.uint8)),
            label: labels.tolist(),
            domain: [i % len(DOMAINS) for i in range(len(labels))],
        }
        return datasets.Dataset.from_dict(rows, features=features)

    datasets.DatasetDict(train=split(16), test=split(4)).save_to_disk(place)


def link_generator(place: Path, _values: Mapping[str, Any], generator: Path) -> None:
    """Put a tiny text-to-image pipeline there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(generator)


MAKERS: dict[str, Callable[[Path, Mapping[str, Any], Path], None]] = {
    "dataset": make_dataset,
    "generator": link_generator,
}
"""Who makes what a config key names, a folder or a hub id: either is taken from a folder of that name."""


def values_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the config values that a command of `fgl` gives: presets, files, KEY=VALUE, --generator."""
    after = dict(pairwise(words))
    presets = [preset_file(name) for word, name in pairwise(words) if word == "--preset"]
    values = merge_config_sources(
        presets, [word for word in words if "=" in word and not word.startswith("-")]
    )
    return values | ({"generator": after["--generator"]} if "--generator" in after else {})


def make_what_is_named(words: Sequence[str], generator: Path) -> None:
    """Make, in the current directory, the data and models that a command of `fgl` names."""
    values = values_of(words)
    for key, maker in MAKERS.items():
        if (name := values.get(key, "")) and name not in BUILTIN_NAMES:
            place = Path(name)
            if place.is_symlink():
                place.unlink()
            shutil.rmtree(place, ignore_errors=True)
            maker(place, values, generator)


def point_latest_at(name: str) -> None:
    """Make a run of `outputs` the newest."""
    latest = Path("outputs", "latest")
    latest.unlink(missing_ok=True)
    latest.symlink_to(name)
