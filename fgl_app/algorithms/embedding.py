"""Text embeddings: encode prompts with the text encoder of the generator, and merge uploads."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fgl_app.algorithms.apportion import apportion
from fgl_app.algorithms.prompts import Prompt
from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.progress import log

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


_PLAIN = ("prompt_embeds", "negative_prompt_embeds")
_POOLED = (*_PLAIN, "pooled_prompt_embeds", "negative_pooled_prompt_embeds")
_MASKED = (
    *("prompt_embeds", "prompt_attention_mask"),
    *("negative_prompt_embeds", "negative_prompt_attention_mask"),
)
PROMPT_OUTPUTS = {
    "StableDiffusionPipeline": _PLAIN,
    "LatentConsistencyModelPipeline": _PLAIN,
    "StableDiffusionXLPipeline": _POOLED,
    "StableDiffusion3Pipeline": _POOLED,
    "PixArtAlphaPipeline": _MASKED,
    "PixArtSigmaPipeline": _MASKED,
}
"""Outputs of ``encode_prompt`` of each supported pipeline, named as its call takes them."""


@torch.inference_mode()
def encode_texts(
    pipeline: DiffusionPipeline, texts: Sequence[str], *, batch_size: int = 64
) -> dict[str, Tensor]:
    """Encode P texts with a pipeline's text encoders.

    The pipeline is one of :data:`PROMPT_OUTPUTS`; its denoiser and VAE may be absent.

    Returns
    -------
    dict[str, Tensor]
        Arguments of the pipeline's call that replace the texts: ``prompt_embeds`` of shape (P, tokens,
        width), and for some families ``pooled_prompt_embeds`` or ``prompt_attention_mask``. All in the dtype
        of the encoder, including masks, on the CPU.
    """
    _warn_about_truncation(pipeline, texts)
    names = PROMPT_OUTPUTS[type(pipeline).__name__]
    parameters = inspect.signature(pipeline.encode_prompt).parameters.values()
    # Further encoders default to the same texts.
    arguments: dict[str, Any] = {each.name: None for each in parameters if each.default is each.empty}
    arguments |= {"num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    arguments["device"] = pipeline._execution_device
    batches: dict[str, list[Tensor]] = {}
    for start in range(0, len(texts), batch_size):
        arguments["prompt"] = list(texts[start : start + batch_size])
        outputs = pipeline.encode_prompt(**arguments)
        for name, output in zip(names, outputs, strict=True):
            if not name.startswith("negative_"):
                batches.setdefault(name, []).append(output.to("cpu", outputs[0].dtype))
    return {name: torch.cat(parts) for name, parts in batches.items()}


def _warn_about_truncation(pipeline: DiffusionPipeline, texts: Sequence[str]) -> None:
    limit = pipeline.tokenizer.model_max_length
    longest = max(texts, key=lambda text: len(pipeline.tokenizer(text).input_ids))
    length = len(pipeline.tokenizer(longest).input_ids)
    if length > limit:
        log.warning("prompts of more than %d tokens are truncated, such as '%s' (%d)", limit, longest, length)


def embed_prompts(
    pipeline: DiffusionPipeline,
    prompts: Sequence[Prompt],
    *,
    dtype: torch.dtype = torch.float16,
    negatives: Mapping[str, str] | None = None,
) -> TextEmbeddings:
    """Encode at least one prompt as the upload of a client: one row per prompt, in order.

    ``dtype`` is the precision of the upload; half precision halves its size. ``negatives`` has the negative
    prompt of each domain, which is uploaded with the prompts; None leaves it to the server.
    """
    tensors = encode_texts(pipeline, [prompt.text for prompt in prompts])
    if negatives is not None:
        encoded = encode_texts(pipeline, [negatives[prompt.domain] for prompt in prompts])
        tensors |= {f"negative_{name}": tensor for name, tensor in encoded.items()}
    return TextEmbeddings(
        {name: tensor.to(dtype) for name, tensor in tensors.items()},
        torch.tensor([prompt.label for prompt in prompts]),
        torch.tensor([prompt.count for prompt in prompts]),
    )


def limit_counts(embeddings: TextEmbeddings, total: int) -> TextEmbeddings:
    """Return the embeddings with counts scaled to add up to ``total``; prompts that get none are dropped."""
    counts = torch.tensor(apportion(embeddings.counts.tolist(), total))
    rows = counts.nonzero().squeeze(1).tolist()
    return replace(embeddings.select(rows), counts=counts[rows])


def merge_embeddings(uploads: Sequence[TextEmbeddings]) -> TextEmbeddings:
    """Merge uploads into one set that contains each distinct prompt once.

    Clients that hold the same class send the same embedding under class-level prompts. It is kept once, with
    the sum of the counts: the synthetic set does not depend on how the examples are split over clients. The
    uploads, at least one, have equal tensor names and shapes. Rows are in ascending order of class, and
    within a class in order of first appearance.
    """
    names = sorted(uploads[0].tensors)
    tensors = {name: torch.cat([upload.tensors[name] for upload in uploads]) for name in names}
    labels = torch.cat([upload.labels for upload in uploads])
    counts = torch.cat([upload.counts for upload in uploads])
    rows: dict[tuple[int, bytes], int] = {}
    totals: dict[int, int] = {}
    for row, label in enumerate(labels.tolist()):
        content = b"".join(tensors[name][row].numpy().tobytes() for name in names)
        first = rows.setdefault((label, content), row)
        totals[first] = totals.get(first, 0) + int(counts[row])
    kept = sorted(totals, key=lambda row: (int(labels[row]), row))
    index = torch.tensor(kept)
    return TextEmbeddings(
        {name: tensor[index] for name, tensor in tensors.items()},
        labels[index],
        torch.tensor([totals[row] for row in kept]),
    )
