"""Sites with their own data: labels are matched by name, and the results are those of simulated clients."""

import pytest
import torch

from fgl_app import client_app
from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import parse_config
from fgl_app.data.partitions import partition
from fgl_app.data.saving import encode_images, save_images
from fgl_app.data.sources import config_dataset
from tests.app_runs import equal_weights, read_summary, run, same

NAMES = ["red", "green", "blue"]
OWN_DATA = {"partitioning": "sites"}


def site_folders(tmp_path, config, orders):
    """Write each client's part of a dataset to a folder, with the classes in the given order."""
    data = config_dataset(config)
    for number, (part, order) in enumerate(zip(partition(config, len(orders)), orders, strict=True)):
        own = data.train.select(torch.from_numpy(part))
        numbers = torch.tensor([order.index(label) for label in range(len(NAMES))])
        names = [NAMES[label] for label in order]
        save_images(LabeledImages(own.images, numbers[own.labels]), names, tmp_path / f"site-{number}")
    return [
        {"data-path": str(tmp_path / f"site-{number}"), "state-path": str(tmp_path / "state")}
        for number in range(len(orders))
    ]


@pytest.mark.parametrize("method", ["fgl", "classifier", "fedddpm"])
def test_sites_get_the_results_of_simulated_clients(tmp_path, completed, colours, method):
    """With the same examples, and the classes of each site in another order."""
    options = getattr(colours, method)
    simulated = completed(**options)
    config = parse_config({key.replace("_", "-"): value for key, value in options.items()})
    sites = site_folders(tmp_path, config, [[2, 1, 0], [1, 2, 0]])
    real = run(tmp_path, sites=sites, **options | OWN_DATA)
    ignored = {"downlink_bytes"}
    assert {k: v for k, v in same(real).items() if k not in ignored} == {
        k: v for k, v in same(read_summary(simulated)).items() if k not in ignored
    }
    assert equal_weights(tmp_path / "run", simulated)


def a_site(tmp_path, name, labels, names=NAMES):
    images = torch.randint(0, 255, (len(labels), 3, 8, 8), dtype=torch.uint8)
    save_images(LabeledImages(images, torch.tensor(labels)), names, tmp_path / name)
    return {"data-path": str(tmp_path / name), "site-name": name, "state-path": str(tmp_path / "state")}


def add_test_split(tmp_path, name, count, names=NAMES):
    images = torch.full((count, 3, 8, 8), 99, dtype=torch.uint8)
    test = LabeledImages(images, torch.arange(count))
    (tmp_path / name / "test.parquet").write_bytes(encode_images(test, names))


def test_sites_may_lack_classes_and_bad_sites_are_left_out(tmp_path, colours):
    sites = [
        a_site(tmp_path, "lacks-two", [0] * 12, ["blue"]),
        a_site(tmp_path, "unused-name", [0, 1] * 10, ["red", "green", "mauve"]),
        a_site(tmp_path, "odd", [0, 1] * 10, ["red", "mauve"]),
        {"data-path": str(tmp_path / "nowhere"), "site-name": "empty"},
    ]
    summary = run(tmp_path, nodes=4, sites=sites, **colours.fgl | OWN_DATA | {"num_server_rounds": 2})
    assert summary["status"] == "completed"
    assert summary["num_prompts"] == 3
    reasons = {(failure["node"], failure["reason"]) for failure in summary["failures"]}
    (unreadable, reason), (unknown, second_reason) = sorted(reasons)
    assert (unreadable, unknown) == ("97", "98")
    assert "nowhere" in reason
    label = "have the label 'mauve', which is not a class of the server; its classes are red, green, blue"
    assert label in second_reason


def test_sites_leave_out_examples_of_other_classes(tmp_path, colours):
    sites = [a_site(tmp_path, f"s{i}", [0, 1, 2] * 5) for i in range(2)]
    options = colours.fgl | OWN_DATA | {"class_subset": "red, blue", "num_server_rounds": 2}
    summary = run(tmp_path, sites=sites, **options)
    assert summary["num_prompts"] == 2
    assert summary["failures"] == []


def test_without_a_test_set_the_sites_evaluate(tmp_path, colours):
    sites = [a_site(tmp_path, f"s{i}", [0, 1, 2] * (3 + i)) for i in range(3)]
    for number in range(2):
        add_test_split(tmp_path, f"s{number}", 2 + number)
    changes = {"dataset": "none", "class_subset": "red, green, blue", "min_nodes": 3, "num_server_rounds": 2}
    summary = run(tmp_path, nodes=3, sites=sites, **colours.fgl | OWN_DATA | changes)
    # All test images are equal: one class is right, so 1 or 2 of 5 examples, not of 3 sites.
    assert any(summary["accuracy"] == pytest.approx(right / 5) for right in (0, 1, 2))
    assert summary["rounds"] == 2
    assert summary["uplink_bytes"]["evaluate"] > 0
    assert summary["failures"] == []


def test_without_a_dataset_on_the_server_every_label_must_be_known(tmp_path, colours):
    words = tmp_path / "words.toml"
    words.write_text('[labels]\nr = "red"\n')
    sites = [a_site(tmp_path, f"s{i}", [0, 1] * 6, ["r", "green"]) for i in range(2)]
    sites.append(a_site(tmp_path, "odd", [0, 1] * 6, ["r", "Green"]))
    add_test_split(tmp_path, "s0", 2, ["r", "green"])
    changes = {
        "dataset": "none",
        "class_subset": "r, green",
        "vocabulary": str(words),
        "num_server_rounds": 2,
    }
    summary = run(tmp_path, nodes=3, sites=sites, **colours.fgl | OWN_DATA | changes)
    assert summary["num_prompts"] == 2
    assert "the label 'Green', which is not a class of the server; its classes are red, green" in str(
        summary["failures"]
    )


def test_a_run_without_any_test_split_fails(tmp_path, colours):
    sites = [a_site(tmp_path, f"s{i}", [0, 1, 2] * 4) for i in range(2)]
    changes = {"dataset": "none", "class_subset": "red, green, blue"}
    with pytest.raises(ValueError, match="no site has a test split; give the server a dataset"):
        run(tmp_path, sites=sites, **colours.classifier | OWN_DATA | changes)


def test_a_client_with_another_version_is_left_out(tmp_path, colours, monkeypatch):
    versions = iter(["0.0.1+bad", *[client_app.code_version()] * 100])
    monkeypatch.setattr(client_app, "code_version", lambda: next(versions))
    summary = run(tmp_path, nodes=3, **colours.classifier)
    (failure,) = summary["failures"]
    assert "this client runs fgl-app 0.0.1+bad and the server 0.1.0+" in failure["reason"]
    assert "install the same version" in failure["reason"]
