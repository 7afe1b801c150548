import pytest
import torch
from safetensors.torch import load_file

from fgl_app.models.classifiers import build_classifier, check_classifier, load_classifier, save_classifier


@pytest.mark.parametrize("size", [8, 15, 28, 31])
def test_the_small_cnn_takes_any_size(size):
    model = build_classifier("cnn", num_classes=7, in_channels=1, image_size=size, seed=0)
    assert model(torch.zeros(1, 1, size, size)).shape == (1, 7)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit-small", "convnext-tiny"])
@pytest.mark.parametrize("channels", [1, 3])
def test_classifiers_map_images_to_logits(name, channels):
    model = build_classifier(name, num_classes=7, in_channels=channels, image_size=32, seed=0)
    assert model(torch.zeros(2, channels, 32, 32)).shape == (2, 7)


def test_initial_weights_follow_the_seed_and_the_global_state_is_unchanged():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = (
        build_classifier("cnn", num_classes=3, in_channels=1, image_size=16, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_a_saved_cnn_is_its_state_dict(tmp_path):
    model = build_classifier("cnn", num_classes=3, in_channels=1, image_size=16, seed=1)
    save_classifier(model, tmp_path, ["a", "b", "c"])
    loaded = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit-small"])
def test_a_saved_classifier_is_loaded(tmp_path, name):
    model = build_classifier(name, num_classes=3, in_channels=1, image_size=24, seed=1).eval()
    save_classifier(model, tmp_path, ["a", "b", "c"])
    images = torch.rand(2, 1, 24, 24)
    assert torch.allclose(load_classifier(tmp_path)(images), model(images), atol=1e-6)


def test_a_pretrained_classifier_keeps_its_body_and_gets_a_head(tmp_path):
    """Saved with three classes of colour images, loaded for five classes of greyscale images."""
    saved = build_classifier("resnet18", num_classes=3, in_channels=3, image_size=32, seed=1)
    saved.mean.fill_(0.3)
    save_classifier(saved, tmp_path, ["a", "b", "c"])
    model = build_classifier(str(tmp_path), num_classes=5, in_channels=1, image_size=32, seed=0).eval()
    body = {name: tensor for name, tensor in saved.state_dict().items() if "classifier" not in name}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in body.items())
    grey = torch.rand(2, 1, 32, 32) * 2 - 1
    assert model(grey).shape == (2, 5)
    assert torch.equal(model(grey), model(grey.expand(-1, 3, -1, -1)))
    save_classifier(model, tmp_path / "again", list("vwxyz"))
    assert torch.allclose(load_classifier(tmp_path / "again")(grey), model(grey), atol=1e-6)
    # Its normalization was saved too: with another one the logits differ.
    model.mean.fill_(0.5)
    assert not torch.allclose(load_classifier(tmp_path / "again")(grey), model(grey), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet19", "./missing", ""])
def test_an_unknown_classifier_is_rejected(name, tmp_path):
    with pytest.raises(ValueError, match="classifier"):
        check_classifier(name or str(tmp_path))


def test_a_saved_resnet_is_loaded_by_transformers(tmp_path):
    from transformers import AutoModelForImageClassification

    model = build_classifier("resnet18", num_classes=3, in_channels=1, image_size=32, seed=1).eval()
    save_classifier(model, tmp_path, ["a", "b", "c"])
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    images = torch.rand(2, 1, 32, 32)
    assert torch.allclose(loaded(images).logits, model(images), atol=1e-6)
    assert loaded.config.id2label == {0: "a", 1: "b", 2: "c"}
