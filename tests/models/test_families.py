"""Every family of text-to-image pipelines runs FGL, and embeddings give exactly the images of their texts."""

import inspect
import json

import pytest
import torch

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.synthesis import PlannedImage, Shard, SynthesisSettings, Synthesizer
from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.models.fingerprints import encoder_fingerprint
from fgl_app.models.pipelines import Placement, load_pipeline, load_text_encoder
from tests.app_runs import run
from tests.tiny_captioners import blip, save_captioner
from tests.tiny_pipelines import BUILDERS, save_tiny_pipeline

CPU = torch.device("cpu")
ON_CPU = Placement(CPU)
TEXT, NEGATIVE = "a handwritten digit three", "low quality"


@pytest.fixture(scope="module", params=BUILDERS)
def generator(request, tmp_path_factory):
    """Folder of a tiny pipeline."""
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_pipeline(request.param, folder)
    return folder


def test_a_client_with_another_encoder_uploads_nothing(tiny_generator, tmp_path):
    pipeline = load_pipeline(str(tiny_generator), ON_CPU)
    next(pipeline.text_encoder.parameters()).data[0] += 1
    pipeline.save_pretrained(tmp_path / "other")
    summary = run(
        tmp_path,
        nodes=3,
        generator=str(tiny_generator),
        image_size=16,
        images_per_class=1,
        second={"generator": str(tmp_path / "other")},
    )
    (incident,) = summary["failures"]
    assert incident["node"] == "99"
    assert "is not the server's" in incident["reason"]
    assert summary["status"] == "completed"


def test_a_fingerprint_does_not_depend_on_the_precision(tiny_generator):
    pipeline = load_pipeline(str(tiny_generator), ON_CPU)
    single = encoder_fingerprint(pipeline)
    assert encoder_fingerprint(load_text_encoder(str(tiny_generator), ON_CPU)) == single
    half = load_pipeline(str(tiny_generator), Placement(CPU, "float16"))
    assert half.text_encoder.dtype == torch.float16
    assert encoder_fingerprint(half) == single


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_a_clients_embedding_gives_the_image_of_its_text(generator, guidance):
    encoder = load_text_encoder(str(generator), ON_CPU)
    assert encoder.components.get("unet") is None
    assert encoder.components.get("transformer") is None
    assert encoder.vae is None
    pipeline = load_pipeline(str(generator), ON_CPU)
    embeddings = TextEmbeddings(encode_texts(encoder, [TEXT]), torch.tensor([0]), torch.tensor([1]))
    negative = encode_texts(encoder, [NEGATIVE]) if guidance > 1 else None
    settings = SynthesisSettings(num_inference_steps=3, guidance_scale=guidance, batch_size=1, seed=5)
    ours = Synthesizer(pipeline, settings, negative)(Shard(0, (PlannedImage(0, 0),), embeddings)).images

    options = {"use_resolution_binning": False, "clean_caption": False, "negative_prompt": NEGATIVE}
    takes = inspect.signature(pipeline.__call__).parameters
    theirs = pipeline(
        TEXT,
        num_inference_steps=3,
        guidance_scale=guidance,
        generator=[seeded_generator("image", 5, 0, 0)],
        output_type="pt",
        **{name: value for name, value in options.items() if name in takes},
    ).images
    assert torch.equal(ours, (theirs * 255).round().to(torch.uint8))
    assert ours.shape == (1, 3, 16, 16)
    assert ours.float().std() > 1


def test_a_family_runs_fgl(generator, tmp_path):
    summary = run(tmp_path, generator=str(generator), image_size=16, guidance_scale=2.0, images_per_class=2)
    assert summary["status"] == "completed"
    assert summary["num_synthetic_images"] == 20
    assert not summary["rejected_uploads"] + summary["failures"]


def test_captions_are_cached_and_reach_the_prompts(tiny_generator, tmp_path):
    captioner = save_captioner(blip, tmp_path / "blip")
    options = {
        "generator": str(tiny_generator),
        "prompts": "instance",
        "captioner": captioner,
        "captions_per_class": 2,
        "image_size": 16,
        "images_per_class": 2,
        "client_state_dir": str(tmp_path / "clients"),
    }
    first = run(tmp_path, "first", **options)
    files = sorted((tmp_path / "clients").glob("*/captions-*.json"))
    assert len(files) == 2
    cached = json.loads(files[0].read_text())
    assert 2 <= len(cached) <= 20
    # The cache is used: other captions in it make other prompts.
    texts = ["a red thing", "a green thing"]
    files[0].write_text(json.dumps({key: texts[i % 2] for i, key in enumerate(cached)}))
    second = run(tmp_path, "second", **options)
    assert first["status"] == second["status"] == "completed"
    assert second["num_prompts"] != first["num_prompts"]
