"""Image sets on disk, as folders that ``datasets.load_dataset`` opens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import datasets
from PIL import Image

from fgl_app.algorithms.types import LabeledImages


def save_images(data: LabeledImages, class_names: Sequence[str], folder: Path) -> None:
    """Write labelled images as ``train.parquet`` with the columns "image" (PNG) and "label".

    Parameters
    ----------
    data : LabeledImages
        Images of one or three channels.
    class_names : Sequence[str]
        Name of each class.
    folder : Path
        Made when absent.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pixels = data.images.permute(0, 2, 3, 1).squeeze(-1).numpy()
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))}
    )
    columns = {"image": [Image.fromarray(image) for image in pixels], "label": data.labels.tolist()}
    partial = folder / ".train.parquet"
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(str(partial))
    partial.replace(folder / "train.parquet")
