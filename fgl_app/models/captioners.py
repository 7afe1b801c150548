"""Captioners of instance-level prompts: image-to-text models and stroke measures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from fgl_app.models.hub_ids import is_hub_id, unreachable_error

STROKES = "strokes"
"""Name of the captioner that measures pen strokes, without a model."""
STROKES_SIZE = 32
MAX_CAPTION_TOKENS = 40


def check_captioner(name: str) -> None:
    """Raise ValueError if a ``captioner`` config value is not "strokes", a model's folder or a hub id."""
    folder = Path(name).expanduser()
    if name == STROKES or (folder / "config.json").is_file() or (is_hub_id(name) and not folder.is_dir()):
        return
    raise ValueError(
        f"captioner must be '{STROKES}', the folder of an image-to-text model or a hub id such as "
        f"'owner/name', got '{name}'"
    )


def captioner_kind(name: str) -> str:
    """Return a description of a captioner, from its config.

    Raises
    ------
    ValueError
        If it is not a captioner or cannot be loaded.
    """
    check_captioner(name)
    if name == STROKES:
        return name
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    try:
        kind = AutoConfig.from_pretrained(name).model_type
    except OSError as error:
        raise unreachable_error("captioner", name) from error
    if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        raise ValueError(f"captioner '{name}' is a {kind}, which does not generate text from images")
    return f"{MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[kind]} in {name}"


def load_captioner(name: str, prompt: str, device: torch.device) -> Callable[[Tensor], list[str]]:
    """Load a captioner.

    Parameters
    ----------
    name : str
        "strokes" to describe the pen strokes of digits, or the hub id or folder of any model of
        ``AutoModelForImageTextToText``: BLIP, BLIP-2, GIT, Florence-2 and others.
    prompt : str
        Text for the model to continue, or the token of its task; empty for none.
    device : torch.device
        Device of the model; half precision on CUDA.

    Returns
    -------
    Callable[[Tensor], list[str]]
        Maps uint8 images of shape (N, C, H, W) to N captions, by greedy decoding of at most 40 tokens.

    Raises
    ------
    ValueError
        If it is neither in the hub's cache nor can it be downloaded.
    """
    if name == STROKES:
        return _stroke_captions
    from transformers import AutoModelForImageTextToText, AutoProcessor

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    try:
        processor = AutoProcessor.from_pretrained(name)
        # Safetensors only: a pickled weight file can run code.
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, use_safetensors=True)
    except OSError as error:
        raise unreachable_error("captioner", name) from error
    model = model.to(device).eval()

    @torch.inference_mode()
    def caption(images: Tensor) -> list[str]:
        colour = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
        text = {"text": [prompt] * len(images)} if prompt else {}
        inputs = processor(images=list(colour), return_tensors="pt", **text).to(device, dtype)
        inputs.pop("token_type_ids", None)
        tokens = model.generate(**inputs, max_new_tokens=MAX_CAPTION_TOKENS, do_sample=False)
        texts = processor.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip().removeprefix(prompt.lower()).strip() for text in texts]

    return caption


def _stroke_captions(images: Tensor) -> list[str]:
    from fgl_app.algorithms.images import match_channels, resize_images
    from fgl_app.algorithms.strokes import measure_strokes, stroke_captions
    from fgl_app.algorithms.types import LabeledImages

    # The thresholds of the words are in pixels of the original digits, whatever the classifier's image size.
    data = LabeledImages(images, torch.zeros(len(images), dtype=torch.int64))
    originals = resize_images(match_channels(data, 1), STROKES_SIZE).images.float() / 255
    return stroke_captions(measure_strokes(originals))
