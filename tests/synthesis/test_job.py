"""Jobs, and the file of their embeddings."""

import pytest
import torch

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.synthesis.generator import generator_settings
from fgl_app.synthesis.job import SynthesisJob, load_embeddings, save_embeddings
from tests.synthesis.conftest import NAMES, SHARDS


def test_embeddings_are_loaded_from_their_file_or_folder(saved):
    loaded, names, encoder = load_embeddings(saved.file)
    assert torch.equal(load_embeddings(saved.file.parent)[0].labels, loaded.labels)
    assert names == NAMES
    assert encoder
    assert loaded.labels.tolist() == [0, 1, 2, 2]
    assert loaded.counts.tolist() == [5, 5, 3, 2]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: TextEmbeddings(e.tensors, e.labels + 1, e.counts), "labels outside its 3 classes"),
        (
            lambda e: TextEmbeddings(e.tensors, e.labels, e.counts * 0),
            "labels outside its 3 classes, or counts below 1",
        ),
        (lambda e: TextEmbeddings(e.tensors, e.labels[:2], e.counts), "tensors of different lengths"),
        (
            lambda e: TextEmbeddings({k: v * torch.nan for k, v in e.tensors.items()}, e.labels, e.counts),
            "NaN or infinity",
        ),
        (lambda e: TextEmbeddings({}, e.labels, e.counts), "has no embeddings of a run"),
    ],
)
def test_invalid_embeddings_are_rejected(saved, tmp_path, change, message):
    loaded, names, encoder = load_embeddings(saved.file)
    file = tmp_path / "invalid.safetensors"
    save_embeddings(change(loaded), names, encoder, file)
    with pytest.raises(ValueError, match=message):
        load_embeddings(file)


def test_other_files_are_rejected(tmp_path):
    (tmp_path / "text").write_text("no tensors")
    for file in (tmp_path / "text", tmp_path / "missing"):
        with pytest.raises(ValueError, match="is not a safetensors file"):
            load_embeddings(file)


def test_images_are_counted_by_class(saved):
    loaded, names, _ = load_embeddings(saved.file)
    job = SynthesisJob(generator_settings(saved.config()), loaded, names)
    # The classes alternate: a shard of 256 has 86, 85 and 85 of them, two have 171, 171 and 170.
    assert job.counts_by_class({0}) == [86, 85, 85]
    assert job.counts_by_class({0, 1}) == [171, 171, 170]
    assert sum(job.counts_by_class(range(SHARDS))) == len(job.plan)
