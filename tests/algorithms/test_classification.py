from dataclasses import replace

import pytest
import torch
from torch import nn

from fgl_app.algorithms.classification import TrainSettings, evaluate, random_affine, train
from fgl_app.algorithms.types import LabeledImages
from fgl_app.models.classifiers import build_classifier

PLAIN = TrainSettings(2, 8, 0.1, 0.9, 0.0, "none")


@pytest.fixture
def data():
    """Two linearly separable classes: bright on the left, or on the right."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (64, 1, 16, 16), generator=generator, dtype=torch.uint8)
    labels = torch.arange(64) % 2
    images[labels == 0, :, :, :8] += 120
    images[labels == 1, :, :, 8:] += 120
    return LabeledImages(images, labels)


def model(seed=0):
    return build_classifier("cnn", num_classes=2, in_channels=1, image_size=16, seed=seed)


def trained(data, settings, seed=0):
    network = model()
    loss = train(network, data, settings, torch.Generator().manual_seed(seed))
    return network.state_dict(), loss


def test_training_learns(data):
    network = model()
    before = evaluate(network, data)
    seen = []
    train(network, data, replace(PLAIN, epochs=6), torch.Generator().manual_seed(0), callback=seen.append)
    after = evaluate(network, data)
    assert after[0] == 1.0
    assert after[1] < before[1] / 2
    assert sum(seen) == 6 * 64


def test_the_same_seed_trains_the_same_model(data):
    settings = replace(PLAIN, augmentation="affine")
    first, second, other = (
        trained(data, settings)[0],
        trained(data, settings)[0],
        trained(data, settings, 1)[0],
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_without_epochs_the_model_is_unchanged(data):
    state, loss = trained(data, replace(PLAIN, epochs=0, schedule="one-cycle"))
    assert loss == 0.0
    assert all(torch.equal(state[name], tensor) for name, tensor in model().state_dict().items())


def test_fedprox_with_mu_zero_is_plain_training_and_a_large_mu_limits_the_change(data):
    plain, _ = trained(data, PLAIN)
    zero, _ = trained(data, replace(PLAIN, proximal_mu=0.0))
    held, _ = trained(data, replace(PLAIN, proximal_mu=5.0))
    start = model().state_dict()

    def moved(state):
        return sum((state[name] - start[name]).square().sum() for name in start)

    assert all(torch.equal(plain[name], zero[name]) for name in plain)
    assert moved(held) < 0.2 * moved(plain)


def test_one_step_is_sgd_by_hand(data):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(256, 2))
    weight = linear[1].weight.detach().clone()
    batch = data.select(torch.arange(8))
    logits = linear(batch.images.float() / 127.5 - 1)
    expected = torch.autograd.grad(nn.functional.cross_entropy(logits, batch.labels), linear[1].weight)[0]
    train(linear, batch, replace(PLAIN, epochs=1, momentum=0.0), torch.Generator())
    assert torch.allclose(linear[1].weight, weight - 0.1 * expected, atol=1e-6)


def test_a_last_batch_of_one_joins_the_previous_batch(data):
    network = build_classifier("resnet18", num_classes=2, in_channels=1, image_size=16, seed=0)
    seen = []
    settings = replace(PLAIN, epochs=1, learning_rate=0.01)
    train(network, data.select(torch.arange(17)), settings, torch.Generator(), callback=seen.append)
    assert seen == [8, 9]


def test_evaluation_by_hand():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([0.0, 0.0, 100.0]))

        def forward(self, images):
            return self.logits.expand(len(images), 3)

    data = LabeledImages(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([2, 2, 2, 0]))
    accuracy, loss = evaluate(Constant(), data, batch_size=3)
    assert accuracy == 0.75
    # Three losses of 0 and one of 100.
    assert loss == pytest.approx(25.0)


def test_augmentation_moves_images_and_keeps_their_range():
    images = torch.full((32, 1, 16, 16), -1.0)
    images[:, :, 4:12, 7:9] = 1.0
    moved = random_affine(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert moved.min() >= -1
    assert moved.max() <= 1
    assert (moved - images).abs().flatten(1).amax(1).min() > 0.1
    # Small transforms: the amount of ink changes only as much as the scale allows.
    ink = (moved + 1).flatten(1).sum(1) / (images + 1).flatten(1).sum(1)
    assert 0.6 < ink.min() < ink.max() < 1.6
