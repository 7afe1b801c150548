"""Clients that have data of their own: labels are reconciled by name, and nothing else changes."""

import pytest
import torch
from safetensors.torch import load_file

from fgl_app import client_app
from fgl_app.algorithms.types import LabeledImages
from fgl_app.client.site import read_site
from fgl_app.config import ConfigError, parse_config
from fgl_app.data.partitions import partition
from fgl_app.data.saving import encode_images, save_images
from fgl_app.data.sources import config_dataset
from tests.integration import test_fedddpm_apps as diffusion
from tests.integration.test_apps import run, same
from tests.integration.test_fedddpm_apps import colours  # noqa: F401 - a fixture

NAMES = ["red", "green", "blue"]
QUICK = {"image_size": 8, "batch_size": 10, "seed": 3, "local_epochs": 2}


def settings(method):
    rounds = {"method": method, "num_server_rounds": 2, "dataset": diffusion.TINY["dataset"]}
    if method == "fedddpm":
        return {**diffusion.TINY, **rounds, "seed": 3}
    return {**QUICK, **rounds, **(diffusion.FGL if method == "fgl" else {})}


def site_folders(tmp_path, config, orders):
    """Write each client's part of a config's data to a folder, with the classes in an order of its own."""
    data = config_dataset(config)
    for number, (part, order) in enumerate(zip(partition(config, len(orders)), orders, strict=True)):
        mine = data.train.select(torch.from_numpy(part))
        names = [NAMES[label] for label in order]
        numbers = torch.tensor([order.index(label) if label in order else -1 for label in range(len(NAMES))])
        mine = LabeledImages(mine.images, numbers[mine.labels])
        save_images(mine, names, tmp_path / f"site-{number}")
    return [
        {"data-path": str(tmp_path / f"site-{number}"), "state-path": str(tmp_path / "state")}
        for number in range(len(orders))
    ]


@pytest.mark.parametrize("method", ["fgl", "classifier", "fedddpm"])
def test_sites_end_where_simulated_clients_end(tmp_path, method):
    """With the same examples, and whatever order a site's classes are in."""
    options = settings(method) | {"partitioning": "iid"}
    simulated = run(tmp_path, "simulated", client_state_dir=str(tmp_path / "clients"), **options)
    config = parse_config({key.replace("_", "-"): value for key, value in options.items()})
    sites = site_folders(tmp_path, config, [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
    own = {"partitioning": "sites", "client_state_dir": ""}
    real = run(tmp_path, "real", sites=sites, **(options | own))
    ignored = {"downlink_bytes"}
    assert {k: v for k, v in same(real).items() if k not in ignored} == {
        k: v for k, v in same(simulated).items() if k not in ignored
    }
    first, second = (
        load_file(next((tmp_path / name).glob("*/**/*.safetensors"))) for name in ("simulated", "real")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


def a_site(tmp_path, name, labels, names):
    images = torch.randint(0, 255, (len(labels), 3, 8, 8), dtype=torch.uint8)
    save_images(LabeledImages(images, torch.tensor(labels)), names, tmp_path / name)
    return {"data-path": str(tmp_path / name), "site-name": name, "state-path": str(tmp_path / "state")}


def test_sites_may_lack_classes_and_one_with_an_unknown_label_is_left_out_by_name(tmp_path):
    sites = [
        a_site(tmp_path, "lacks-two", [0] * 12, ["blue"]),
        a_site(tmp_path, "unused-name", [0, 1] * 10, ["red", "green", "mauve"]),
        a_site(tmp_path, "odd", [0, 1] * 10, ["red", "mauve"]),
    ]
    summary = run(tmp_path, sites=sites, **settings("fgl"), partitioning="sites")
    assert summary["status"] == "completed"
    assert summary["num_prompts"] == 3
    reasons = {failure["reason"] for failure in summary["failures"]}
    assert len(reasons) == 1
    assert (
        "have the label 'mauve', which is not a class of the server; its classes are red, green, blue"
        in reasons.pop()
    )


def test_of_other_classes_than_the_subset_sites_leave_examples_out(tmp_path):
    sites = [a_site(tmp_path, f"s{i}", [0, 1, 2] * 5, NAMES) for i in range(3)]
    summary = run(
        tmp_path, sites=sites, **settings("fgl"), partitioning="sites", class_subset="red, blue", min_nodes=3
    )
    assert summary["num_prompts"] == 2
    assert summary["failures"] == []


def test_without_a_test_set_the_sites_evaluate(tmp_path):
    sites = [a_site(tmp_path, f"s{i}", [0, 1, 2] * (3 + i), NAMES) for i in range(3)]
    for number in range(2):
        pictures = torch.full((2 + number, 3, 8, 8), 99, dtype=torch.uint8)
        test = LabeledImages(pictures, torch.arange(2 + number))
        (tmp_path / f"s{number}" / "test.parquet").write_bytes(encode_images(test, NAMES))
    options = settings("fgl") | {"dataset": "none", "class_subset": "red, green, blue"}
    summary = run(tmp_path, sites=sites, **options, partitioning="sites", min_nodes=3)
    # All test pictures are the same: one class is right, so 1 of 5 examples or 2 of 5, never of 3 sites.
    assert any(summary["accuracy"] == pytest.approx(right / 5) for right in (0, 1, 2))
    assert summary["rounds"] == 2
    assert summary["uplink_bytes"]["evaluate"] > 0
    assert summary["failures"] == []


def test_without_a_data_set_on_the_server_every_label_must_be_known(tmp_path):
    words = tmp_path / "words.toml"
    words.write_text('[labels]\nr = "red"\n')
    test = LabeledImages(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(2))
    sites = [a_site(tmp_path, f"s{i}", [0, 1] * 6, ["r", "green"]) for i in range(2)]
    sites.append(a_site(tmp_path, "odd", [0, 1] * 6, ["r", "Green"]))
    (tmp_path / "s0" / "test.parquet").write_bytes(encode_images(test, ["r", "green"]))
    options = settings("fgl") | {"dataset": "none", "class_subset": "r, green", "vocabulary": str(words)}
    summary = run(tmp_path, sites=sites, **options, partitioning="sites")
    assert summary["num_prompts"] == 2
    assert "the label 'Green', which is not a class of the server; its classes are red, green" in str(
        summary["failures"]
    )


def test_when_no_site_has_a_test_split_the_run_says_so(tmp_path):
    sites = [a_site(tmp_path, f"s{i}", [0, 1, 2] * 4, NAMES) for i in range(3)]
    options = settings("classifier") | {"dataset": "none", "class_subset": "red, green, blue"}
    with pytest.raises(ValueError, match="no site has a test split; give the server a dataset"):
        run(tmp_path, sites=sites, **options, partitioning="sites")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dataset": "none"}, "dataset 'none' needs partitioning 'sites'"),
        ({"dataset": "none", "partitioning": "sites"}, "needs class-subset, the names of all classes"),
        ({"dataset": "none", "partitioning": "sites", "method": "fedddpm"}, "needs method 'fgl'"),
        (
            {"partitioning": "sites", "method": "classifier", "inner-strategy": "centralized"},
            "inner-strategy 'centralized' cannot have partitioning 'sites'",
        ),
    ],
)
def test_what_sites_cannot_do_is_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_config(changes)


@pytest.mark.parametrize(
    ("node_config", "sentence"),
    [
        ({}, "needs --node-config with data-path and site-name"),
        ({"data-path": "/data"}, "needs --node-config with site-name"),
        ({"data-path": "/data", "site-name": "../x"}, "site-name must have at most 64 letters"),
    ],
)
def test_a_node_config_without_sense_is_refused(node_config, sentence):
    with pytest.raises(ValueError, match=sentence):
        read_site(node_config, parse_config({"partitioning": "sites"}))


def test_the_server_does_not_choose_where_a_site_writes(tmp_path):
    config = parse_config({"partitioning": "sites", "client-state-dir": "/etc"})
    site = read_site({"data-path": "/data", "site-name": "a", "state-path": str(tmp_path)}, config)
    assert site.state == tmp_path / "a"
    assert "/etc" not in str(read_site({"data-path": "/data", "site-name": "a"}, config).state)
    # Nor with a data set that is split: a node config that has both serves both kinds of runs.
    split = parse_config({"client-state-dir": "/etc"})
    node_config = {"partition-id": 0, "num-partitions": 2, "state-path": str(tmp_path)}
    assert read_site(node_config, split).state == tmp_path / "00000"


def test_a_client_of_another_version_is_left_out_by_name(tmp_path, monkeypatch):
    versions = iter(["0.0.1+bad", *[client_app.code_version()] * 100])
    monkeypatch.setattr(client_app, "code_version", lambda: next(versions))
    summary = run(tmp_path, **settings("classifier"), partitioning="iid")
    assert len(summary["failures"]) == 1
    assert "this client runs fgl-app 0.0.1+bad and the server 0.1.0+" in summary["failures"][0]["reason"]
    assert "install the same version" in summary["failures"][0]["reason"]


def test_a_site_without_readable_images_is_said(tmp_path):
    good = [a_site(tmp_path, f"s{i}", [0, 1, 2] * 4, NAMES) for i in range(2)]
    broken = {"data-path": str(tmp_path / "nowhere"), "site-name": "empty"}
    summary = run(tmp_path, sites=[*good, broken], **settings("fgl"), partitioning="sites")
    assert "nowhere" in summary["failures"][0]["reason"]
