import pytest
import torch

from fgl_app.models.fingerprints import pipeline_fingerprint
from fgl_app.models.generators import embedded_generator
from fgl_app.models.pipelines import SCHEDULERS, Placement, load_pipeline
from tests.tiny_pipelines import save_tiny_pipeline


def test_an_unreachable_hub_is_reported(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="'no/where' is neither in the hub's cache nor can it be downloaded"):
        load_pipeline("no/where", Placement(torch.device("cpu")))


def test_the_embedded_generator_is_a_complete_small_pipeline():
    folder = embedded_generator()
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 6_000_000
    pipeline = load_pipeline("embedded", Placement(torch.device("cpu")))
    assert pipeline.vae_scale_factor == 4
    images = pipeline("a handwritten digit three", num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 1, 32, 32)
    card = (folder / "README.md").read_text()
    assert "license" in card.lower()
    assert "MNIST" in card


def test_the_precision_is_configurable(tiny_generator):
    cpu = torch.device("cpu")
    pipeline = load_pipeline(str(tiny_generator), Placement(cpu, "bfloat16", attention_slicing=True))
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.bfloat16}
    assert Placement(cpu).torch_dtype == torch.float32
    assert Placement(torch.device("cuda")).torch_dtype == torch.float16


@pytest.mark.parametrize(("name", "scheduler"), SCHEDULERS.items())
def test_every_scheduler_makes_images(name, scheduler, tiny_generator):
    pipeline = load_pipeline(str(tiny_generator), Placement(torch.device("cpu")), scheduler=name)
    assert type(pipeline.scheduler).__name__ == scheduler
    images = pipeline("three", num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 3, 16, 16)
    assert images.isfinite().all()
    assert type(load_pipeline(str(tiny_generator), Placement(torch.device("cpu"))).scheduler).__name__ == (
        "DPMSolverMultistepScheduler"
    )


def test_flow_matching_keeps_its_scheduler(tmp_path):
    save_tiny_pipeline("stable-diffusion-3", tmp_path)
    with pytest.raises(ValueError, match=r"generator-scheduler must be 'auto' .*, got 'ddim'"):
        load_pipeline(str(tmp_path), Placement(torch.device("cpu")), scheduler="ddim")


def test_the_fingerprint_changes_with_all_that_determines_the_images(tiny_generator, tmp_path):
    place = Placement(torch.device("cpu"))
    pipeline = load_pipeline(str(tiny_generator), place)
    first = pipeline_fingerprint(pipeline)
    assert pipeline_fingerprint(load_pipeline(str(tiny_generator), place)) == first
    assert pipeline_fingerprint(load_pipeline(str(tiny_generator), place, scheduler="ddim")) != first
    # The same content in another folder, with the scheduler saved differently.
    pipeline.save_pretrained(tmp_path / "copy")
    assert pipeline_fingerprint(load_pipeline(str(tmp_path / "copy"), place, scheduler="dpm++")) == first
    # Another image size, with the same weights.
    file = tmp_path / "copy" / "unet" / "config.json"
    file.write_text(file.read_text().replace('"sample_size": 8', '"sample_size": 16'))
    assert pipeline_fingerprint(load_pipeline(str(tmp_path / "copy"), place)) != first
    next(pipeline.vae.parameters()).data[0] += 1
    pipeline.save_pretrained(tmp_path / "other")
    assert pipeline_fingerprint(load_pipeline(str(tmp_path / "other"), place)) != first
