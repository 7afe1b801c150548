"""A randomly initialised text-to-image pipeline of each family: real components, RGB, 16 x 16 pixels."""

from __future__ import annotations

import string
from typing import Any

import diffusers
import torch
import transformers

from fgl_app.models.generators import embedded_generator


def clip_tokenizer() -> transformers.CLIPTokenizer:
    return transformers.CLIPTokenizer.from_pretrained(embedded_generator() / "tokenizer")


def clip(kind: str = "CLIPTextModel") -> Any:
    tokenizer = clip_tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=8,
        max_position_embeddings=tokenizer.model_max_length,
        eos_token_id=tokenizer.eos_token_id,
    )
    return getattr(transformers, kind)(config)


def t5(width: int) -> tuple[Any, Any]:
    letters = ["▁", *string.ascii_lowercase, *string.digits, ",", "."]
    vocabulary = [(piece, 0.0) for piece in ("<pad>", "</s>", "<unk>")] + [(piece, -1.0) for piece in letters]
    tokenizer = transformers.T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=32)
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=4, d_ff=16, num_layers=1, num_heads=2
    )
    return tokenizer, transformers.T5EncoderModel(config)


def autoencoder(**changes: Any) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        **changes,
    )


def unet(**changes: Any) -> diffusers.UNet2DConditionModel:
    common = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    blocks = {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
    }
    return diffusers.UNet2DConditionModel(**{"cross_attention_dim": 8, **common, **blocks, **changes})


def stable_diffusion() -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet(),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def latent_consistency() -> diffusers.DiffusionPipeline:
    return diffusers.LatentConsistencyModelPipeline(
        vae=autoencoder(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet(time_cond_proj_dim=8),
        scheduler=diffusers.LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(scheduler: Any = None) -> diffusers.DiffusionPipeline:
    return diffusers.StableDiffusionXLPipeline(
        vae=autoencoder(),
        text_encoder=clip(),
        text_encoder_2=clip("CLIPTextModelWithProjection"),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            cross_attention_dim=16,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            # The pooled embedding, and six numbers of the sizes.
            projection_class_embeddings_input_dim=8 + 6 * 4,
        ),
        scheduler=scheduler or diffusers.EulerDiscreteScheduler(steps_offset=1),
    )


def stable_diffusion_xl_turbo() -> diffusers.DiffusionPipeline:
    return stable_diffusion_xl(diffusers.EulerAncestralDiscreteScheduler(timestep_spacing="trailing"))


def stable_diffusion_3() -> diffusers.DiffusionPipeline:
    # As wide as both CLIP encoders together.
    tokenizer, encoder = t5(width=16)
    return diffusers.StableDiffusion3Pipeline(
        vae=autoencoder(shift_factor=0.06),
        text_encoder=clip("CLIPTextModelWithProjection"),
        text_encoder_2=clip("CLIPTextModelWithProjection"),
        text_encoder_3=encoder,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        tokenizer_3=tokenizer,
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=4,
            num_attention_heads=2,
            caption_projection_dim=8,
            joint_attention_dim=16,
            pooled_projection_dim=16,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
    )


def pixart(kind: str = "PixArtAlphaPipeline") -> diffusers.DiffusionPipeline:
    tokenizer, encoder = t5(width=8)
    return getattr(diffusers, kind)(
        vae=autoencoder(),
        text_encoder=encoder,
        tokenizer=tokenizer,
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=8,
            patch_size=2,
            in_channels=4,
            out_channels=8,
            num_layers=1,
            attention_head_dim=4,
            num_attention_heads=2,
            caption_channels=8,
            cross_attention_dim=8,
            use_additional_conditions=False,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


BUILDERS = {
    "stable-diffusion": stable_diffusion,
    "latent-consistency": latent_consistency,
    "stable-diffusion-xl": stable_diffusion_xl,
    "stable-diffusion-xl-turbo": stable_diffusion_xl_turbo,
    "stable-diffusion-3": stable_diffusion_3,
    "pixart-alpha": pixart,
    "pixart-sigma": lambda: pixart("PixArtSigmaPipeline"),
}


def save_tiny_pipeline(family: str, folder: Any) -> None:
    """Make the pipeline of a family and save it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BUILDERS[family]().save_pretrained(folder)
