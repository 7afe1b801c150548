import torch

from fgl_app.algorithms.images import match_channels, resize_images
from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.sources import load_dataset


def test_images_are_resized():
    data = load_dataset("digits", 16)
    assert data.test.images.shape == (1000, 1, 16, 16)
    whole = load_dataset("digits", 32).test
    assert abs(data.test.images.float().mean() - whole.images.float().mean()) < 1
    assert resize_images(whole, 32) is whole


def test_channels_are_converted():
    grey = LabeledImages(torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8), torch.zeros(3).long())
    colour = match_channels(grey, 3)
    assert colour.images.shape == (3, 3, 4, 4)
    # The luma of equal channels is their value.
    assert torch.equal(match_channels(colour, 1).images, grey.images)
    green = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    green[:, 1] = 200
    assert match_channels(LabeledImages(green, torch.zeros(1).long()), 1).images.item() == 117  # 0.587 * 200
