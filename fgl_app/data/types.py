"""What a data set is."""

from __future__ import annotations

from dataclasses import dataclass

from fgl_app.algorithms.types import LabeledImages


@dataclass(frozen=True)
class ImageDataset:
    """A data set with a fixed split into training and test examples.

    Parameters
    ----------
    train, test : LabeledImages
        The two splits, images of one size.
    class_names : tuple[str, ...]
        Name of each class.
    """

    train: LabeledImages
    test: LabeledImages
    class_names: tuple[str, ...]
