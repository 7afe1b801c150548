"""Federated diffusion, ServerApp and ClientApp together in one process."""

import json
import shutil
import tomllib
from pathlib import Path

import datasets
import numpy as np
import pytest
from flwr.app import Array
from safetensors.torch import load_file

from fgl_app.config import ConfigError
from fgl_app.models.classifiers import build_classifier, save_classifier
from fgl_app.models.image_pipeline import ClassConditionalPipeline
from tests.image_folders import a_folder_of_colours
from tests.integration.test_apps import run as run_app
from tests.integration.test_apps import same

ROOT = Path(__file__).parents[2]

TINY = {
    "method": "diffusion",
    "num_server_rounds": 2,
    "partitioning": "iid",
    "diffusion_space": "pixel",
    "image_size": 8,
    "batch_size": 10,
    "local_pretrain_epochs": 1,
    "local_pretrain_min_steps": 2,
    "auxiliary_size": 30,
    "server_epochs": 1,
    "sampling_steps": 2,
    "metric_samples": 40,
    "evaluate_every": 100,
}
FGL = {"method": "fgl", "images_per_class": 8}
"""Of FGL on the same pictures, whose colours the embedded generator cannot draw."""


@pytest.fixture(scope="module", autouse=True)
def colours(tmp_path_factory, tiny_generator):
    """Folder with 60 pictures of three colours, and a feature extractor for them."""
    folder = tmp_path_factory.mktemp("colours")
    a_folder_of_colours(folder)
    model = build_classifier("cnn", num_classes=3, in_channels=3, image_size=8, seed=0)
    save_classifier(model, folder / "extractor", ["red", "green", "blue"])
    before = datasets.config.HF_DATASETS_CACHE
    # Not in the folder itself: what is cached there would be taken for the set's.
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("cache")
    TINY.update(dataset=str(folder), feature_extractor=str(folder / "extractor"))
    FGL.update(dataset=str(folder), generator=str(tiny_generator))
    yield folder
    datasets.config.HF_DATASETS_CACHE = before


def run(tmp_path, name="run", **changes):
    state = {"client_state_dir": str(tmp_path / f"{name}-clients")}
    return run_app(tmp_path, name, **(TINY | state | changes))


def weights(tmp_path, name):
    return load_file(tmp_path / name / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors")


def equal(first, second):
    return all((first[name] == second[name]).all() for name in first | second)


def test_fedddpm_leaves_everything_promised(tmp_path):
    digits = {"dataset": "digits", "diffusion_space": "latent", "image_size": 32, "feature_extractor": "auto"}
    digits |= {"batch_size": 400, "num_server_rounds": 3, "evaluate_every": 1}
    summary = run(tmp_path, method="fedddpm", **digits)
    folder = tmp_path / "run"
    assert (summary["status"], summary["strategy"], summary["rounds"]) == ("completed", "fedddpm", 3)
    assert summary["auxiliary_images"] == {"00000": 10, "00001": 10, "00002": 10}
    assert summary["corrections"] == 2
    assert summary["frechet_distance"] > 0
    for name in ("precision", "recall", "label_agreement", "downstream_accuracy"):
        assert 0 <= summary[name] <= 1
    assert summary["feature_extractor"].startswith("digits_features-")
    assert summary["metric_samples"] == 40
    assert {"uploads", "auxiliary set", "corrections", "evaluation"} <= set(summary["seconds"])
    # Three clients: one upload each of about 0.65 million float32 weights, and two rounds of them.
    assert summary["uplink_bytes"]["setup"] == pytest.approx(3 * 654_052 * 4, rel=0.02)
    assert summary["uplink_bytes"]["train"] == pytest.approx(6 * 654_052 * 4, rel=0.02)
    pictures = ["frechet_distance", "samples_by_round", "auxiliary_images", "label_distribution"]
    for name in [*pictures, "samples/round-003"]:
        assert (folder / f"{name}.png").stat().st_size > 1000
    auxiliary = datasets.load_dataset(str(folder / "auxiliary"), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(auxiliary) == 30
    images = ClassConditionalPipeline.from_pretrained(folder / "diffusion")([3, 7], num_inference_steps=2)
    assert [image.size for image in images.images] == [(32, 32)] * 2
    report = (folder / "report.html").read_text()
    assert "Frechet distance" in report
    assert "Label agreement" in report


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "fedddpm", "server_epochs": 0},
        # No loss falls by less than minus 1000 %.
        {"method": "fedddpm-plus", "correction_threshold": -10.0, "correction_window": 1},
    ],
)
def test_without_a_correction_fedddpm_is_its_inner_strategy(tmp_path, changes):
    run(tmp_path, "bare")
    summary = run(tmp_path, "wrapped", num_server_rounds=3, **changes)
    assert equal(weights(tmp_path, "bare"), weights(tmp_path, "wrapped"))
    if changes["method"] == "fedddpm-plus":
        assert summary["corrections"] == 0
        assert [row["corrected"] for row in summary["decisions"]] == [False, False]


def test_fedddpm_plus_corrects_once_and_shows_when(tmp_path):
    # Every loss falls by less than 1000 %, and the second is the first that can be compared.
    options = {"method": "fedddpm-plus", "correction_threshold": 10.0, "correction_window": 1}
    summary = run(tmp_path, num_server_rounds=4, **options)
    assert [(row["round"], row["corrected"]) for row in summary["decisions"]] == [
        (2, False),
        (3, True),
        (4, False),
    ]
    assert summary["corrections"] == 1
    assert (tmp_path / "run" / "corrections.png").is_file()


def test_fedprox_with_mu_zero_is_fedavg(tmp_path):
    run(tmp_path, "average")
    run(tmp_path, "zero", inner_strategy="fedprox", proximal_mu=0.0)
    run(tmp_path, "strong", inner_strategy="fedprox", proximal_mu=10.0)
    assert equal(weights(tmp_path, "average"), weights(tmp_path, "zero"))
    assert not equal(weights(tmp_path, "average"), weights(tmp_path, "strong"))


def test_one_client_is_centralized_training(tmp_path):
    one = {"nodes": 1, "min_nodes": 1, "num_clients": 1}
    run(tmp_path, "federated", **one)
    run(tmp_path, "centralized", inner_strategy="centralized", **one)
    assert equal(weights(tmp_path, "federated"), weights(tmp_path, "centralized"))


def test_scaffolds_first_round_is_fedavgs_and_its_variates_rest_on_disk(tmp_path):
    run(tmp_path, "average", num_server_rounds=1)
    summary = run(tmp_path, "first", num_server_rounds=1, inner_strategy="scaffold")
    assert equal(weights(tmp_path, "average"), weights(tmp_path, "first"))
    # Every message carries the variate beside the model.
    weights_ = sum(tensor.numel() for tensor in weights(tmp_path, "first").values())
    assert summary["uplink_bytes"]["total"] == pytest.approx(2 * 3 * weights_ * 4, rel=0.02)
    files = sorted((tmp_path / "first-clients").rglob("*.safetensors"))
    assert [file.parents[1].name for file in files] == ["00000", "00001", "00002"]
    assert all(tensor.any() for tensor in load_file(files[0]).values())


def test_scaffold_works_for_classifiers_too(tmp_path):
    summary = run(tmp_path, method="classifier", inner_strategy="scaffold", learning_rate=0.05, momentum=0.0)
    assert summary["status"] == "completed"


def test_auxiliary_only_asks_nobody_after_the_set_up(tmp_path):
    summary = run(tmp_path, method="fedddpm", inner_strategy="auxiliary-only", num_server_rounds=3)
    assert set(summary["uplink_bytes"]) == {"total", "setup"}
    assert (summary["strategy"], summary["corrections"]) == ("auxiliary-only", 2)


def test_local_only_reports_every_client(tmp_path):
    summary = run(tmp_path, inner_strategy="local-only", num_server_rounds=1)
    assert len(summary["client_frechet_distance"]) == 3
    mean = sum(summary["client_frechet_distance"].values()) / 3
    assert summary["frechet_distance"] == pytest.approx(mean)


def test_an_unconditional_model_in_pixels_is_a_pipeline_of_diffusers(tmp_path):
    from diffusers import DDPMPipeline

    summary = run(tmp_path, method="fedddpm", class_conditional=False, sampler="ddpm")
    assert "label_agreement" not in summary
    auxiliary = datasets.load_dataset(str(tmp_path / "run" / "auxiliary"), cache_dir=str(tmp_path / "cache"))[
        "train"
    ]
    assert auxiliary.features["label"].names == ["image"]
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "run" / "diffusion")
    assert pipeline(num_inference_steps=2).images[0].size == (8, 8)


def test_the_same_seed_gives_the_same_summary(tmp_path):
    first = run(tmp_path, "a", method="fedddpm")
    assert same(run(tmp_path, "b", method="fedddpm")) == same(first)
    assert same(run(tmp_path, "c", method="fedddpm", seed=1)) != same(first)


def test_a_client_lost_in_the_set_up_is_said_in_the_summary(tmp_path):
    summary = run(tmp_path, method="fedddpm", broken=[7])
    assert sum(summary["auxiliary_images"].values()) == 30
    assert (summary["failures"][0]["node"], summary["failures"][0]["phase"]) == ("7", "set-up")


def scale(reply, factor):
    """Multiply a reply's last layer."""
    arrays = reply.content["arrays"]
    for name in ("conv_out.weight", "conv_out.bias"):
        arrays[name] = Array(arrays[name].numpy() * np.float32(factor))
    return reply


def test_a_model_that_draws_no_images_is_left_out_of_the_auxiliary_set(tmp_path):
    def spoil(message, reply):
        return scale(reply, 1e6) if message.metadata.message_type == "train.local_diffusion" else reply

    summary = run(tmp_path, method="fedddpm", spoil=spoil)
    assert summary["status"] == "completed"
    assert summary["auxiliary_images"] == {"00000": 10, "00002": 10}
    (incident,) = summary["rejected_uploads"]
    assert (incident["site"], incident["phase"]) == ("00001", "auxiliary set")
    assert list((tmp_path / "run").glob("uploads")) == []


@pytest.mark.parametrize(
    "changes", [{"method": "fedddpm"}, {}, {"inner_strategy": "scaffold"}, {"inner_strategy": "local-only"}]
)
def test_weights_with_nan_are_left_out_of_ordinary_rounds(tmp_path, changes):
    def spoil(message, reply):
        return scale(reply, np.nan) if message.metadata.message_type == "train" else reply

    summary = run(tmp_path, spoil=spoil, **changes)
    assert summary["status"] == "completed"
    assert {incident["site"] for incident in summary["rejected_uploads"]} == {"00001"}
    assert all("NaN or infinity" in incident["reason"] for incident in summary["rejected_uploads"])
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path, "run").values())


def test_a_scaffold_client_goes_on_from_its_variate_on_disk(tmp_path):
    def forget(message, reply):
        shutil.rmtree(tmp_path / "run-clients" / "00001", ignore_errors=True)
        return reply

    summary = run(tmp_path, inner_strategy="scaffold", spoil=forget)
    (incident,) = summary["failures"]
    assert incident["phase"] == "training round 2"
    assert "SCAFFOLD state of round 1 is not in" in incident["reason"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"generator_offload": "model"}, "generator-offload must be 'none' without a GPU, got 'model'"),
        ({"mixed_precision": "bf16"}, "mixed-precision 'bf16' needs a CUDA device, got cpu; use 'auto'"),
        ({"mixed_precision": "fp16", "inner_strategy": "scaffold"}, "must not be 'fp16' with inner-strategy"),
        ({"diffusion_space": "latent"}, "autoencoder of generator 'embedded' takes grey images"),
        ({"image_size": 9}, "unet 'small' needs sides that are multiples of 2, at least 4, got 9"),
        (
            {"image_size": 30, "diffusion_space": "latent", "dataset": "digits", "feature_extractor": "auto"},
            "image-size must be a multiple of 4 for the auto",
        ),
        ({"unet": "ddpm"}, "unet 'ddpm' needs sides that are multiples of 8, at least 16, got 8"),
        ({"feature_extractor": "nowhere"}, "feature-extractor must be 'auto', 'inception' or a classifier's"),
        ({"generator": "nowhere", "diffusion_space": "latent"}, "generator must be 'embedded'"),
    ],
)
def test_what_cannot_work_stops_before_any_message(tmp_path, changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run(tmp_path, **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["fedddpm-mnist", "fedddpm-cifar10", "fedddpm-cifar100"])
def test_the_presets_run_at_tiny_size(tmp_path, preset):
    """The preset's own method, process and space, with the sizes of a test."""
    values = tomllib.loads((ROOT / "configs" / f"{preset}.toml").read_text())
    small = {"image-size": 8, "unet": "small", "num-clients": 3}
    values = {key.replace("-", "_"): value for key, value in (values | small).items()}
    summary = run(tmp_path, **(values | {key: TINY[key] for key in TINY if key != "method"}))
    assert (summary["status"], summary["strategy"]) == ("completed", "fedddpm")
    assert (tmp_path / "run" / "diffusion" / "unet" / "config.json").is_file()


def test_rounds_are_written_down_as_they_happen(tmp_path):
    run(tmp_path, evaluate_every=1)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rounds = [event for event in map(json.loads, lines) if event["event"] == "round"]
    assert [event["round"] for event in rounds] == [1, 2]
    assert all(event["frechet_distance"] > 0 for event in rounds)
    assert "downstream_accuracy" in rounds[1]
    assert "downstream_accuracy" not in rounds[0]
