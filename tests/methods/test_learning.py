"""The baselines learn the digits."""

import pytest

from tests.app_runs import run


@pytest.fixture(scope="module")
def few_digits():
    """Use all digits here."""


@pytest.mark.slow
@pytest.mark.parametrize(("inner", "rounds", "accuracy"), [("centralized", 2, 0.9), ("fedavg", 3, 0.85)])
def test_baselines_learn(tmp_path, inner, rounds, accuracy):
    options = {"method": "classifier", "partitioning": "iid", "local_epochs": 2, "batch_size": 32}
    summary = run(tmp_path, inner_strategy=inner, num_server_rounds=rounds, image_size=16, **options)
    assert summary["accuracy"] > accuracy
