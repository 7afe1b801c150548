import datasets
import numpy as np
import pytest
import torch

from fgl_app.config import parse_config
from fgl_app.data.partitions import MIN_PARTITION_SIZE, label_counts, load_client_data, partition
from tests.data.test_hub import styles_config
from tests.image_folders import a_folder_of_styles


def config(**values):
    return parse_config({key.replace("_", "-"): value for key, value in values.items()})


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_a_partition_is_disjoint_complete_and_reproducible(kind):
    parts = partition(config(partitioning=kind, dirichlet_alpha=0.5), 5)
    joined = np.concatenate(parts)
    assert sorted(joined) == list(range(4000))
    assert min(len(part) for part in parts) >= MIN_PARTITION_SIZE
    partition.cache_clear()
    again = partition(config(partitioning=kind, dirichlet_alpha=0.5), 5)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    other = partition(config(partitioning=kind, dirichlet_alpha=0.5, seed=1), 5)
    assert not all(np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


def test_the_skew_follows_the_config():
    iid = label_counts(config(partitioning="iid"), 4)
    assert iid.sum() == 4000
    assert iid.min() > 60  # 100 of each expected
    pathological = label_counts(config(partitioning="pathological", classes_per_client=3), 4)
    assert (pathological > 0).sum(axis=1).tolist() == [3, 3, 3, 3]
    skewed = label_counts(config(dirichlet_alpha=0.01), 5)
    mild = label_counts(config(dirichlet_alpha=10.0), 5)
    # Share of a class that its main holder has.
    assert (skewed.max(axis=0) / skewed.sum(axis=0)).mean() > 0.9
    assert (mild.max(axis=0) / mild.sum(axis=0)).mean() < 0.5


@pytest.mark.parametrize(
    ("values", "clients", "message"),
    [
        ({"partitioning": "iid"}, 401, "allow at most 400 clients of 10 examples, got 401 clients"),
        ({"dirichlet_alpha": 0.01}, 50, "dirichlet-alpha 0.01 with seed 0 leaves one of 50 clients"),
        (
            {"partitioning": "pathological", "classes_per_client": 11},
            3,
            "classes-per-client must be at most 10, the number of classes of 'digits', got 11",
        ),
    ],
)
def test_an_impossible_partition_is_rejected(values, clients, message):
    with pytest.raises(ValueError, match=message):
        partition(config(**values), clients)


def test_a_client_gets_only_its_own_examples():
    data, source = load_client_data(config(), 2, 5)
    counts = label_counts(config(), 5)[2]
    assert torch.bincount(data.labels, minlength=10).tolist() == counts.tolist()
    assert source.class_names[0] == "zero"


def test_a_client_gets_a_domain(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    settings = styles_config(a_folder_of_styles(tmp_path), partitioning="domain")
    held = [load_client_data(settings, i, 3)[0].domains.unique().tolist() for i in range(3)]
    assert sorted(held) == [[0], [1], [2]]
    with pytest.raises(ValueError, match=r"needs a client for each of the 3 domains of '.*', got 2 clients"):
        partition(settings, 2)


def test_the_number_of_examples_grows_with_partitioning_size():
    sizes = [len(part) for part in partition(config(partitioning="size"), 4)]
    assert sizes == [400, 800, 1200, 1600]
