import datasets
import numpy as np
import pytest
import torch

from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.saving import save_images


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_images_are_a_dataset(tmp_path, channels):
    images = torch.randint(0, 256, (6, channels, 8, 8), dtype=torch.uint8)
    save_images(LabeledImages(images, torch.tensor([0, 0, 1, 1, 2, 2])), ["a", "b", "c"], tmp_path / "set")
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.features["label"].names == ["a", "b", "c"]
    assert loaded["label"] == [0, 0, 1, 1, 2, 2]
    pixels = np.asarray(loaded[3]["image"])
    assert np.array_equal(pixels, images[3].permute(1, 2, 0).squeeze(-1).numpy())
