import pytest
import torch
from safetensors.torch import load_file

from fgl_app.models.classifiers import (
    build_classifier,
    check_classifier,
    load_classifier,
    save_classifier,
)
from fgl_app.models.devices import check_device, resolve_device
from fgl_app.models.fingerprints import pipeline_fingerprint
from fgl_app.models.pipelines import (
    SCHEDULERS,
    Placement,
    embedded_generator,
    generator_family,
    generator_source,
    load_pipeline,
)
from tests.tiny_pipelines import save_tiny_pipeline


@pytest.mark.parametrize("size", [8, 15, 28, 31])
def test_the_small_cnn_takes_any_size(size):
    model = build_classifier("cnn", num_classes=7, in_channels=1, image_size=size, seed=0)
    assert model(torch.zeros(1, 1, size, size)).shape == (1, 7)


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit-small", "convnext-tiny"])
@pytest.mark.parametrize("channels", [1, 3])
def test_classifiers_map_images_to_logits(name, channels):
    model = build_classifier(name, num_classes=7, in_channels=channels, image_size=32, seed=0)
    assert model(torch.zeros(2, channels, 32, 32)).shape == (2, 7)


def test_initial_weights_follow_the_seed_and_leave_the_global_state():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, second, other = (
        build_classifier("cnn", num_classes=3, in_channels=1, image_size=16, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["0.weight"], other["0.weight"])


def test_a_saved_cnn_is_its_state(tmp_path):
    model = build_classifier("cnn", num_classes=3, in_channels=1, image_size=16, seed=1)
    save_classifier(model, tmp_path, ["a", "b", "c"])
    loaded = load_file(tmp_path / "model.safetensors")
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["cnn", "resnet18", "vit-small"])
def test_a_saved_classifier_comes_back(tmp_path, name):
    model = build_classifier(name, num_classes=3, in_channels=1, image_size=24, seed=1).eval()
    save_classifier(model, tmp_path, ["a", "b", "c"])
    images = torch.rand(2, 1, 24, 24)
    assert torch.allclose(load_classifier(tmp_path)(images), model(images), atol=1e-6)


def test_a_pretrained_classifier_keeps_its_body_and_gets_a_head(tmp_path):
    """Saved with three classes for colour, taken up for five classes of grey images."""
    saved = build_classifier("resnet18", num_classes=3, in_channels=3, image_size=32, seed=1)
    saved.mean.fill_(0.3)
    save_classifier(saved, tmp_path, ["a", "b", "c"])
    model = build_classifier(str(tmp_path), num_classes=5, in_channels=1, image_size=32, seed=0).eval()
    body = {name: tensor for name, tensor in saved.state_dict().items() if "classifier" not in name}
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in body.items())
    grey = torch.rand(2, 1, 32, 32) * 2 - 1
    assert model(grey).shape == (2, 5)
    assert torch.equal(model(grey), model(grey.expand(-1, 3, -1, -1)))
    save_classifier(model, tmp_path / "again", list("vwxyz"))
    assert torch.allclose(load_classifier(tmp_path / "again")(grey), model(grey), atol=1e-6)
    # The pixels it expects came along: with others the logits differ.
    model.mean.fill_(0.5)
    assert not torch.allclose(load_classifier(tmp_path / "again")(grey), model(grey), atol=1e-6)


@pytest.mark.parametrize("name", ["resnet19", "./missing", ""])
def test_a_classifier_that_cannot_be_one_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="classifier"):
        check_classifier(name or str(tmp_path))


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="'no/where' is neither in the hub's cache nor to be reached"):
        load_pipeline("no/where", Placement(torch.device("cpu")))


def test_a_saved_resnet_is_loaded_by_transformers(tmp_path):
    from transformers import AutoModelForImageClassification

    model = build_classifier("resnet18", num_classes=3, in_channels=1, image_size=32, seed=1).eval()
    save_classifier(model, tmp_path, ["a", "b", "c"])
    loaded = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    images = torch.rand(2, 1, 32, 32)
    assert torch.allclose(loaded(images).logits, model(images), atol=1e-6)
    assert loaded.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_the_embedded_generator_is_a_whole_small_pipeline():
    folder = embedded_generator()
    assert sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) <= 6_000_000
    pipeline = load_pipeline("embedded", Placement(torch.device("cpu")))
    assert pipeline.vae_scale_factor == 4
    images = pipeline("a handwritten digit three", num_inference_steps=2, output_type="pt").images
    assert images.shape == (1, 1, 32, 32)
    card = (folder / "README.md").read_text()
    assert "license" in card.lower()
    assert "MNIST" in card


def test_a_generators_precision_is_a_choice(tiny_generator):
    cpu = torch.device("cpu")
    pipeline = load_pipeline(str(tiny_generator), Placement(cpu, "bfloat16", attention_slicing=True))
    assert {pipeline.unet.dtype, pipeline.vae.dtype, pipeline.text_encoder.dtype} == {torch.bfloat16}
    assert Placement(cpu).torch_dtype == torch.float32
    assert Placement(torch.device("cuda")).torch_dtype == torch.float16


@pytest.mark.parametrize(("name", "scheduler"), SCHEDULERS.items())
def test_the_scheduler_is_a_choice_and_all_make_images(name, scheduler, tiny_generator):
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


def test_a_generators_fingerprint_tells_what_makes_other_images(tiny_generator, tmp_path):
    place = Placement(torch.device("cpu"))
    pipeline = load_pipeline(str(tiny_generator), place)
    first = pipeline_fingerprint(pipeline)
    assert pipeline_fingerprint(load_pipeline(str(tiny_generator), place)) == first
    assert pipeline_fingerprint(load_pipeline(str(tiny_generator), place, scheduler="ddim")) != first
    # The same elsewhere, and saved by other means.
    pipeline.save_pretrained(tmp_path / "copy")
    assert pipeline_fingerprint(load_pipeline(str(tmp_path / "copy"), place, scheduler="dpm++")) == first
    # Another size of images, with the same weights.
    file = tmp_path / "copy" / "unet" / "config.json"
    file.write_text(file.read_text().replace('"sample_size": 8', '"sample_size": 16'))
    assert pipeline_fingerprint(load_pipeline(str(tmp_path / "copy"), place)) != first
    next(pipeline.vae.parameters()).data[0] += 1
    pipeline.save_pretrained(tmp_path / "other")
    assert pipeline_fingerprint(load_pipeline(str(tmp_path / "other"), place)) != first


def test_a_hub_id_can_name_a_revision(monkeypatch):
    asked = {}

    def load_config(**arguments):
        asked.update(arguments)
        return {"_class_name": "StableDiffusionPipeline"}

    monkeypatch.setattr("diffusers.DiffusionPipeline.load_config", load_config)
    assert generator_family("owner/name@fp16") == "StableDiffusionPipeline"
    assert asked == {"pretrained_model_name_or_path": "owner/name", "revision": "fp16"}


@pytest.mark.parametrize(
    ("generator", "sentence"),
    [
        ("no-such-name", "generator must be 'embedded', a folder or a hub id"),
        ("./missing/folder", "generator must be 'embedded', a folder or a hub id"),
    ],
)
def test_a_generator_that_cannot_be_one_is_refused(generator, sentence):
    with pytest.raises(ValueError, match=sentence):
        generator_source(generator)


def test_a_folder_without_a_pipeline_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"is no diffusers pipeline: it has no model_index.json"):
        generator_source(str(tmp_path))


def test_a_pipeline_of_another_family_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match="is a FluxPipeline; it must be one of StableDiffusionPipeline"):
        generator_source(str(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device")
def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="device 'cuda:0' is not available on this machine"):
        check_device("cuda:0")


def test_hub_ids_pass_through():
    assert generator_source("owner/name") == "owner/name"


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in {"cpu", "cuda", "mps"}
