"""Inner strategies alone and baselines, for a classifier of digits."""

import json
from importlib.util import find_spec

import pytest

from tests.app_runs import run
from tests.results.test_trackers import read_scalars

TRACKERS = {"trackers": "tensorboard"} if find_spec("tensorboard") else {}
STRATEGIES = {
    "fedavg": TRACKERS,
    "fedprox": {"proximal_mu": 1.0},
    "fedadam": {},
    "fedyogi": {},
}


@pytest.fixture(scope="module")
def two_rounds(completed):
    """Return folder and summary of two rounds of an inner strategy."""

    def folder_and_summary(inner, **changes):
        options = STRATEGIES[inner] | changes
        folder = completed(method="classifier", num_server_rounds=2, inner_strategy=inner, **options)
        return folder, json.loads((folder / "summary.json").read_text())

    return folder_and_summary


@pytest.mark.parametrize("inner", STRATEGIES)
def test_inner_strategies_run_alone(two_rounds, inner):
    folder, summary = two_rounds(inner)
    assert summary["strategy"] == inner
    assert summary["rounds"] == 2
    # About 0.16 million float32 weights, two clients, two rounds, each way.
    assert summary["uplink_bytes"]["train"] > 2 * 2 * 150_000 * 4
    # FedAvg's traffic in the report is FedAvg's real traffic, except for config and metrics.
    calculated = 2 * 2 * summary["model_bytes"]
    for way in ("uplink", "downlink"):
        assert calculated <= summary[f"{way}_bytes"]["train"] < 1.002 * calculated
    assert (folder / "accuracy.png").is_file()
    assert (folder / "label_distribution.png").is_file()


def test_trackers_write_into_the_run(two_rounds):
    pytest.importorskip("tensorboard")
    folder, summary = two_rounds("fedavg")
    scalars = read_scalars(folder / "tensorboard")
    assert scalars["accuracy"][2] == summary["accuracy"]
    assert scalars["uplink bytes/train"][2] == summary["uplink_bytes"]["train"]
    assert set(scalars["seconds/clients' rounds"]) == {1, 2}


def test_fedprox_with_mu_zero_is_fedavg(two_rounds):
    average = two_rounds("fedavg")[1]["loss"]
    assert two_rounds("fedprox", proximal_mu=0.0)[1]["loss"] == average
    assert two_rounds("fedprox")[1]["loss"] != average


def test_local_only_reports_every_client(tmp_path):
    summary = run(tmp_path, method="classifier", inner_strategy="local-only", num_server_rounds=2)
    assert len(summary["client_accuracy"]) == 2
    assert summary["accuracy"] == pytest.approx(sum(summary["client_accuracy"].values()) / 2)
