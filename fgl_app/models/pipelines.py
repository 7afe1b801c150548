"""Loading of text-to-image pipelines and of their text encoders alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch

from fgl_app.models.devices import resolve_device
from fgl_app.models.fingerprints import record_fingerprints
from fgl_app.models.generators import import_diffusers, load_pipeline_config, pretrained_arguments
from fgl_app.models.lora import add_lora

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, SchedulerMixin

SCHEDULERS = {
    "dpm++": "DPMSolverMultistepScheduler",
    "ddim": "DDIMScheduler",
    "unipc": "UniPCMultistepScheduler",
    "euler": "EulerDiscreteScheduler",
    "lcm": "LCMScheduler",
}
MANY_STEP_SCHEDULERS = (
    *("PNDMScheduler", "DDIMScheduler", "DDPMScheduler", "LMSDiscreteScheduler", "EulerDiscreteScheduler"),
)
NON_TEXT_COMPONENTS = ("unet", "transformer", "vae", "safety_checker", "feature_extractor", "image_encoder")


@dataclass(frozen=True)
class Placement:
    """Device, precision and memory options of a pipeline's models.

    Parameters
    ----------
    device : str or torch.device
        Device of the computation; "auto" is resolved on the machine that loads the pipeline.
    dtype : {"auto", "float32", "float16", "bfloat16"}, default "auto"
        Precision; "auto" is float16 on CUDA, else float32.
    offload : {"none", "model", "sequential"}, default "none"
        Parts moved to CPU memory while they are not in use: whole models, or single layers (slow).
    attention_slicing : bool, default False
        Compute attention in slices: less memory, slower.
    compiled : bool, default False
        Compile the denoiser: minutes at the start, then faster.
    """

    device: str | torch.device
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    attention_slicing: bool = False
    compiled: bool = False

    @property
    def torch_device(self) -> torch.device:
        """The device on this machine."""
        return resolve_device(self.device)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The precision on this machine."""
        if self.dtype == "auto":
            # Half precision is fast on CUDA only; on a CPU it is slow and less exact.
            return torch.float16 if self.torch_device.type == "cuda" else torch.float32
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@lru_cache(maxsize=1)
def load_text_encoder(generator: str, placement: Placement, lora: str = "") -> DiffusionPipeline:
    """Load the part of a pipeline that encodes prompts: tokenizers and text encoders, without U-Net and VAE.

    The arguments are those of :func:`load_pipeline`. The LoRA weights are applied to the text encoders. The
    pipeline's ``encode_prompt`` works; it is cached for the next call.
    """
    config = load_pipeline_config(generator)
    pipeline = _from_pretrained(
        generator, placement, **{name: None for name in NON_TEXT_COMPONENTS if name in config}
    )
    record_fingerprints(pipeline, lora)
    if lora:
        add_lora(pipeline, lora)
    return pipeline.to(placement.torch_device)


def load_pipeline(
    generator: str, placement: Placement, lora: str = "", scheduler: str = "auto"
) -> DiffusionPipeline:
    """Load a whole text-to-image pipeline.

    The safety checker is disabled: its black images would become training data.

    Parameters
    ----------
    generator : str
        "embedded", a hub id or a folder.
    placement : Placement
        Device, precision and memory options.
    lora : str, default ""
        LoRA weights: a safetensors file, its folder or a hub id; empty for none.
    scheduler : str, default "auto"
        One of :data:`SCHEDULERS`. "auto" replaces the usual many-step schedulers by DPM-Solver++, which needs
        fewer steps, and keeps schedulers tied to a training method (flow matching, LCM, Turbo).

    Returns
    -------
    DiffusionPipeline
        Its call takes ``prompt_embeds``.

    Raises
    ------
    ValueError
        If the generator cannot be used, or not with this scheduler.
    """
    load_pipeline_config(generator)
    pipeline = _from_pretrained(generator, placement)
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    pipeline.scheduler = _scheduler(pipeline, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    record_fingerprints(pipeline, lora)
    if lora:
        add_lora(pipeline, lora)
    return _placed(pipeline, placement)


def _from_pretrained(generator: str, placement: Placement, **components: None) -> DiffusionPipeline:
    # Safetensors only: a pickled weight file can run code.
    return import_diffusers().DiffusionPipeline.from_pretrained(
        **pretrained_arguments(generator), dtype=placement.torch_dtype, use_safetensors=True, **components
    )


def _placed(pipeline: DiffusionPipeline, placement: Placement) -> DiffusionPipeline:
    if placement.attention_slicing:
        pipeline.enable_attention_slicing()
    denoiser = pipeline.components.get("unet") or pipeline.components["transformer"]
    if placement.torch_device.type == "cuda":
        for model in (denoiser, pipeline.vae):
            model.to(memory_format=torch.channels_last)
    if placement.compiled:
        denoiser.compile()
    if placement.offload == "model":
        pipeline.enable_model_cpu_offload(device=placement.torch_device)
    elif placement.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=placement.torch_device)
    else:
        pipeline.to(placement.torch_device)
    return pipeline


def _scheduler(pipeline: DiffusionPipeline, name: str) -> SchedulerMixin:
    own = type(pipeline.scheduler).__name__
    if name == "auto":
        if own not in MANY_STEP_SCHEDULERS:
            return pipeline.scheduler
        name = "dpm++"
    elif own.startswith("FlowMatch"):
        raise ValueError(
            f"generator-scheduler must be 'auto' for a generator trained by flow matching, got '{name}'"
        )
    return getattr(import_diffusers(), SCHEDULERS[name]).from_config(pipeline.scheduler.config)
