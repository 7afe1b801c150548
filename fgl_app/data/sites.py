"""Data of a site, with its labels matched to the server's by name."""

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
    """Load the data of a site with the class numbers of the server.

    Parameters
    ----------
    config : RunConfig
        Columns, image size, vocabulary; with a ``class-subset`` of the server's dataset, examples of other
        classes are dropped.
    data_path : str
        Dataset opened by ``datasets``, with a split "train" and, for evaluation at the site, "test" or
        "validation".
    class_names : tuple[str, ...]
        Classes of the server. The site may lack some and order them differently.
    channels : int
        Image channels of the server: 1 or 3.

    Returns
    -------
    ImageDataset
        With the server's labels; a missing test split is empty. Cached for the next call.

    Raises
    ------
    ValueError
        If the data cannot be read, or have a label that is not a class of the server.
    """
    selection = replace(config_selection(config), classes=())
    if Path(data_path).exists():
        # The key names a configuration of the server's dataset, which a local folder does not have.
        selection = replace(selection, configuration="")
    data = load_labeled_images(data_path, config.image_size, selection, needs=("train",))
    names = tuple(load_vocabulary(config.vocabulary).label(name) for name in data.class_names)

    numbers = torch.tensor([class_names.index(name) if name in class_names else -1 for name in names])

    def match_labels(examples: LabeledImages) -> LabeledImages:
        known = numbers[examples.labels] >= 0
        # With dataset=none, class-subset lists all classes and does not select some.
        if not config.class_subset or config.dataset == NO_DATASET:
            unknown = sorted({names[label] for label in examples.labels[~known].tolist()})
            if unknown:
                raise ValueError(
                    f"the data in {data_path} have the label '{unknown[0]}', which is not a class of the "
                    f"server; its classes are {', '.join(class_names)}"
                )
        examples = match_channels(examples.select(known.nonzero().squeeze(1)), channels)
        return replace(examples, labels=numbers[examples.labels])

    train = match_labels(data.train)
    if not len(train):
        raise ValueError(f"the data in {data_path} have no example of the server's classes")
    return replace(data, train=train, test=match_labels(data.test), class_names=class_names)
