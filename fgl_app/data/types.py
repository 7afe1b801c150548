"""What a data set is."""

from __future__ import annotations

from dataclasses import dataclass

from fgl_app.algorithms.types import LabeledImages


@dataclass(frozen=True)
class Selection:
    """Which columns and classes of a data set are used.

    Parameters
    ----------
    configuration : str, default ""
        Name of the data set's configuration, when it has several.
    image_column, label_column : str, default ""
        Names of columns; empty takes the first of type ``Image`` and of type ``ClassLabel``.
    domain_column : str, default ""
        Column that names each example's domain, such as its site or style; empty: none.
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
    """A data set with a fixed split into training and test examples.

    Parameters
    ----------
    train, test : LabeledImages
        The two splits, images of one size.
    class_names : tuple[str, ...]
        Name of each class.
    domain_names : tuple[str, ...], default ()
        Name of each domain.
    skipped : tuple[str, ...], default ()
        Images that could not be read: split, row and reason.
    """

    train: LabeledImages
    test: LabeledImages
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
