"""LoRA weights change the embeddings of clients and the images of the server."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.synthesis import PlannedImage, Shard, SynthesisSettings, Synthesizer
from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.models.fingerprints import encoder_fingerprint
from fgl_app.models.lora import check_lora
from fgl_app.models.pipelines import Placement, load_pipeline, load_text_encoder
from tests.app_runs import run
from tests.tiny_pipelines import save_tiny_pipeline

ON_CPU = Placement(torch.device("cpu"))
TEXT = "a handwritten digit three"
FAMILIES = {
    "stable-diffusion": ("unet", ("text_encoder",)),
    "stable-diffusion-xl": ("unet", ("text_encoder", "text_encoder_2")),
    "stable-diffusion-3": ("transformer", ("text_encoder", "text_encoder_2")),
}


def save_lora(generator: Path, folder: Path, denoiser: str, encoders: tuple[str, ...], alpha: int = 4) -> str:
    """Save random LoRA weights for some parts of a pipeline, in the format of diffusers."""
    pipeline = load_pipeline(str(generator), ON_CPU)
    layers = {}
    for name in (denoiser, *encoders):
        targets = ["to_q", "to_v"] if name == denoiser else ["q_proj", "v_proj"]
        config = LoraConfig(r=2, lora_alpha=alpha, target_modules=targets, init_lora_weights=False)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            getattr(pipeline, name).add_adapter(config)
        layers[f"{name}_lora_layers"] = get_peft_model_state_dict(getattr(pipeline, name))
        layers[f"{name}_lora_adapter_metadata"] = config.to_dict()
    pipeline.save_lora_weights(folder, **layers)
    return str(folder)


@pytest.fixture(scope="module", params=FAMILIES)
def adapted(request, tmp_path_factory):
    """Folder of a tiny pipeline, LoRA weights for all of its parts, and those for the denoiser only."""
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny_pipeline(request.param, folder / "pipeline")
    denoiser, encoders = FAMILIES[request.param]
    whole = save_lora(folder / "pipeline", folder / "whole", denoiser, encoders)
    only = save_lora(folder / "pipeline", folder / "denoiser", denoiser, ())
    return str(folder / "pipeline"), whole, only


def images(generator: str, client_lora: str, server_lora: str) -> torch.Tensor:
    encoder = load_text_encoder(generator, ON_CPU, client_lora)
    embeddings = TextEmbeddings(encode_texts(encoder, [TEXT]), torch.tensor([0]), torch.tensor([1]))
    settings = SynthesisSettings(num_inference_steps=2, guidance_scale=1.0, batch_size=1, seed=5)
    pipeline = load_pipeline(generator, ON_CPU, server_lora)
    return Synthesizer(pipeline, settings)(Shard(0, (PlannedImage(0, 0),), embeddings)).images


def test_client_and_server_together_give_the_image_of_the_text(adapted):
    generator, lora, denoiser_only = adapted
    theirs = load_pipeline(generator, ON_CPU, lora)(
        TEXT,
        num_inference_steps=2,
        guidance_scale=1.0,
        generator=[seeded_generator("image", 5, 0, 0)],
        output_type="pt",
    ).images
    ours = images(generator, lora, lora)
    assert torch.equal(ours, (theirs * 255).round().to(torch.uint8))
    # Both sides contribute.
    assert not torch.equal(ours, images(generator, "", lora))
    assert not torch.equal(ours, images(generator, lora, ""))
    assert torch.equal(images(generator, denoiser_only, lora), images(generator, "", lora))


def test_the_fingerprint_depends_on_the_encoders_lora_in_any_precision(adapted):
    generator, lora, denoiser_only = adapted
    without, with_lora, other = (
        encoder_fingerprint(load_text_encoder(generator, ON_CPU, each)) for each in ("", lora, denoiser_only)
    )
    assert without == other != with_lora
    assert encoder_fingerprint(load_pipeline(generator, ON_CPU, lora)) == with_lora
    half = load_pipeline(generator, Placement(torch.device("cpu"), "float16"), lora)
    assert encoder_fingerprint(half) == with_lora


def test_the_fingerprint_depends_on_the_scale(tiny_generator, tmp_path):
    parts = FAMILIES["stable-diffusion"]
    weak, strong = (
        save_lora(tiny_generator, tmp_path / str(alpha), *parts, alpha=alpha) for alpha in (2, 64)
    )
    encoders = [load_text_encoder(str(tiny_generator), ON_CPU, lora) for lora in (weak, strong)]
    assert not torch.equal(*(encode_texts(encoder, [TEXT])["prompt_embeds"] for encoder in encoders))
    assert len({encoder_fingerprint(encoder) for encoder in encoders}) == 2


def test_fgl_runs_with_lora(tiny_generator, tmp_path):
    lora = save_lora(tiny_generator, tmp_path / "lora", *FAMILIES["stable-diffusion"])
    values = {"generator": str(tiny_generator), "image_size": 16, "images_per_class": 1}
    with_lora = run(tmp_path, "with", **values, generator_lora=lora)
    assert with_lora["status"] == "completed"
    assert not with_lora["failures"]
    # A client without the LoRA of the server has another encoder.
    summary = run(tmp_path, "without", nodes=3, **values, generator_lora=lora, second={"generator-lora": ""})
    (incident,) = summary["failures"]
    assert "is not the server's" in incident["reason"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must be a safetensors file, its folder or a hub id"),
        ({"encoder.weight": torch.zeros(1)}, "has no LoRA weights of a StableDiffusionPipeline"),
        (b"no weights", "cannot be read or downloaded"),
    ],
)
def test_invalid_lora_weights_are_rejected(content, message, tmp_path):
    file = tmp_path / "weights.safetensors"
    if isinstance(content, dict):
        save_file(content, file)
    elif content:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        check_lora(str(file), "StableDiffusionPipeline")


def test_a_folder_without_weights_and_a_family_without_lora_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="must contain one safetensors file, it has 0"):
        check_lora(str(tmp_path), "StableDiffusionPipeline")
    with pytest.raises(ValueError, match="a PixArtAlphaPipeline takes no LoRA weights"):
        check_lora("owner/name", "PixArtAlphaPipeline")
