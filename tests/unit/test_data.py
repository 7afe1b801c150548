from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from fgl_app.algorithms.images import match_channels, resize_images
from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import parse_config
from fgl_app.data.partitions import MIN_PARTITION_SIZE, label_counts, load_client_data, partition
from fgl_app.data.saving import save_images
from fgl_app.data.sources import config_dataset, load_dataset


def config(**values):
    return parse_config({key.replace("_", "-"): value for key, value in values.items()})


def test_the_digits_are_4000_to_train_and_1000_to_test():
    data = load_dataset("digits", 32)
    assert data.train.images.shape == (4000, 1, 32, 32)
    assert data.test.images.shape == (1000, 1, 32, 32)
    assert torch.bincount(data.train.labels).tolist() == [400] * 10
    assert torch.bincount(data.test.labels).tolist() == [100] * 10
    assert data.class_names[7] == "seven"
    # Ink is bright on dark, and the padding is dark.
    assert data.train.images.max() == 255
    assert data.train.images[:, :, :2].max() == 0


def test_no_test_digit_is_a_training_digit():
    data = load_dataset("digits", 32)
    train = {image.numpy().tobytes() for image in data.train.images}
    assert not any(image.numpy().tobytes() in train for image in data.test.images)


def test_images_are_resized():
    data = load_dataset("digits", 16)
    assert data.test.images.shape == (1000, 1, 16, 16)
    whole = load_dataset("digits", 32).test
    assert abs(data.test.images.float().mean() - whole.images.float().mean()) < 1
    assert resize_images(whole, 32) is whole


def test_grey_and_colour_are_matched():
    grey = LabeledImages(torch.randint(0, 256, (3, 1, 4, 4), dtype=torch.uint8), torch.zeros(3).long())
    colour = match_channels(grey, 3)
    assert colour.images.shape == (3, 3, 4, 4)
    # Equal channels have themselves as luma.
    assert torch.equal(match_channels(colour, 1).images, grey.images)
    green = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    green[:, 1] = 200
    assert match_channels(LabeledImages(green, torch.zeros(1).long()), 1).images.item() == 117  # 0.587 * 200


def test_an_unknown_dataset_is_refused():
    with pytest.raises(
        ValueError, match="dataset must be 'digits', a folder or a hub id such as 'owner/name', got 'letters'"
    ):
        load_dataset("letters", 32)


@pytest.mark.parametrize("kind", ["iid", "dirichlet"])
def test_a_partition_is_disjoint_whole_and_the_same_again(kind):
    parts = partition(config(partitioning=kind, dirichlet_alpha=0.5), 5)
    joined = np.concatenate(parts)
    assert sorted(joined) == list(range(4000))
    assert min(len(part) for part in parts) >= MIN_PARTITION_SIZE
    partition.cache_clear()
    again = partition(config(partitioning=kind, dirichlet_alpha=0.5), 5)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    other = partition(config(partitioning=kind, dirichlet_alpha=0.5, seed=1), 5)
    assert not all(np.array_equal(a, b) for a, b in zip(parts, other, strict=True))


def test_skew_follows_the_config():
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
    ("values", "clients", "sentence"),
    [
        ({"partitioning": "iid"}, 401, "allow at most 400 clients of 10 examples, got 401 clients"),
        ({"dirichlet_alpha": 0.01}, 50, "dirichlet-alpha 0.01 with seed 0 leaves one of 50 clients"),
        (
            {"partitioning": "pathological", "classes_per_client": 11},
            3,
            "classes-per-client must be at most 10, the classes of 'digits', got 11",
        ),
    ],
)
def test_an_impossible_partition_is_refused(values, clients, sentence):
    with pytest.raises(ValueError, match=sentence):
        partition(config(**values), clients)


def test_a_client_sees_its_own_examples_only():
    data, source = load_client_data(config(), 2, 5)
    counts = label_counts(config(), 5)[2]
    assert torch.bincount(data.labels, minlength=10).tolist() == counts.tolist()
    assert source.class_names[0] == "zero"


@pytest.mark.parametrize("channels", [1, 3])
def test_saved_images_are_a_data_set(tmp_path, channels):
    images = torch.randint(0, 256, (6, channels, 8, 8), dtype=torch.uint8)
    save_images(LabeledImages(images, torch.tensor([0, 0, 1, 1, 2, 2])), ["a", "b", "c"], tmp_path / "set")
    loaded = datasets.load_dataset(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))["train"]
    assert loaded.features["label"].names == ["a", "b", "c"]
    assert loaded["label"] == [0, 0, 1, 1, 2, 2]
    pixels = np.asarray(loaded[3]["image"])
    assert np.array_equal(pixels, images[3].permute(1, 2, 0).squeeze(-1).numpy())


def a_folder_of_colours(folder, *, splits=("train", "test"), grey=False, size=20):
    """Write flat pictures of three colours, a class each."""
    folder.mkdir(exist_ok=True)
    colours = [(9, 9, 9), (99, 99, 99), (200, 200, 200)] if grey else [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    features = datasets.Features(
        {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["red", "green", "blue"])}
    )
    for split in splits:
        rows = {"kind": [i % 3 for i in range(60)]}
        rows["picture"] = [Image.new("RGB", (size, size), colours[kind]) for kind in rows["kind"]]
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / f"{split}.parquet"))
    return folder


def test_a_folder_is_a_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = load_dataset(str(a_folder_of_colours(tmp_path)), 16)
    assert data.train.images.shape == data.test.images.shape == (60, 3, 16, 16)
    assert data.class_names == ("red", "green", "blue")
    assert data.train.images[1, :, 5, 5].tolist() == [0, 200, 0]
    assert data.train.labels[:4].tolist() == [0, 1, 2, 0]


def test_grey_pictures_have_one_channel_and_validation_will_do(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = load_dataset(str(a_folder_of_colours(tmp_path, splits=("train", "validation"), grey=True)), 8)
    assert data.test.images.shape == (60, 1, 8, 8)
    assert data.test.images[2].unique().tolist() == [200]


def test_a_data_set_that_lacks_something_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
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


STYLES = ("plain", "inverted", "framed")


def a_folder_of_styles(folder, *, names=("n01", "n02"), broken=False):
    """Write pictures of two classes in three styles, as columns without types; one file may be broken."""
    rows = {"photo": [], "what": [], "style": []}
    for i in range(60):
        picture = np.zeros((8, 8, 3), dtype=np.uint8)
        picture[:, (i % 2) * 4 : (i % 2) * 4 + 4] = 200
        style = STYLES[i % 3]
        if style == "inverted":
            picture = 255 - picture
        if style == "framed":
            picture[0] = picture[-1] = (255, 0, 0)
        rows["photo"].append(Image.fromarray(picture))
        rows["what"].append(names[i % 2])
        rows["style"].append(style)
    features = datasets.Features(
        {"photo": datasets.Image(), "what": datasets.Value("string"), "style": datasets.Value("string")}
    )
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(rows, features=features)
        if broken:
            table = table.cast_column("photo", datasets.Image(decode=False)).to_list()
            table[7]["photo"] = {"bytes": b"no picture", "path": "seven.png"}
            table = datasets.Dataset.from_list(table).cast(features)
        table.to_parquet(str(folder / f"{split}.parquet"))
    return folder


def styles_config(folder, **changes):
    values = {"label_column": "what", "domain_column": "style", "image_size": 8}
    return config(dataset=str(folder), **values, **changes)


def test_columns_without_types_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    words = tmp_path / "words.toml"
    words.write_text('[labels]\nn01 = "left"\n')
    data = config_dataset(styles_config(a_folder_of_styles(tmp_path), vocabulary=str(words)))
    assert data.class_names == ("left", "n02")
    assert data.domain_names == ("framed", "inverted", "plain")
    assert data.train.labels[:4].tolist() == [0, 1, 0, 1]
    assert data.train.domains[:4].tolist() == [2, 1, 0, 2]


def test_a_client_gets_a_domain(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    settings = styles_config(a_folder_of_styles(tmp_path), partitioning="domain")
    held = [load_client_data(settings, i, 3)[0].domains.unique().tolist() for i in range(3)]
    assert sorted(held) == [[0], [1], [2]]
    assert all(len(domains) == 1 for domains in held)
    with pytest.raises(ValueError, match=r"needs a client for each of the 3 domains of '.*', got 2 clients"):
        partition(settings, 2)


def test_clients_of_growing_size():
    sizes = [len(part) for part in partition(config(partitioning="size"), 4)]
    assert sizes == [400, 800, 1200, 1600]


def test_an_unreadable_image_is_skipped_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = config_dataset(styles_config(a_folder_of_styles(tmp_path, broken=True)))
    assert len(data.train) == len(data.train.domains) == 59
    assert [text.partition(":")[0] for text in data.skipped] == ["train 7 seven.png", "test 7 seven.png"]
    assert "cannot site_identity image file" in data.skipped[0]


def test_a_subset_of_classes_in_its_own_order(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = str(a_folder_of_colours(tmp_path / "set"))
    data = config_dataset(config(dataset=folder, image_size=8, class_subset="blue, 0"))
    assert data.class_names == ("blue", "red")
    assert len(data.train) == 40
    assert data.train.images[0, :, 0, 0].tolist() == [200, 0, 0]
    assert data.train.labels[:2].tolist() == [1, 0]
    for subset, sentence in (
        ("blue", "needs at least 2 classes, each named once, got 1"),
        ("blue, 2", "needs at least 2 classes, each named once, got 1"),
        ("blue, green, 7", "class-subset names '7', which is no class"),
    ):
        with pytest.raises(ValueError, match=sentence):
            config_dataset(config(dataset=folder, image_size=8, class_subset=subset))


def test_a_data_set_saved_to_disk(tmp_path):
    table = datasets.load_dataset(
        str(a_folder_of_colours(tmp_path / "parquet")), cache_dir=str(tmp_path / "cache")
    )
    table.save_to_disk(str(tmp_path / "saved"))
    data = load_dataset(str(tmp_path / "saved"), 8)
    assert data.class_names == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"image_column": "kind"}, "column 'kind' of dataset .* holds no images; set image-column"),
        ({"image_column": "x"}, "has no column 'x', it has .*; set image-column"),
        ({"label_column": "y"}, "has no column 'y', it has .*; set label-column"),
        ({"domain_column": "z"}, "has no column 'z', it has .*; set domain-column"),
        ({"vocabulary": "nowhere.toml"}, "vocabulary 'nowhere.toml' must be 'domainnet', or a TOML"),
    ],
)
def test_columns_that_are_not_there_are_refused(tmp_path, monkeypatch, changes, sentence):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    with pytest.raises(ValueError, match=sentence):
        config_dataset(config(dataset=str(a_folder_of_colours(tmp_path)), image_size=8, **changes))


def test_a_label_outside_the_names_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["red", "green"])}
    )
    rows = {"image": [Image.new("RGB", (8, 8))] * 3, "label": [0, 1, -1]}
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        table = datasets.Dataset.from_dict(rows, features=features)
        table.to_parquet(str(tmp_path / "set" / f"{split}.parquet"))
    with pytest.raises(ValueError, match=r"column 'label' of dataset '.*' holds -1, outside its 2 names"):
        load_dataset(str(tmp_path / "set"), 8)


CIFAR10 = Path(__file__).parents[3] / "shared" / "data" / "cifar10"


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR10.is_dir(), reason="CIFAR-10 is not beside the project")
def test_cifar10_is_loaded_like_any_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = load_dataset(str(CIFAR10), 32)
    assert data.train.images.shape == (50_000, 3, 32, 32)
    assert data.test.images.shape == (10_000, 3, 32, 32)
    assert torch.bincount(data.train.labels).tolist() == [5000] * 10
    assert data.class_names[3] == "cat"
    load_dataset.cache_clear()
