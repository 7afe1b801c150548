"""Data sets that ``datasets.load_dataset`` opens: hub ids and folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import datasets
import numpy as np
import torch
from PIL import Image

from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.types import ImageDataset

TEST_SPLITS = ("test", "validation", "valid")


def load_labeled_images(name: str, image_size: int) -> ImageDataset:
    """Load a labelled image set.

    Parameters
    ----------
    name : str
        Hub id or folder.
    image_size : int
        Side of the returned images, pixels; others are resized (bilinear, anti-aliased).

    Returns
    -------
    ImageDataset
        Grey when all images are grey, else RGB.

    Raises
    ------
    ValueError
        When it is neither a folder nor to be reached, or lacks a column or a split.
    """
    looks_like_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not (Path(name).is_dir() or looks_like_hub_id):
        raise ValueError(f"dataset must be 'digits', a folder or a hub id such as 'owner/name', got '{name}'")
    datasets.disable_progress_bars()
    try:
        splits = datasets.load_dataset(name)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise ValueError(f"dataset '{name}' cannot be loaded: {str(error).splitlines()[0]}") from error
    test = next((split for split in TEST_SPLITS if split in splits), "")
    if "train" not in splits or not test:
        raise ValueError(
            f"dataset '{name}' needs the splits 'train' and 'test' or 'validation', "
            f"it has {', '.join(splits)}"
        )
    features = splits["train"].features
    image, label = _column(name, features, datasets.Image), _column(name, features, datasets.ClassLabel)
    read = [_read(splits[split], image, label, image_size) for split in ("train", test)]
    if len({images.images.shape[1] for images in read}) > 1:
        read = [LabeledImages(data.images.expand(-1, 3, -1, -1), data.labels) for data in read]
    return ImageDataset(read[0], read[1], tuple(features[label].names))


def _column(name: str, features: datasets.Features, kind: type) -> str:
    for column, feature in features.items():
        if isinstance(feature, kind):
            return str(column)
    raise ValueError(f"dataset '{name}' has no column of type {kind.__name__}, it has {', '.join(features)}")


def _read(split: datasets.Dataset, image: str, label: str, image_size: int) -> LabeledImages:
    pixels = np.stack(list(_pixels(split[image], image_size)))
    if (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return LabeledImages(images, torch.tensor(split[label], dtype=torch.int64))


def _pixels(images: Iterable[Image.Image], size: int) -> Iterable[np.ndarray]:
    for image in images:
        picture = image.convert("RGB")
        if picture.size != (size, size):
            picture = picture.resize((size, size), Image.Resampling.BILINEAR)
        yield np.asarray(picture)
