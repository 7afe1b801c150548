"""FedDDPM and FedDDPM+ from the set-up to the report."""

import tomllib
from pathlib import Path

import datasets
import numpy as np
import pytest
from flwr.app import Array

from fgl_app.models.image_pipeline import ClassConditionalPipeline
from tests.app_runs import DIFFUSION, as_overrides, equal_weights, read_summary, run, same, weights
from tests.in_process import fgl

ROOT = Path(__file__).parents[2]
ON_DIGITS = {
    **DIFFUSION,
    "method": "fedddpm",
    "num_server_rounds": 3,
    "diffusion_space": "latent",
    "image_size": 32,
    "batch_size": 100,
    "evaluate_every": 1,
}


def load_set(folder, tmp_path):
    return datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"]


def scale(reply, factor):
    """Multiply the last layer of a reply."""
    arrays = reply.content["arrays"]
    for name in ("conv_out.weight", "conv_out.bias"):
        arrays[name] = Array(arrays[name].numpy() * np.float32(factor))
    return reply


@pytest.mark.slow
def test_fedddpm_writes_all_results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = fgl("run", "--clients", "2", "run-name=run", *as_overrides(ON_DIGITS))
    assert done.exit_code == 0, done.output
    assert "Frechet distance" in done.output
    folder = tmp_path / "outputs" / "run"
    summary = read_summary(folder)
    assert (summary["status"], summary["strategy"], summary["rounds"]) == ("completed", "fedddpm", 3)
    assert summary["auxiliary_images"] == {"00000": 15, "00001": 15}
    assert summary["corrections"] == 2
    assert summary["frechet_distance"] > 0
    for name in ("precision", "recall", "label_agreement", "downstream_accuracy"):
        assert 0 <= summary[name] <= 1
    assert summary["feature_extractor"].startswith("digits_features-")
    assert summary["metric_samples"] == 20
    assert {"uploads", "auxiliary set", "corrections", "evaluation"} <= set(summary["seconds"])
    # Two clients: one upload each of about 0.65 million float32 weights, and two rounds of them.
    assert summary["uplink_bytes"]["setup"] == pytest.approx(2 * 654_052 * 4, rel=0.02)
    assert summary["uplink_bytes"]["train"] == pytest.approx(4 * 654_052 * 4, rel=0.02)
    pictures = ["frechet_distance", "samples_by_round", "auxiliary_images", "label_distribution"]
    for name in [*pictures, "samples/round-003"]:
        assert (folder / f"{name}.png").stat().st_size > 1000
    assert len(load_set(folder / "auxiliary", tmp_path)) == 30
    report = (folder / "report.html").read_text()
    assert "Frechet distance" in report
    assert "Label agreement" in report
    images = ClassConditionalPipeline.from_pretrained(folder / "diffusion")([3, 7], num_inference_steps=2)
    assert [image.size for image in images.images] == [(32, 32)] * 2


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "fedddpm", "server_epochs": 0},
        # No loss falls by less than minus 1000 %.
        {"method": "fedddpm-plus", "correction_threshold": -10.0, "correction_window": 1},
    ],
)
def test_without_a_correction_fedddpm_is_its_inner_strategy(tmp_path, completed, colours, changes):
    summary = run(tmp_path, **{**colours.diffusion, "num_server_rounds": 3, **changes})
    assert equal_weights(completed(**colours.diffusion), tmp_path / "run")
    if changes["method"] == "fedddpm-plus":
        assert summary["corrections"] == 0
        assert [row["corrected"] for row in summary["decisions"]] == [False, False]


def test_fedddpm_plus_corrects_once_and_plots_when(tmp_path, colours):
    # Every loss falls by less than 1000 %, and the second is the first that can be compared.
    options = {"method": "fedddpm-plus", "correction_threshold": 10.0, "correction_window": 1}
    summary = run(tmp_path, **{**colours.diffusion, "num_server_rounds": 4, **options})
    assert [(row["round"], row["corrected"]) for row in summary["decisions"]] == [
        (2, False),
        (3, True),
        (4, False),
    ]
    assert summary["corrections"] == 1
    assert (tmp_path / "run" / "corrections.png").is_file()


def test_auxiliary_only_sends_no_request_after_the_set_up(tmp_path, colours):
    summary = run(tmp_path, **colours.fedddpm | {"inner_strategy": "auxiliary-only", "num_server_rounds": 3})
    assert set(summary["uplink_bytes"]) == {"total", "setup"}
    assert (summary["strategy"], summary["corrections"]) == ("auxiliary-only", 2)


def test_an_unconditional_model_in_pixels_is_a_pipeline_of_diffusers(tmp_path, colours):
    from diffusers import DDPMPipeline

    summary = run(tmp_path, **colours.fedddpm, class_conditional=False, sampler="ddpm")
    assert "label_agreement" not in summary
    auxiliary = load_set(tmp_path / "run" / "auxiliary", tmp_path)
    assert auxiliary.features["label"].names == ["image"]
    pipeline = DDPMPipeline.from_pretrained(tmp_path / "run" / "diffusion")
    assert pipeline(num_inference_steps=2).images[0].size == (8, 8)


def test_only_another_seed_changes_the_summary(tmp_path, completed, colours):
    first = read_summary(completed(**colours.fedddpm))
    assert same(run(tmp_path, "b", **colours.fedddpm)) == same(first)
    assert same(run(tmp_path, "c", **colours.fedddpm, seed=1)) != same(first)


def test_bad_clients_are_left_out_of_set_up_auxiliary_set_and_rounds(tmp_path, colours):
    def spoil(message, reply):
        return scale(reply, 1e6 if message.metadata.message_type == "train.local_diffusion" else np.nan)

    summary = run(tmp_path, nodes=3, **colours.fedddpm, spoil=spoil, broken=[7])
    assert summary["status"] == "completed"
    # The lost client has no share, and the model that draws no images gives its own to the others.
    assert (summary["failures"][0]["node"], summary["failures"][0]["phase"]) == ("7", "set-up")
    assert summary["auxiliary_images"] == {"00000": 15, "00002": 15}
    drawing, training = summary["rejected_uploads"]
    assert (drawing["site"], drawing["phase"]) == ("00001", "auxiliary set")
    assert training["site"] == "00001"
    assert "NaN or infinity" in training["reason"]
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path / "run").values())
    assert list((tmp_path / "run").glob("uploads")) == []


def preset_values(name):
    values = tomllib.loads((ROOT / "configs" / f"{name}.toml").read_text())
    return {key.replace("-", "_"): value for key, value in values.items()}


def test_presets_run_at_tiny_size(tmp_path, colours):
    """With the preset's method, process and space; the presets for other datasets differ in sizes only."""
    tiny = {**colours.fedddpm, "unet": "small", "num_clients": 2}
    preset = preset_values("fedddpm-cifar10")
    summary = run(tmp_path, **preset | tiny)
    assert (summary["status"], summary["strategy"]) == ("completed", "fedddpm")
    assert (tmp_path / "run" / "diffusion" / "unet" / "config.json").is_file()
    assert preset_values("fedddpm-cifar100") == preset | {"dataset": "uoft-cs/cifar100"}
    sizes = {"dataset", "node_timeout", "ema_decay"} | tiny.keys() - {"method", "diffusion_space", "unet"}
    others = [
        {key: values[key] for key in values.keys() - sizes}
        for values in (preset, preset_values("fedddpm-mnist"))
    ]
    assert others[0] == others[1]
