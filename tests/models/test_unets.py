"""Diffusion models and their pipelines."""

import pytest
import torch
from diffusers import DDPMPipeline, LDMPipeline

from fgl_app.algorithms.diffusion import DiffusionProcess
from fgl_app.algorithms.image_space import ImageSpace
from fgl_app.models.autoencoders import load_autoencoder
from fgl_app.models.image_pipeline import ClassConditionalPipeline, save_image_pipeline
from fgl_app.models.unets import build_unet, check_unet

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "channels", "side", "millions"), [("small", 4, 8, 0.65), ("ddpm", 3, 32, 35.7)]
)
def test_unets_have_the_expected_size(name, channels, side, millions):
    model = build_unet(name, channels=channels, side=side, num_classes=0, seed=0)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_weights_of_a_unet_depend_on_the_seed():
    first, same, other = (
        build_unet("small", channels=1, side=8, num_classes=2, seed=seed).conv_in.weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "side"), [("small", 7), ("small", 2), ("ddpm", 12), ("ddpm", 8)])
def test_a_size_that_the_unet_does_not_support_is_rejected(name, side):
    with pytest.raises(ValueError, match="change image-size or diffusion-space"):
        check_unet(name, side)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("space", ["pixel", "latent"])
def test_a_saved_model_is_a_pipeline(tmp_path, classes, space):
    vae = load_autoencoder("embedded", CPU) if space == "latent" else None
    unet = build_unet("small", channels=4 if vae else 1, side=8, num_classes=classes, seed=0).eval()
    sampler = DiffusionProcess("v_prediction", "linear").sampler("ddim")
    save_image_pipeline(unet, ImageSpace(vae), sampler, ["a", "b", "c"], tmp_path)
    side = 32 if vae else 8
    if classes:
        pipeline = ClassConditionalPipeline.from_pretrained(tmp_path)
        assert list(pipeline.config.class_names) == ["a", "b", "c"]
        images = pipeline([0, 2], num_inference_steps=2).images
        assert images == ClassConditionalPipeline(unet, sampler, vae)([0, 2], num_inference_steps=2).images
    else:
        kind = LDMPipeline if vae else DDPMPipeline
        images = kind.from_pretrained(tmp_path)(batch_size=2, num_inference_steps=2).images
    assert [image.size for image in images] == [(side, side)] * 2
