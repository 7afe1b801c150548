"""Feature extractors."""

import pytest
import torch

from fgl_app.data.sources import load_dataset
from fgl_app.models.classifiers import build_classifier, save_classifier
from fgl_app.models.extractors import check_extractor, load_extractor

CPU = torch.device("cpu")


def test_the_default_extractor_of_the_digits_knows_the_digits():
    data = load_dataset("digits", 32).test
    extractor = load_extractor("auto", "digits", CPU)
    found, classes = extractor(data.images)
    assert extractor.name.startswith("digits_features-")
    assert found.shape == (1000, 128)
    assert (classes == data.labels).float().mean() > 0.97


def test_the_classifier_of_a_run_is_an_extractor(tmp_path):
    model = build_classifier("resnet18", num_classes=3, in_channels=3, image_size=16, seed=0)
    save_classifier(model, tmp_path, ["a", "b", "c"])
    found, classes = load_extractor(str(tmp_path), "photos", CPU)(
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    )
    assert found.shape == (2, 512)
    assert classes.shape == (2,)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("auto", "exists for digits, not for 'photos'"),
        ("nothing", "must be 'auto', 'inception' or a"),
        ("inception", "needs the package torch-fidelity"),
    ],
)
def test_an_unavailable_extractor_is_rejected(name, sentence, monkeypatch):
    monkeypatch.setattr("fgl_app.models.extractors.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=sentence):
        check_extractor(name, "photos", num_classes=3, channels=3)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_an_extractor_must_know_the_classes_of_the_dataset(tmp_path, name):
    model = build_classifier(name, num_classes=3, in_channels=3, image_size=16, seed=0)
    save_classifier(model, tmp_path, ["a", "b", "c"])
    check_extractor(str(tmp_path), "photos", num_classes=3, channels=3)
    with pytest.raises(ValueError, match=r"must have the 4 classes of 'photos', .* has 3"):
        check_extractor(str(tmp_path), "photos", num_classes=4, channels=3)


def test_an_extractor_must_take_the_channels_of_the_dataset(tmp_path):
    model = build_classifier("cnn", num_classes=3, in_channels=1, image_size=16, seed=0)
    save_classifier(model, tmp_path, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"must take the 3 channels of 'photos', .* takes 1"):
        check_extractor(str(tmp_path), "photos", num_classes=3, channels=3)
