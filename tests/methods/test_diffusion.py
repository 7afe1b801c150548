"""Inner strategies alone and baselines, for a diffusion model in pixels."""

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file

from fgl_app.config import ConfigError
from tests.app_runs import equal_weights, run, weights
from tests.methods.test_fedddpm import scale


def test_each_round_is_logged_and_evaluation_does_not_change_the_weights(tmp_path, completed, colours):
    run(tmp_path, **colours.diffusion | {"evaluate_every": 1})
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rounds = [event for event in map(json.loads, lines) if event["event"] == "round"]
    assert [event["round"] for event in rounds] == [1, 2]
    assert all(event["frechet_distance"] > 0 for event in rounds)
    assert "downstream_accuracy" in rounds[1]
    assert "downstream_accuracy" not in rounds[0]
    assert equal_weights(completed(**colours.diffusion), tmp_path / "run")


def test_fedprox_with_mu_zero_is_fedavg(tmp_path, completed, colours):
    average = completed(**colours.diffusion)
    run(tmp_path, "zero", **colours.diffusion, inner_strategy="fedprox", proximal_mu=0.0)
    run(tmp_path, "strong", **colours.diffusion, inner_strategy="fedprox", proximal_mu=10.0)
    assert equal_weights(average, tmp_path / "zero")
    assert not equal_weights(average, tmp_path / "strong")


def test_one_client_is_centralized_training(tmp_path, colours):
    one = {**colours.diffusion, "nodes": 1, "min_nodes": 1, "num_clients": 1}
    run(tmp_path, "federated", **one)
    run(tmp_path, "centralized", inner_strategy="centralized", **one)
    assert equal_weights(tmp_path / "federated", tmp_path / "centralized")


def test_the_first_round_of_scaffold_is_fedavg_and_variates_are_on_disk(tmp_path, colours):
    one_round = colours.diffusion | {"num_server_rounds": 1}
    run(tmp_path, "average", **one_round)
    summary = run(tmp_path, "first", **one_round, inner_strategy="scaffold")
    assert equal_weights(tmp_path / "average", tmp_path / "first")
    # Every message carries the variate and the model.
    size = sum(tensor.numel() for tensor in weights(tmp_path / "first").values())
    assert summary["uplink_bytes"]["total"] == pytest.approx(2 * 2 * size * 4, rel=0.02)
    files = sorted((tmp_path / "first-clients").rglob("*.safetensors"))
    assert [file.parents[1].name for file in files] == ["00000", "00001"]
    assert all(tensor.any() for tensor in load_file(files[0]).values())


def test_a_scaffold_client_without_its_variate_fails(tmp_path, colours):
    def forget(message, reply):
        shutil.rmtree(tmp_path / "run-clients" / "00001", ignore_errors=True)
        return reply

    summary = run(tmp_path, nodes=3, **colours.diffusion, inner_strategy="scaffold", spoil=forget)
    (failure,) = summary["failures"]
    assert failure["phase"] == "training round 2"
    assert "SCAFFOLD state of round 1 is not in" in failure["reason"]


@pytest.mark.parametrize("inner", ["fedavg", "scaffold", "local-only"])
def test_weights_with_nan_are_left_out(tmp_path, colours, inner):
    summary = run(
        tmp_path,
        **colours.diffusion | {"num_server_rounds": 1},
        inner_strategy=inner,
        nodes=3,
        spoil=lambda message, reply: scale(reply, np.nan),
    )
    assert summary["status"] == "completed"
    assert [failure["site"] for failure in summary["rejected_uploads"]] == ["00001"]
    assert "NaN or infinity" in summary["rejected_uploads"][0]["reason"]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    if inner == "local-only":
        distances = summary["client_frechet_distance"]
        assert sorted(distances) == ["00000", "00002"]
        assert summary["frechet_distance"] == pytest.approx(sum(distances.values()) / 2)


DIGITS = {"dataset": "digits", "diffusion_space": "latent", "feature_extractor": "auto"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"generator_offload": "model"}, "generator-offload must be 'none' without a GPU, got 'model'"),
        ({"mixed_precision": "bf16"}, "mixed-precision 'bf16' needs a CUDA device, got cpu; use 'auto'"),
        ({"mixed_precision": "fp16", "inner_strategy": "scaffold"}, "must not be 'fp16' with inner-strategy"),
        ({"diffusion_space": "latent"}, "autoencoder of generator 'embedded' takes grey images"),
        ({"image_size": 9}, "unet 'small' needs sides that are multiples of 2, at least 4, got 9"),
        ({**DIGITS, "image_size": 30}, "image-size must be a multiple of 4 for the auto"),
        ({"unet": "ddpm"}, "unet 'ddpm' needs sides that are multiples of 8, at least 16, got 8"),
        ({"feature_extractor": "nowhere"}, "feature-extractor must be 'auto', 'inception' or a classifier's"),
        ({"generator": "nowhere", "diffusion_space": "latent"}, "generator must be 'embedded'"),
    ],
)
def test_an_impossible_config_stops_before_any_message(tmp_path, colours, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run(tmp_path, **colours.diffusion | changes)
    assert not (tmp_path / "run").exists()
