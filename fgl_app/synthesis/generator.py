"""The generator of a synthetic set: its settings, its loading, and the synthesizer built from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fgl_app.algorithms.embedding import encode_texts
from fgl_app.algorithms.synthesis import SynthesisSettings, Synthesizer
from fgl_app.models.pipelines import Placement, load_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from fgl_app.config import RunConfig


@dataclass(frozen=True)
class GeneratorSettings:
    """A generator and the settings of its images.

    Parameters
    ----------
    generator : str
        "embedded", a hub id or a folder.
    images_per_class : int
        Number of images of each class.
    synthesis : SynthesisSettings
        Steps, guidance, batch size, seed.
    negative_prompt : str
        Negative prompt of the guidance; ignored without guidance.
    placement : Placement
        Device, precision and memory options.
    lora : str, default ""
        LoRA weights; empty for none.
    scheduler : str, default "auto"
        One of :data:`fgl_app.models.pipelines.SCHEDULERS`, or "auto".
    """

    generator: str
    images_per_class: int
    synthesis: SynthesisSettings
    negative_prompt: str
    placement: Placement
    lora: str = ""
    scheduler: str = "auto"


def generator_settings(config: RunConfig) -> GeneratorSettings:
    """Return the generator settings of a run config."""
    return GeneratorSettings(
        config.generator,
        config.images_per_class,
        SynthesisSettings(
            config.num_inference_steps, config.guidance_scale, config.synthesis_batch_size, config.seed
        ),
        config.negative_prompt,
        Placement(
            config.device,
            config.generator_dtype,
            config.generator_offload,
            config.attention_slicing,
            config.compile_generator,
        ),
        config.generator_lora,
        config.generator_scheduler,
    )


def cpu_settings(settings: GeneratorSettings) -> GeneratorSettings:
    """Return the settings to load a generator on the CPU, for its texts and fingerprint only."""
    return replace(settings, placement=replace(settings.placement, device="cpu", offload="none"))


def load_generator(settings: GeneratorSettings) -> DiffusionPipeline:
    """Load the whole text-to-image pipeline, placed for synthesis."""
    return load_pipeline(settings.generator, settings.placement, settings.lora, settings.scheduler)


def build_synthesizer(settings: GeneratorSettings, pipeline: DiffusionPipeline) -> Synthesizer:
    """Return a synthesizer of a loaded generator; with guidance it encodes the negative prompt."""
    guided = settings.synthesis.guidance_scale > 1
    negative = encode_texts(pipeline, [settings.negative_prompt]) if guided else None
    return Synthesizer(pipeline, settings.synthesis, negative)
