"""The files of a federation: state, connection, keys, images of each site."""

import json
import tomllib

import datasets
import torch
from flwr.common.config import parse_config_args

from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import parse_config
from fgl_app.data.partitions import label_counts
from fgl_app.data.saving import encode_images
from fgl_app.data.sites import load_site_data
from fgl_app.federation.planning import plan_federation
from fgl_app.federation.preparation import prepare_federation
from fgl_app.federation.state import ProcessRecord, read_federation
from fgl_app.federation.supernodes import node_config
from tests.federation.conftest import IID


def test_the_file_holds_the_state(federation):
    changed = federation.with_site("site-1", node_id="17").with_process(
        ProcessRecord(name="site-1", pid=1, create_time=2.5)
    )
    changed = changed.with_process(ProcessRecord(name="site-1", pid=2, create_time=3.5)).save()
    assert read_federation(federation.folder) == changed
    content = json.loads((federation.folder / "federation.json").read_text())
    assert content["sites"][1]["node_id"] == "17"
    assert content["processes"] == [{"name": "site-1", "pid": 2, "create_time": 3.5}]
    ports = {site["port"] for site in content["sites"]} | {federation.port}
    assert len(ports) == 3


def test_the_home_has_the_connection_to_the_superlink(prepared):
    connection = tomllib.loads((prepared.home / "config.toml").read_text())["superlink"]
    authority = prepared.folder / "keys" / "ca.crt"
    assert connection == {
        "default": "fgl",
        "fgl": {"address": prepared.address, "root-certificates": str(authority)},
    }
    assert authority.is_absolute()


def test_an_insecure_federation_has_no_keys(tmp_path):
    federation = prepare_federation(plan_federation(tmp_path, 2, IID, insecure=True).save(), lambda _: None)
    connection = tomllib.loads((federation.home / "config.toml").read_text())["superlink"]["fgl"]
    assert connection == {"address": federation.address, "insecure": True}
    assert not federation.keys.exists()


def test_a_supernode_gets_its_number_and_its_folders(prepared):
    # Parsed as Flower parses it.
    values = parse_config_args([node_config(prepared, prepared.site("site-1"))])
    folder = prepared.folder / "site-1"
    assert values == {
        "partition-id": 1,
        "num-partitions": 2,
        "site-name": "site-1",
        "data-path": str(folder / "data"),
        "state-path": str(folder / "state"),
    }
    assert (folder / "state").is_dir()


def test_each_site_holds_its_part_of_the_training_set(prepared, tmp_path):
    counts = []
    for site in prepared.sites:
        files = str(prepared.folder / site.data / "*.parquet")
        data = datasets.load_dataset("parquet", data_files=files, cache_dir=tmp_path)["train"]
        assert data.features["label"].names[:2] == ["zero", "one"]
        assert data[0]["image"].size == (32, 32)
        counts.append([data["label"].count(label) for label in range(10)])
    assert counts == label_counts(IID, 2).tolist()


def test_the_images_are_in_the_columns_of_the_config(tmp_path):
    labels = torch.tensor([0, 1] * 20)
    images = torch.randint(
        0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    for split in ("train", "test"):
        content = encode_images(LabeledImages(images, labels), ["cat", "dog"], columns=("picture", "animal"))
        (tmp_path / f"{split}.parquet").write_bytes(content)
    values = {"dataset": str(tmp_path), "image-column": "picture", "label-column": "animal", "image-size": 8}
    config = parse_config({**values, "partitioning": "iid"})
    plan = plan_federation(tmp_path / "new", 2, config, insecure=True)
    federation = prepare_federation(plan, lambda _: None)
    config = parse_config(federation.run_config())
    folders = [str(federation.folder / site.data) for site in federation.sites]
    parts = [load_site_data(config, folder, ("cat", "dog"), 1).train for folder in folders]
    assert sorted(row.tobytes() for part in parts for row in part.images.numpy()) == sorted(
        row.tobytes() for row in images.numpy()
    )
    assert sum(part.labels.sum().item() for part in parts) == 20


def test_existing_files_are_kept(prepared):
    def content():
        return {path: path.read_bytes() for path in prepared.folder.rglob("*") if path.is_file()}

    before = content()
    lines = []
    assert prepare_federation(prepared, lines.append) == prepared
    assert content() == before
    assert lines == []


def test_a_site_with_new_keys_is_registered_again(federation):
    federation = federation.with_site("site-0", node_id="1").with_site("site-1", node_id="2").save()
    for name in ("site-1", "site-1.pub"):
        (federation.keys / name).unlink()
    federation = prepare_federation(federation, lambda _: None)
    assert [site.node_id for site in federation.sites] == ["1", ""]
    assert read_federation(federation.folder) == federation
