"""How images are made: the generator, where it runs, and what decides over its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.algorithms.synthesis import SynthesisSettings, Synthesizer
from fgl_app.models.devices import resolve_device
from fgl_app.models.pipelines import Placement, load_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from fgl_app.config import RunConfig


@dataclass(frozen=True)
class GeneratorSettings:
    """A generator and its settings.

    Parameters
    ----------
    generator : str
        "embedded", a hub id or a folder.
    images_per_class : int
        Images of each class.
    settings : SynthesisSettings
        Steps, guidance, batch size, seed.
    negative_prompt : str
        What guidance leads away from; without guidance it means nothing.
    device : str, default "auto"
        Torch device.
    dtype : {"auto", "float32", "float16", "bfloat16"}, default "auto"
        Precision; "auto" is float16 on CUDA, else float32.
    offload : {"none", "model", "sequential"}, default "none"
        What waits in the computer's memory while it is not needed.
    attention_slicing : bool, default False
        Attend in slices: less memory, slower.
    compiled : bool, default False
        Compile the denoiser.
    lora : str, default ""
        LoRA weights; empty for none.
    scheduler : str, default "auto"
        One of :data:`fgl_app.models.pipelines.SCHEDULERS`, or "auto".
    """

    generator: str
    images_per_class: int
    settings: SynthesisSettings
    negative_prompt: str
    device: str = "auto"
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    attention_slicing: bool = False
    compiled: bool = False
    lora: str = ""
    scheduler: str = "auto"


def generator_settings(config: RunConfig) -> GeneratorSettings:
    """Return the recipe that a run config describes."""
    return GeneratorSettings(
        config.generator,
        config.images_per_class,
        SynthesisSettings(
            config.num_inference_steps, config.guidance_scale, config.synthesis_batch_size, config.seed
        ),
        config.negative_prompt,
        device=config.device,
        dtype=config.generator_dtype,
        offload=config.generator_offload,
        attention_slicing=config.attention_slicing,
        compiled=config.compile_generator,
        lora=config.generator_lora,
        scheduler=config.generator_scheduler,
    )


def on_cpu(recipe: GeneratorSettings) -> GeneratorSettings:
    """Return a recipe whose generator is loaded for its texts and its fingerprint, beside workers' own."""
    return replace(recipe, device="cpu", offload="none")


def load_generator(recipe: GeneratorSettings) -> DiffusionPipeline:
    """Load a recipe's whole text-to-image pipeline, placed for synthesis."""
    placement = Placement(
        resolve_device(recipe.device),
        recipe.dtype,
        recipe.offload,
        recipe.attention_slicing,
        recipe.compiled,
    )
    return load_pipeline(recipe.generator, placement, recipe.lora, recipe.scheduler)


def make_synthesizer(recipe: GeneratorSettings, pipeline: DiffusionPipeline) -> Synthesizer:
    """Return what makes a recipe's images with its loaded generator."""
    guided = recipe.settings.guidance_scale > 1
    negative = encode_texts(pipeline, [recipe.negative_prompt]) if guided else None
    return Synthesizer(pipeline, recipe.settings, negative)
