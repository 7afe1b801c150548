"""Datasets and the selection of their columns and classes."""

from __future__ import annotations

from dataclasses import dataclass

from fgl_app.algorithms.types import LabeledImages


@dataclass(frozen=True)
class Selection:
    """Columns and classes to use of a dataset.

    Parameters
    ----------
    configuration : str, default ""
        Name of the dataset's configuration, if it has several.
    image_column, label_column : str, default ""
        Names of columns; empty selects the first of type ``Image`` or ``ClassLabel``.
    domain_column : str, default ""
        Column with the domain of each example, such as its site or style; empty for none.
    classes : tuple[str, ...], default ()
        Names or numbers of the classes to keep, in their new order; empty keeps all.
    """

    configuration: str = ""
    image_column: str = ""
    label_column: str = ""
    domain_column: str = ""
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ImageDataset:
    """A dataset with fixed training and test splits.

    Parameters
    ----------
    train, test : LabeledImages
        The two splits, with images of one size.
    class_names : tuple[str, ...]
        Name of each class.
    domain_names : tuple[str, ...], default ()
        Name of each domain.
    skipped : tuple[str, ...], default ()
        Images that could not be read: split, row, file and reason.
    """

    train: LabeledImages
    test: LabeledImages
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
