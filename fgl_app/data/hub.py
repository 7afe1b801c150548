"""Datasets opened by ``datasets``: hub ids, and folders of images, parquet, arrow or saved to disk."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from fgl_app.algorithms.images import match_channels
from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.types import ImageDataset, Selection
from fgl_app.models.hub_ids import is_hub_id, unknown_source_error

TEST_SPLITS = ("test", "validation", "valid")
SAVED_TO_DISK = "dataset_dict.json"


def load_labeled_images(
    name: str, image_size: int, selection: Selection, needs: tuple[str, ...] = ("train", "test")
) -> ImageDataset:
    """Load a labelled image dataset.

    Parameters
    ----------
    name : str
        Hub id or folder.
    image_size : int
        Side of the returned images in pixels; others are resized (bilinear, anti-aliased).
    selection : Selection
        Columns and classes.
    needs : tuple[str, ...], default ("train", "test")
        Required splits; another split may be missing or empty. "validation" replaces a missing "test".

    Returns
    -------
    ImageDataset
        Greyscale if all images are, else RGB.

    Raises
    ------
    ValueError
        If the dataset cannot be loaded, or lacks a column, a split or a class.
    """
    splits = _load_splits(name, selection.configuration, needs)
    columns = _find_columns(name, splits[needs[0]].features, selection)
    tables = [split.select_columns(list(columns.values())) for split in splits.values()]
    domain_names: tuple[str, ...] = ()
    labels, class_names = _as_classes(name, tables, columns["label"])
    domains: list[np.ndarray | None] = [None] * len(tables)
    if "domain" in columns:
        domains[:], domain_names = _as_classes(name, tables, columns["domain"])
    min_classes = 1 if "test" not in needs else 2
    class_map, class_names = _select_classes(name, class_names, selection.classes, min_classes)
    skipped: list[str] = []
    examples = [
        _read_images(_Split(table, columns["image"], label, domain), class_map, image_size, skipped)
        for table, label, domain in zip(tables, labels, domains, strict=True)
    ]
    if min(map(len, examples)) == 0:
        raise ValueError(f"dataset '{name}' has a split without a readable image of the selected classes")
    if len({data.images.shape[1] for data in examples}) > 1:
        examples = [match_channels(data, 3) for data in examples]
    by_split = dict(zip(splits, examples, strict=True))
    empty = examples[0].select(torch.zeros(0, dtype=torch.int64))
    return ImageDataset(
        by_split.get("train", empty), by_split.get("test", empty), class_names, domain_names, tuple(skipped)
    )


def _load_splits(name: str, configuration: str, needs: tuple[str, ...]) -> dict[str, datasets.Dataset]:
    """Return the training and the test split, if they exist."""
    opened = _open(name, configuration)
    sources = {"train": "train", "test": next((split for split in TEST_SPLITS if split in opened), "")}
    splits = {split: opened[source] for split, source in sources.items() if source in opened}
    if any(split not in splits for split in needs):
        required = " and ".join(
            "'test' or 'validation'" if split == "test" else f"'{split}'" for split in needs
        )
        raise ValueError(f"dataset '{name}' needs the splits {required}, it has {', '.join(opened)}")
    return splits


def _open(name: str, configuration: str) -> datasets.DatasetDict:
    if not (Path(name).is_dir() or is_hub_id(name)):
        raise unknown_source_error("dataset", "'digits'", name)
    datasets.disable_progress_bars()
    try:
        if (Path(name) / SAVED_TO_DISK).is_file():
            return datasets.load_from_disk(name)
        return datasets.load_dataset(name, configuration or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        is_local = Path(name).is_dir()
        source = "" if is_local else " is not an existing folder and"
        advice = "" if is_local else "; give a local folder, or set HF_HOME to a cache that contains it"
        reason = str(error).splitlines()[0]
        raise ValueError(f"dataset '{name}'{source} cannot be loaded: {reason}{advice}") from error


def _find_columns(name: str, features: datasets.Features, selection: Selection) -> dict[str, str]:
    """Return the names of the columns "image" and "label", and of "domain" if it is selected."""

    def column(key: str, value: str, feature_type: type) -> str:
        if value in features:
            return value
        for name_, feature in features.items():
            if not value and isinstance(feature, feature_type):
                return str(name_)
        missing = f"no column '{value}'" if value else f"no column of type {feature_type.__name__}"
        raise ValueError(f"dataset '{name}' has {missing}, it has {', '.join(features)}; set {key}")

    columns = {
        "image": column("image-column", selection.image_column, datasets.Image),
        "label": column("label-column", selection.label_column, datasets.ClassLabel),
    }
    if not isinstance(features[columns["image"]], datasets.Image):
        raise ValueError(
            f"column '{columns['image']}' of dataset '{name}' does not contain images; set image-column"
        )
    if selection.domain_column:
        columns["domain"] = column("domain-column", selection.domain_column, datasets.ClassLabel)
    return columns


def _as_classes(
    name: str, tables: list[datasets.Dataset], column: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Return a column of each table as class numbers, and the class names (without a type: sorted values)."""
    values = [np.asarray(table[column]) for table in tables]
    feature = tables[0].features[column]
    if not isinstance(feature, datasets.ClassLabel):
        distinct = sorted({value for part in values for value in part.tolist()})
        numbers = {value: number for number, value in enumerate(distinct)}
        coded = [np.array([numbers[value] for value in part.tolist()], dtype=np.int64) for part in values]
        return coded, tuple(str(value) for value in distinct)
    for part in values:
        outside = part[(part < 0) | (part >= feature.num_classes)]
        if len(outside):
            raise ValueError(
                f"column '{column}' of dataset '{name}' contains {outside[0]}, outside its "
                f"{feature.num_classes} names"
            )
    return [part.astype(np.int64) for part in values], tuple(feature.names)


def _select_classes(
    name: str, class_names: tuple[str, ...], selected: tuple[str, ...], min_classes: int
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return a map from old to new class numbers, and the new names."""
    numbers = {str(number): number for number in range(len(class_names))}
    numbers |= {each: number for number, each in enumerate(class_names)}
    unknown = [each for each in selected if each not in numbers]
    if unknown:
        raise ValueError(f"class-subset contains '{unknown[0]}', which is not a class of dataset '{name}'")
    kept = [numbers[each] for each in selected] or list(range(len(class_names)))
    if len(set(kept)) < max(min_classes, len(kept)):
        raise ValueError(
            f"dataset '{name}' needs at least {min_classes} classes, each named once, got {len(set(kept))}"
        )
    return {old: new for new, old in enumerate(kept)}, tuple(class_names[old] for old in kept)


@dataclass(frozen=True)
class _Split:
    table: datasets.Dataset
    image: str
    labels: np.ndarray
    domains: np.ndarray | None


def _read_images(
    split: _Split, class_map: dict[int, int], image_size: int, skipped: list[str]
) -> LabeledImages:
    """Read the images of the selected classes; append unreadable ones to ``skipped``."""
    selected = np.flatnonzero(np.isin(split.labels, list(class_map)))
    files = split.table.cast_column(split.image, datasets.Image(decode=False)).select(selected)
    pixels: list[np.ndarray] = []
    rows: list[int] = []
    for row, example in zip(selected.tolist(), files, strict=True):
        file = example[split.image]
        try:
            pixels.append(_decode(file, image_size))
            rows.append(row)
        except (OSError, SyntaxError, ValueError) as error:
            reason = str(error).splitlines()[0].split(" <")[0]
            skipped.append(f"{split.table.split} {row} {file['path'] or ''}: {reason}")
    images = np.stack(pixels) if pixels else np.zeros((0, image_size, image_size, 3), np.uint8)
    if (images == images[..., :1]).all():
        images = images[..., :1]
    return LabeledImages(
        torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
        torch.tensor([class_map[label] for label in split.labels[rows].tolist()], dtype=torch.int64),
        None if split.domains is None else torch.from_numpy(split.domains[rows]),
    )


def _decode(file: dict[str, Any], size: int) -> np.ndarray:
    with Image.open(io.BytesIO(file["bytes"]) if file["bytes"] is not None else file["path"]) as image:
        rgb = image.convert("RGB")
    if rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)
