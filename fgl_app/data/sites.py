"""A site's own data, with its labels reconciled with the server's by name."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import torch

from fgl_app.algorithms.images import match_channels
from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import NO_DATASET, RunConfig
from fgl_app.data.hub import load_labeled_images
from fgl_app.data.sources import config_selection
from fgl_app.data.types import ImageDataset
from fgl_app.data.vocabulary import load_vocabulary


@lru_cache(maxsize=4)
def load_site_data(
    config: RunConfig, data_path: str, class_names: tuple[str, ...], channels: int
) -> ImageDataset:
    """Load a site's data as the server's classes see it.

    Parameters
    ----------
    config : RunConfig
        Columns, image size, vocabulary; with a ``class-subset`` of the server's data set examples of other
        classes are left out.
    data_path : str
        What ``datasets`` opens, with a split "train" and, for evaluation at the site, "test" or "validation".
    class_names : tuple[str, ...]
        The server's classes. The site may lack some, and order them differently.
    channels : int
        The server's: 1 or 3.

    Returns
    -------
    ImageDataset
        Labels are the server's; the test split is empty when there is none. Kept in memory for the next call.

    Raises
    ------
    ValueError
        When the data cannot be read, or hold examples of a class that the server does not know.
    """
    selection = replace(config_selection(config), classes=())
    if Path(data_path).exists():
        # The configuration is one of the server's data set; a folder has none of that name.
        selection = replace(selection, configuration="")
    data = load_labeled_images(data_path, config.image_size, selection, needs=("train",))
    names = tuple(load_vocabulary(config.vocabulary).label(name) for name in data.class_names)

    numbers = torch.tensor([class_names.index(name) if name in class_names else -1 for name in names])

    def reconciled(examples: LabeledImages) -> LabeledImages:
        known = numbers[examples.labels] >= 0
        # Without a data set of the server's the classes are all there are, not a choice among them.
        if not config.class_subset or config.dataset == NO_DATASET:
            unknown = sorted({names[label] for label in examples.labels[~known].tolist()})
            if unknown:
                raise ValueError(
                    f"the data in {data_path} have the label '{unknown[0]}', which the server does not know; "
                    f"it knows {', '.join(class_names)}"
                )
        examples = match_channels(examples.select(known.nonzero().squeeze(1)), channels)
        return replace(examples, labels=numbers[examples.labels])

    train = reconciled(data.train)
    if not len(train):
        raise ValueError(f"the data in {data_path} hold no example of the server's classes")
    return replace(data, train=train, test=reconciled(data.test), class_names=class_names)
