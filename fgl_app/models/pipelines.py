"""Text-to-image pipelines and their text encoders, by hub id, folder or the embedded one."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from fgl_app.algorithms.embedding import PROMPT_OUTPUTS
from fgl_app.models.assets import DIGIT_NAMES, asset
from fgl_app.models.fingerprints import record_fingerprints
from fgl_app.models.hub_ids import is_hub_id, unknown_source_error
from fgl_app.models.lora import add_lora

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DiffusionPipeline, SchedulerMixin

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


EMBEDDED = "embedded"


def check_classes(generator: str, class_names: Sequence[str]) -> None:
    """Raise ValueError when a generator cannot draw the classes; that is known of the embedded one alone."""
    others = [name for name in class_names if name not in DIGIT_NAMES]
    if generator == EMBEDDED and others:
        raise ValueError(
            f"generator 'embedded' draws handwritten digits by their names, '{DIGIT_NAMES[0]}' to "
            f"'{DIGIT_NAMES[-1]}', and no '{others[0]}'; give another generator"
        )


def embedded_generator() -> Path:
    """Return the folder of the embedded text-to-image model."""
    return asset("digits", "model_index.json")


def generator_source(generator: str) -> str:
    """Return what diffusers loads for a ``generator`` config value: a folder or a hub id.

    Raises
    ------
    ValueError
        When the value names a folder that holds no supported pipeline, or is neither a folder nor a hub id.
    """
    if generator == EMBEDDED:
        return str(embedded_generator())
    folder = Path(generator).expanduser()
    if folder.is_dir():
        if not (folder / "model_index.json").is_file():
            raise ValueError(
                f"generator folder {folder} is no diffusers pipeline: it has no model_index.json"
            )
        _check_family(generator, json.loads((folder / "model_index.json").read_text(encoding="utf-8")))
        return str(folder)
    if not is_hub_id(generator):
        raise unknown_source_error("generator", f"'{EMBEDDED}'", generator)
    return generator


@dataclass(frozen=True)
class Placement:
    """Where and how a pipeline's models are held.

    Parameters
    ----------
    device : torch.device
        Where they compute.
    dtype : {"auto", "float32", "float16", "bfloat16"}, default "auto"
        Their precision; "auto" is float16 on CUDA, else float32.
    offload : {"none", "model", "sequential"}, default "none"
        What waits in the computer's memory while it is not needed: whole models, or single layers (slow).
    attention_slicing : bool, default False
        Attend in slices: less memory, slower.
    compiled : bool, default False
        Compile the denoiser: minutes at the start, faster after them.
    """

    device: torch.device
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    offload: Literal["none", "model", "sequential"] = "none"
    attention_slicing: bool = False
    compiled: bool = False

    @property
    def torch_dtype(self) -> torch.dtype:
        """The precision as torch has it."""
        if self.dtype == "auto":
            # Half precision is fast on CUDA only; on a CPU it is slow and less exact.
            return torch.float16 if self.device.type == "cuda" else torch.float32
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


@lru_cache(maxsize=1)
def load_text_encoder(generator: str, placement: Placement, lora: str = "") -> DiffusionPipeline:
    """Load the part of a pipeline that encodes prompts: tokenizer and text encoder, no U-Net, no VAE.

    Parameters
    ----------
    generator : str
        "embedded", a hub id or a folder.
    placement : Placement
        Device and precision of the text encoders.
    lora : str, default ""
        LoRA weights, of which the text encoders get theirs; empty for none.

    Returns
    -------
    DiffusionPipeline
        Its ``encode_prompt`` works. Kept in memory for the next call.
    """
    diffusers = _quiet_diffusers()
    config = _pipeline_config(generator)
    absent = {name: None for name in NON_TEXT_COMPONENTS if name in config}
    # Safetensors only: a pickled weight file can run code.
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        **_source(generator), dtype=placement.torch_dtype, use_safetensors=True, **absent
    )
    record_fingerprints(pipeline, lora)
    if lora:
        add_lora(pipeline, lora)
    return pipeline.to(placement.device)


def load_pipeline(
    generator: str, placement: Placement, lora: str = "", scheduler: str = "auto"
) -> DiffusionPipeline:
    """Load a whole text-to-image pipeline.

    The safety checker is off: its black images would become training data.

    Parameters
    ----------
    generator : str
        "embedded", a hub id or a folder.
    placement : Placement
        Where and how its models are held.
    lora : str, default ""
        LoRA weights: a safetensors file, its folder or a hub id; empty for none.
    scheduler : str, default "auto"
        One of :data:`SCHEDULERS`. "auto" takes DPM-Solver++ in place of the usual ones, since it needs fewer
        steps, and leaves those that belong to a way of training (flow matching, LCM, Turbo).

    Returns
    -------
    DiffusionPipeline
        Ready to be called with ``prompt_embeds``.

    Raises
    ------
    ValueError
        When the generator cannot be used, or not with this scheduler.
    """
    diffusers = _quiet_diffusers()
    _pipeline_config(generator)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        **_source(generator), dtype=placement.torch_dtype, use_safetensors=True
    )
    if getattr(pipeline, "safety_checker", None) is not None:
        pipeline.safety_checker = None
    pipeline.scheduler = _scheduler(pipeline, scheduler)
    pipeline.set_progress_bar_config(disable=True)
    record_fingerprints(pipeline, lora)
    if lora:
        add_lora(pipeline, lora)
    return _placed(pipeline, placement)


def _placed(pipeline: DiffusionPipeline, placement: Placement) -> DiffusionPipeline:
    if placement.attention_slicing:
        pipeline.enable_attention_slicing()
    denoiser = pipeline.components.get("unet") or pipeline.components["transformer"]
    if placement.device.type == "cuda":
        for model in (denoiser, pipeline.vae):
            model.to(memory_format=torch.channels_last)
    if placement.compiled:
        denoiser.compile()
    if placement.offload == "model":
        pipeline.enable_model_cpu_offload(device=placement.device)
    elif placement.offload == "sequential":
        pipeline.enable_sequential_cpu_offload(device=placement.device)
    else:
        pipeline.to(placement.device)
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
    return getattr(_quiet_diffusers(), SCHEDULERS[name]).from_config(pipeline.scheduler.config)


@lru_cache(maxsize=1)
def load_autoencoder(generator: str, device: torch.device) -> AutoencoderKL:
    """Load the autoencoder of a text-to-image pipeline alone, in single precision.

    Parameters
    ----------
    generator : str
        "embedded", a hub id or a folder.
    device : torch.device
        Where it goes.

    Returns
    -------
    AutoencoderKL
        In evaluation mode. Kept in memory for the next call.
    """
    diffusers = _quiet_diffusers()
    _pipeline_config(generator)
    vae = diffusers.AutoencoderKL.from_pretrained(
        **_source(generator), subfolder="vae", dtype=torch.float32, use_safetensors=True
    )
    return vae.to(device).eval()


def autoencoder_factor(generator: str) -> int:
    """Return by how much an autoencoder's latents are smaller than images, on each side."""
    return int(2 ** (len(_autoencoder_config(generator)["block_out_channels"]) - 1))


def autoencoder_channels(generator: str) -> int:
    """Return the channels of the images that an autoencoder takes."""
    return int(_autoencoder_config(generator)["in_channels"])


def _autoencoder_config(generator: str) -> dict[str, Any]:
    diffusers = _quiet_diffusers()
    _pipeline_config(generator)
    config: dict[str, Any] = diffusers.AutoencoderKL.load_config(**_source(generator), subfolder="vae")
    return config


def generator_family(generator: str) -> str:
    """Return the class of a generator's pipeline; it is one that can be used."""
    return str(_pipeline_config(generator)["_class_name"])


def _source(generator: str) -> dict[str, str]:
    """Return what diffusers is told to load: a folder, or a hub id with its revision."""
    source = generator_source(generator)
    name, _, revision = ("" if Path(source).is_dir() else source).partition("@")
    return {"pretrained_model_name_or_path": name or source} | ({"revision": revision} if revision else {})


def _pipeline_config(generator: str) -> dict[str, Any]:
    diffusers = _quiet_diffusers()
    source = _source(generator)
    try:
        config: dict[str, Any] = diffusers.DiffusionPipeline.load_config(**source)
    except OSError as error:
        raise ValueError(
            f"generator '{generator}' is neither in the hub's cache nor to be reached; give a local folder "
            "with model_index.json and what it names, as `save_pretrained` writes it"
        ) from error
    _check_family(source["pretrained_model_name_or_path"], config)
    return config


def _check_family(source: str, config: Mapping[str, Any]) -> None:
    family = config.get("_class_name")
    if family not in PROMPT_OUTPUTS:
        raise ValueError(f"generator '{source}' is a {family}; it must be one of {', '.join(PROMPT_OUTPUTS)}")


def _quiet_diffusers() -> ModuleType:
    """Import diffusers without the bars and notices that mean nothing to who runs a federation."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    import diffusers

    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    # It passes the hub's library an argument that this one no longer knows.
    warnings.filterwarnings("ignore", message="The `local_dir_use_symlinks` argument is deprecated")
    warnings.filterwarnings("ignore", message="__array__ implementation doesn't accept a copy keyword")
    return cast(ModuleType, diffusers)
