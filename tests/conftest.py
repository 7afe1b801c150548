"""Fixtures: Flower outside a run, and a tiny pipeline of real components."""

from __future__ import annotations

import os

# Read by OpenMP when torch is loaded: waiting threads must not keep others from shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity


@pytest.fixture(autouse=True, scope="session")
def _flower_identity():
    """Let messages be made outside a run."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    """One thread: the models here are too small to share, and sums come out the same anywhere."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory):
    """Folder of a randomly initialised Stable Diffusion pipeline: RGB, 16 x 16 pixels."""
    from tests.tiny_pipelines import save_tiny_pipeline

    folder = tmp_path_factory.mktemp("generator")
    save_tiny_pipeline("stable-diffusion", folder)
    return folder
