import pytest
import torch

from fgl_app.data.sources import load_dataset


def test_the_digits_are_4000_to_train_and_1000_to_test():
    data = load_dataset("digits", 32)
    assert data.train.images.shape == (4000, 1, 32, 32)
    assert data.test.images.shape == (1000, 1, 32, 32)
    assert torch.bincount(data.train.labels).tolist() == [400] * 10
    assert torch.bincount(data.test.labels).tolist() == [100] * 10
    assert data.class_names[7] == "seven"
    # Ink is bright on dark, and the padding is dark.
    assert data.train.images.max() == 255
    assert data.train.images[:, :, :2].max() == 0


def test_no_test_digit_is_a_training_digit():
    data = load_dataset("digits", 32)
    train = {image.numpy().tobytes() for image in data.train.images}
    assert not any(image.numpy().tobytes() in train for image in data.test.images)


def test_an_unknown_dataset_is_rejected():
    with pytest.raises(
        ValueError, match="dataset must be 'digits', a folder or a hub id such as 'owner/name', got 'letters'"
    ):
        load_dataset("letters", 32)
