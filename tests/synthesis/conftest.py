"""Fixtures: saved embeddings of four prompts, and the set that an undisturbed process makes of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import load_dataset

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.config import RunConfig, parse_config
from fgl_app.data.shards import SHARD_SIZE
from fgl_app.models.fingerprints import encoder_fingerprint
from fgl_app.synthesis.command import synthesize_file
from fgl_app.synthesis.generator import generator_settings, load_generator
from fgl_app.synthesis.job import save_embeddings

NAMES = ("zero", "one", "two")
SHARDS = 5
IMAGES_PER_CLASS = (SHARDS * SHARD_SIZE - 100) // 3


@dataclass(frozen=True)
class SavedEmbeddings:
    """A file of embeddings, and the config values of the set made of them."""

    file: Path
    values: dict[str, Any]

    def config(self, **changes: object) -> RunConfig:
        return parse_config(self.values | {key.replace("_", "-"): each for key, each in changes.items()})

    def make(self, out: Path, **changes: object) -> Path:
        """Make the set in this process and return its folder."""
        return synthesize_file(self.file, out, self.config(**changes))

    def arguments(self, out: Path, **changes: object) -> list[str]:
        """Return the arguments of `fgl` that make the set."""
        values = self.values | {key.replace("_", "-"): each for key, each in changes.items()}
        pairs = [f"{key}={value}" for key, value in values.items()]
        return ["synthesize", str(self.file), "--out", str(out), *pairs]


@pytest.fixture(scope="session")
def saved(tiny_generator, tmp_path_factory):
    values = {
        "generator": str(tiny_generator),
        "images-per-class": IMAGES_PER_CLASS,
        "num-inference-steps": 1,
        "synthesis-batch-size": 64,
        "device": "cpu",
    }
    pipeline = load_generator(generator_settings(parse_config(values)))
    # The images of the last class are split over two prompts.
    labels, counts = torch.tensor([0, 1, 2, 2]), torch.tensor([5, 5, 3, 2])
    merged = TextEmbeddings(encode_texts(pipeline, ["a", "b", "c", "d"]), labels, counts)
    file = tmp_path_factory.mktemp("embeddings") / "embeddings.safetensors"
    save_embeddings(merged, NAMES, encoder_fingerprint(pipeline), file)
    return SavedEmbeddings(file, values)


@pytest.fixture(scope="session")
def finished(saved, tmp_path_factory):
    """Folder of the complete set; tests must not change it."""
    return saved.make(tmp_path_factory.mktemp("finished") / "set")


@pytest.fixture(scope="session")
def reference(finished):
    """Images of the complete set."""
    return read_images(finished)


def read_images(folder):
    """Return the images of a set as one array, after checking its other columns."""
    data = load_dataset(str(folder), cache_dir=str(folder.parent / "cache"))["train"]
    assert data.features["label"].names == list(NAMES)
    assert len(set(zip(data["prompt"], data["number"], strict=True))) == len(data) == IMAGES_PER_CLASS * 3
    assert data["label"] == [(0, 1, 2, 2)[prompt] for prompt in data["prompt"]]
    return np.stack([np.asarray(image) for image in data["image"]])
