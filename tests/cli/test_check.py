"""`fgl check` and the checks before a run."""

import weakref

import pytest

from fgl_app.config import ConfigError, config_keys, parse_config
from fgl_app.data.partitions import load_client_data
from fgl_app.data.sources import config_dataset
from fgl_app.preflight import check, check_inputs, check_synthesis
from tests.in_process import fgl


def test_check_prints_what_it_found(tmp_path):
    done = fgl("check", "prompts=instance", "device=cpu", cwd=tmp_path)
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    found = "4,000 training and 1,000 test images, 10 classes; grey, 32 x 32; 5 clients with"
    for row in ("device ok", f"dataset ok {found}", "captioner ok strokes", "memory ok", "disk ok"):
        assert row in text
    assert "failed" not in text
    assert list(tmp_path.iterdir()) == []


def test_check_continues_after_a_failure(tmp_path):
    values = ("dataset=nowhere", "classifier=nothing", f"generator={tmp_path}")
    done = fgl("check", "--preset", "cifar10", *values, cwd=tmp_path)
    assert done.exit_code == 2
    text = " ".join(done.stdout.split())
    for row in (
        "classifier failed classifier must be one of",
        "dataset failed dataset must be",
        "generator failed",
        "disk ok",
    ):
        assert row in text


def test_synthesis_needs_no_dataset():
    check_synthesis(parse_config(config_keys() | {"dataset": "owner/out-of-reach"}))
    with pytest.raises(ConfigError, match="owner/out-of-reach"):
        check_inputs(parse_config(config_keys() | {"dataset": "./nowhere/owner/out-of-reach"}))


def test_the_launcher_releases_the_dataset_after_its_checks(tmp_path):
    values = {"device": "cpu", "num-clients": 5, "output-dir": str(tmp_path), "run-name": "it"}
    config = parse_config(values)
    images = weakref.ref(config_dataset(config).train.images)
    load_client_data(config, 0, config.num_clients)
    check_inputs(config)
    # The ServerApp uses the dataset after its checks.
    assert images() is not None
    check(config)
    assert images() is None
