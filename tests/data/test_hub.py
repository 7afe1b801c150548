from pathlib import Path

import datasets
import pytest
import torch
from PIL import Image

from fgl_app.config import parse_config
from fgl_app.data.sources import config_dataset, load_dataset
from tests.image_folders import a_folder_of_colours, a_folder_of_styles


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Folder with 60 images of three colours."""
    return str(a_folder_of_colours(tmp_path_factory.mktemp("colours")))


def config(**values):
    return parse_config({key.replace("_", "-"): value for key, value in values.items()})


def test_a_folder_is_a_dataset(colours):
    data = load_dataset(colours, 16)
    assert data.train.images.shape == data.test.images.shape == (60, 3, 16, 16)
    assert data.class_names == ("red", "green", "blue")
    assert data.train.images[1, :, 5, 5].tolist() == [0, 200, 0]
    assert data.train.labels[:4].tolist() == [0, 1, 2, 0]


def test_grey_images_have_one_channel_and_validation_replaces_test(tmp_path):
    data = load_dataset(str(a_folder_of_colours(tmp_path, splits=("train", "validation"), grey=True)), 8)
    assert data.test.images.shape == (60, 1, 8, 8)
    assert data.test.images[2].unique().tolist() == [200]


def test_an_incomplete_dataset_is_rejected(tmp_path):
    (tmp_path / "one").mkdir()
    with pytest.raises(ValueError, match="needs the splits 'train' and 'test' or 'validation', it has train"):
        load_dataset(str(a_folder_of_colours(tmp_path / "one", splits=("train",))), 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_dataset(str(tmp_path / "empty"), 16)
    (tmp_path / "plain").mkdir()
    for split in ("train", "test"):
        datasets.Dataset.from_dict({"x": [1]}).to_parquet(str(tmp_path / "plain" / f"{split}.parquet"))
    with pytest.raises(ValueError, match="has no column of type Image, it has x"):
        load_dataset(str(tmp_path / "plain"), 16)


def styles_config(folder, **changes):
    values = {"label_column": "what", "domain_column": "style", "image_size": 8}
    return config(dataset=str(folder), **values, **changes)


def test_columns_without_types_are_selected_by_name(tmp_path):
    words = tmp_path / "words.toml"
    words.write_text('[labels]\nn01 = "left"\n')
    data = config_dataset(styles_config(a_folder_of_styles(tmp_path), vocabulary=str(words)))
    assert data.class_names == ("left", "n02")
    assert data.domain_names == ("framed", "inverted", "plain")
    assert data.train.labels[:4].tolist() == [0, 1, 0, 1]
    assert data.train.domains[:4].tolist() == [2, 1, 0, 2]


def test_an_unreadable_image_is_skipped_and_named(tmp_path):
    data = config_dataset(styles_config(a_folder_of_styles(tmp_path, broken=True)))
    assert len(data.train) == len(data.train.domains) == 59
    assert [text.partition(":")[0] for text in data.skipped] == ["train 7 seven.png", "test 7 seven.png"]
    assert "cannot identify image file" in data.skipped[0]


def test_a_subset_of_classes_keeps_its_order(colours):
    data = config_dataset(config(dataset=colours, image_size=8, class_subset="blue, 0"))
    assert data.class_names == ("blue", "red")
    assert len(data.train) == 40
    assert data.train.images[0, :, 0, 0].tolist() == [200, 0, 0]
    assert data.train.labels[:2].tolist() == [1, 0]
    for subset, message in (
        ("blue", "needs at least 2 classes, each named once, got 1"),
        ("blue, 2", "needs at least 2 classes, each named once, got 1"),
        ("blue, green, 7", "class-subset contains '7', which is not a class"),
    ):
        with pytest.raises(ValueError, match=message):
            config_dataset(config(dataset=colours, image_size=8, class_subset=subset))


def test_a_dataset_saved_to_disk(colours, tmp_path):
    table = datasets.load_dataset(colours, cache_dir=str(tmp_path / "cache"))
    table.save_to_disk(str(tmp_path / "saved"))
    data = load_dataset(str(tmp_path / "saved"), 8)
    assert data.class_names == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_column": "kind"}, "column 'kind' of dataset .* does not contain images; set image-column"),
        ({"image_column": "x"}, "has no column 'x', it has .*; set image-column"),
        ({"label_column": "y"}, "has no column 'y', it has .*; set label-column"),
        ({"domain_column": "z"}, "has no column 'z', it has .*; set domain-column"),
        ({"vocabulary": "nowhere.toml"}, "vocabulary 'nowhere.toml' must be 'domainnet', or a TOML"),
    ],
)
def test_missing_columns_are_rejected(colours, changes, message):
    with pytest.raises(ValueError, match=message):
        config_dataset(config(dataset=colours, image_size=8, **changes))


def test_a_label_outside_the_names_is_rejected(tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["red", "green"])}
    )
    rows = {"image": [Image.new("RGB", (8, 8))] * 3, "label": [0, 1, -1]}
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(tmp_path / "set" / f"{split}.parquet"))
    with pytest.raises(ValueError, match=r"column 'label' of dataset '.*' contains -1, outside its 2 names"):
        load_dataset(str(tmp_path / "set"), 8)


CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.is_dir(), reason="CIFAR-10 is not installed")
def test_cifar10_is_loaded_like_any_folder(tmp_path):
    data = load_dataset(str(CIFAR10), 32)
    assert data.train.images.shape == (50_000, 3, 32, 32)
    assert data.test.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    assert data.class_names[3] == "cat"
    load_dataset.cache_clear()
