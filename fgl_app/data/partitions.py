"""Partitioning of examples over clients with Flower's partitioners."""

from __future__ import annotations

import warnings
from functools import lru_cache

import datasets
import numpy as np
import torch
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    IidPartitioner,
    LinearPartitioner,
    NaturalIdPartitioner,
    Partitioner,
    PathologicalPartitioner,
)

from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import RunConfig
from fgl_app.data.sources import config_dataset
from fgl_app.data.types import ImageDataset

MIN_PARTITION_SIZE = 10
"""Minimum number of examples per client."""


@lru_cache(maxsize=4)
def partition(config: RunConfig, num_clients: int) -> tuple[np.ndarray, ...]:
    """Split the training examples of a config's dataset over clients.

    The result has for each client the int64 indices of its training examples: disjoint, sorted, and the same
    for equal arguments.

    Raises
    ------
    ValueError
        If this partition of the data is not possible.
    """
    data = config_dataset(config)
    labels = data.train.labels.numpy()
    _check_feasible(config, num_clients, data)
    partitioner = _partitioner(config, num_clients)
    # The partitioners keep the order of the examples, and datasets are often sorted by class.
    order = np.random.default_rng(config.seed).permutation(len(labels))
    columns = {"label": labels[order], "index": order}
    if data.train.domains is not None:
        columns["domain"] = data.train.domains.numpy()[order]
    partitioner.dataset = datasets.Dataset.from_dict(columns)
    try:
        # The Dirichlet partitioner warns after each of its (at most eleven) draws.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = [partitioner.load_partition(i).with_format("numpy") for i in range(num_clients)]
    except ValueError as error:
        raise ValueError(_infeasible_message(config, num_clients)) from error
    return tuple(np.sort(np.asarray(part["index"])) for part in parts)


def label_counts(config: RunConfig, num_clients: int) -> np.ndarray:
    """Return the number of examples by client and class: int64, shape (clients, classes)."""
    data = config_dataset(config)
    labels = data.train.labels.numpy()
    return np.stack(
        [
            np.bincount(labels[part], minlength=len(data.class_names))
            for part in partition(config, num_clients)
        ]
    )


def _partitioner(config: RunConfig, num_clients: int) -> Partitioner:
    if config.partitioning == "iid":
        return IidPartitioner(num_clients)
    if config.partitioning == "dirichlet":
        return DirichletPartitioner(
            num_clients, "label", config.dirichlet_alpha, MIN_PARTITION_SIZE, seed=config.seed
        )
    if config.partitioning == "size":
        return LinearPartitioner(num_clients)
    if config.partitioning == "domain":
        return NaturalIdPartitioner("domain")
    return PathologicalPartitioner(
        num_clients, "label", config.classes_per_client, "first-deterministic", seed=config.seed
    )


def _check_feasible(config: RunConfig, num_clients: int, data: ImageDataset) -> None:
    num_examples, num_classes = len(data.train), len(data.train.labels.unique())
    max_clients = num_examples // MIN_PARTITION_SIZE
    if num_clients > max_clients:
        raise ValueError(
            f"the {num_examples} training examples of '{config.dataset}' allow at most {max_clients} clients "
            f"of {MIN_PARTITION_SIZE} examples, got {num_clients} clients"
        )
    if data.train.domains is not None and config.partitioning == "domain":
        num_domains = len(data.train.domains.unique())
        if num_domains != num_clients:
            raise ValueError(
                f"partitioning 'domain' needs a client for each of the {num_domains} domains of "
                f"'{config.dataset}', got {num_clients} clients"
            )
    if config.partitioning == "pathological" and config.classes_per_client > num_classes:
        raise ValueError(
            f"classes-per-client must be at most {num_classes}, the number of classes of '{config.dataset}', "
            f"got {config.classes_per_client}"
        )


def _infeasible_message(config: RunConfig, num_clients: int) -> str:
    if config.partitioning == "dirichlet":
        return (
            f"dirichlet-alpha {config.dirichlet_alpha} with seed {config.seed} leaves one of {num_clients} "
            f"clients fewer than {MIN_PARTITION_SIZE} examples; raise dirichlet-alpha or use fewer clients"
        )
    return (
        f"partitioning '{config.partitioning}' of '{config.dataset}' over {num_clients} clients is not "
        "possible: a class has fewer examples than clients; use fewer clients"
    )


@lru_cache(maxsize=8)
def load_client_data(
    config: RunConfig, partition_id: int, num_partitions: int
) -> tuple[LabeledImages, ImageDataset]:
    """Return the training examples of a client and the whole dataset; cached for the next call."""
    data = config_dataset(config)
    indices = torch.from_numpy(partition(config, num_partitions)[partition_id])
    return data.train.select(indices), data
