"""Tiny data, models and runs for the commands of the documentation."""

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
    """Save a dataset with the columns and classes of a config; the mean grey value depends on the class."""
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

    def split(per_class: int) -> datasets.Dataset:
        labels = np.repeat(classes, per_class)
        noise = np.random.default_rng(per_class).integers(0, 40, (len(labels), SIDE, SIDE, 3))
        grey = 20 * (np.arange(len(labels)) // per_class % 10)
        rows = {
            image: list((noise + grey[:, None, None, None]).astype(np.uint8)),
            label: labels.tolist(),
            domain: [i % len(DOMAINS) for i in range(len(labels))],
        }
        return datasets.Dataset.from_dict(rows, features=features)

    datasets.DatasetDict(train=split(16), test=split(4)).save_to_disk(place)


def link_generator(place: Path, _values: Mapping[str, Any], generator: Path) -> None:
    """Link a tiny text-to-image pipeline."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(generator)


MAKERS: dict[str, Callable[[Path, Mapping[str, Any], Path], None]] = {
    "dataset": make_dataset,
    "generator": link_generator,
}
"""Functions that create the folder or hub id of a config key; a hub id is read from a folder of its name."""


def values_of(words: Sequence[str]) -> dict[str, Any]:
    """Return the config values of a command of `fgl`: presets, KEY=VALUE, --generator."""
    after = dict(pairwise(words))
    presets = [preset_file(name) for word, name in pairwise(words) if word == "--preset"]
    values = merge_config_sources(
        presets, [word for word in words if "=" in word and not word.startswith("-")]
    )
    return values | ({"generator": after["--generator"]} if "--generator" in after else {})


def make_what_is_named(words: Sequence[str], generator: Path) -> None:
    """Create the data and models of a command of `fgl` in the current directory."""
    values = values_of(words)
    for key, maker in MAKERS.items():
        if (name := values.get(key, "")) and name not in BUILTIN_NAMES:
            place = Path(name)
            if place.is_symlink():
                place.unlink()
            shutil.rmtree(place, ignore_errors=True)
            maker(place, values, generator)


def point_latest_at(name: str) -> None:
    """Point `outputs/latest` to a run."""
    latest = Path("outputs", "latest")
    latest.unlink(missing_ok=True)
    latest.symlink_to(name)
