"""Data sets that ``datasets`` opens: hub ids, and folders of pictures, parquet, arrow or saved to disk."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.types import ImageDataset, Selection
from fgl_app.models.hub_ids import is_hub_id, unknown_source_error

TEST_SPLITS = ("test", "validation", "valid")
SAVED_TO_DISK = "dataset_dict.json"


def load_labeled_images(
    name: str, image_size: int, selection: Selection, needs: tuple[str, ...] = ("train", "test")
) -> ImageDataset:
    """Load a labelled image set.

    Parameters
    ----------
    name : str
        Hub id or folder.
    image_size : int
        Side of the returned images, pixels; others are resized (bilinear, anti-aliased).
    selection : Selection
        Columns and classes.
    needs : tuple[str, ...], default ("train", "test")
        Splits that must be there; of another the result has no examples. "validation" does for "test".

    Returns
    -------
    ImageDataset
        Grey when all images are grey, else RGB.

    Raises
    ------
    ValueError
        When it is neither a folder nor to be reached, or lacks a column, a split or a class.
    """
    splits = _splits(name, selection.configuration, needs)
    columns = _columns(name, splits[needs[0]].features, selection)
    tables = [split.select_columns(list(columns.values())) for split in splits.values()]
    domain_names: tuple[str, ...] = ()
    labels, class_names = _as_classes(name, tables, columns["label"])
    domains: list[np.ndarray | None] = [None] * len(tables)
    if "domain" in columns:
        domains[:], domain_names = _as_classes(name, tables, columns["domain"])
    least = 1 if "test" not in needs else 2
    kept, class_names = _subset(name, class_names, selection.classes, least)
    skipped: list[str] = []
    read = [
        _read(_Split(table, columns["image"], label, domain), kept, image_size, skipped)
        for table, label, domain in zip(tables, labels, domains, strict=True)
    ]
    if min(map(len, read)) == 0:
        raise ValueError(f"dataset '{name}' has a split without a readable image of the classes chosen")
    if len({images.images.shape[1] for images in read}) > 1:
        read = [replace(data, images=data.images.expand(-1, 3, -1, -1)) for data in read]
    found = dict(zip(splits, read, strict=True))
    nothing = read[0].select(torch.zeros(0, dtype=torch.int64))
    return ImageDataset(
        found.get("train", nothing), found.get("test", nothing), class_names, domain_names, tuple(skipped)
    )


def _splits(name: str, configuration: str, needs: tuple[str, ...]) -> dict[str, datasets.Dataset]:
    """Return the training and the test split of those there are, the needed ones first."""
    opened = _open(name, configuration)
    found = {"train": "train", "test": next((split for split in TEST_SPLITS if split in opened), "")}
    there = {split: opened[source] for split, source in found.items() if source in opened}
    if any(split not in there for split in needs):
        wanted = " and ".join(
            "'test' or 'validation'" if split == "test" else f"'{split}'" for split in needs
        )
        raise ValueError(f"dataset '{name}' needs the splits {wanted}, it has {', '.join(opened)}")
    return there


def _open(name: str, configuration: str) -> datasets.DatasetDict:
    if not (Path(name).is_dir() or is_hub_id(name)):
        raise unknown_source_error("dataset", "'digits'", name)
    datasets.disable_progress_bars()
    try:
        if (Path(name) / SAVED_TO_DISK).is_file():
            return datasets.load_from_disk(name)
        return datasets.load_dataset(name, configuration or None)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        local = Path(name).is_dir()
        place = "" if local else " is no folder here and"
        advice = "" if local else "; give a local folder, or HF_HOME with a cache that holds it"
        reason = str(error).splitlines()[0]
        raise ValueError(f"dataset '{name}'{place} cannot be loaded: {reason}{advice}") from error


def _columns(name: str, features: datasets.Features, selection: Selection) -> dict[str, str]:
    """Return the columns in use, by "image", "label" and, when asked for, "domain"."""

    def column(key: str, asked: str, kind: type) -> str:
        if asked in features:
            return asked
        for found, feature in features.items():
            if not asked and isinstance(feature, kind):
                return str(found)
        missing = f"no column '{asked}'" if asked else f"no column of type {kind.__name__}"
        raise ValueError(f"dataset '{name}' has {missing}, it has {', '.join(features)}; set {key}")

    columns = {
        "image": column("image-column", selection.image_column, datasets.Image),
        "label": column("label-column", selection.label_column, datasets.ClassLabel),
    }
    if not isinstance(features[columns["image"]], datasets.Image):
        raise ValueError(f"column '{columns['image']}' of dataset '{name}' holds no images; set image-column")
    if selection.domain_column:
        columns["domain"] = column("domain-column", selection.domain_column, datasets.ClassLabel)
    return columns


def _as_classes(
    name: str, tables: list[datasets.Dataset], column: str
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    """Return a column of each table as numbers of names: those of its type, else its values in order."""
    values = [np.asarray(table[column]) for table in tables]
    feature = tables[0].features[column]
    if not isinstance(feature, datasets.ClassLabel):
        present = sorted({value for part in values for value in part.tolist()})
        numbers = {value: number for number, value in enumerate(present)}
        coded = [np.array([numbers[value] for value in part.tolist()], dtype=np.int64) for part in values]
        return coded, tuple(str(value) for value in present)
    for part in values:
        outside = part[(part < 0) | (part >= feature.num_classes)]
        if len(outside):
            raise ValueError(
                f"column '{column}' of dataset '{name}' holds {outside[0]}, outside its "
                f"{feature.num_classes} names"
            )
    return [part.astype(np.int64) for part in values], tuple(feature.names)


def _subset(
    name: str, class_names: tuple[str, ...], wanted: tuple[str, ...], least: int
) -> tuple[dict[int, int], tuple[str, ...]]:
    """Return old class numbers with their new ones, and the new names."""
    known = {str(number): number for number in range(len(class_names))}
    known |= {each: number for number, each in enumerate(class_names)}
    unknown = [each for each in wanted if each not in known]
    if unknown:
        raise ValueError(f"class-subset names '{unknown[0]}', which is no class of dataset '{name}'")
    kept = [known[each] for each in wanted] or list(range(len(class_names)))
    if len(set(kept)) < max(least, len(kept)):
        raise ValueError(
            f"dataset '{name}' needs at least {least} classes, each named once, got {len(set(kept))}"
        )
    return {old: new for new, old in enumerate(kept)}, tuple(class_names[old] for old in kept)


@dataclass(frozen=True)
class _Split:
    table: datasets.Dataset
    image: str
    labels: np.ndarray
    domains: np.ndarray | None


def _read(split: _Split, kept: dict[int, int], image_size: int, skipped: list[str]) -> LabeledImages:
    """Read the images of the classes kept; those that cannot be read are skipped and named."""
    wanted = np.flatnonzero(np.isin(split.labels, list(kept)))
    files = split.table.cast_column(split.image, datasets.Image(decode=False)).select(wanted)
    pixels: list[np.ndarray] = []
    rows: list[int] = []
    for row, example in zip(wanted.tolist(), files, strict=True):
        file = example[split.image]
        try:
            pixels.append(_pixels(file, image_size))
            rows.append(row)
        except (OSError, SyntaxError, ValueError) as error:
            reason = str(error).splitlines()[0].split(" <")[0]
            skipped.append(f"{split.table.split} {row} {file['path'] or ''}: {reason}")
    everything = np.stack(pixels) if pixels else np.zeros((0, image_size, image_size, 3), np.uint8)
    if (everything == everything[..., :1]).all():
        everything = everything[..., :1]
    return LabeledImages(
        torch.from_numpy(np.ascontiguousarray(everything.transpose(0, 3, 1, 2))),
        torch.tensor([kept[label] for label in split.labels[rows].tolist()], dtype=torch.int64),
        None if split.domains is None else torch.from_numpy(split.domains[rows]),
    )


def _pixels(file: dict[str, Any], size: int) -> np.ndarray:
    with Image.open(io.BytesIO(file["bytes"]) if file["bytes"] is not None else file["path"]) as image:
        picture = image.convert("RGB")
    if picture.size != (size, size):
        picture = picture.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(picture)
