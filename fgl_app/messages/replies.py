"""What a client answers to the requests of the set-up rounds, in this project's app and in others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from flwr.app import ConfigRecord, Message, RecordDict

from fgl_app.algorithms.embedding import embed_prompts
from fgl_app.messages.records import (
    ARRAYS,
    CONFIG,
    EMBEDDINGS,
    ENCODER,
    METRICS,
    NUM_EXAMPLES,
    SITE,
    embeddings_to_record,
    metric_record,
    site_record,
    state_to_arrays,
)
from fgl_app.models.fingerprints import encoder_fingerprint

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from fgl_app.algorithms.prompts import Prompt
    from fgl_app.algorithms.types import State


def embeddings_reply(
    message: Message,
    encoder: DiffusionPipeline,
    prompts: Sequence[Prompt],
    *,
    generator: str,
    dtype: torch.dtype,
    site: str,
    negatives: Mapping[str, str] | None = None,
) -> Message:
    """Encode prompts and answer with their embeddings.

    Parameters
    ----------
    message : Message
        The request, of type "query.embed"; may name the server's encoder.
    encoder : DiffusionPipeline
        Of :func:`fgl_app.models.pipelines.load_text_encoder`.
    prompts : Sequence[Prompt]
        At least one.
    generator : str
        Where the encoder comes from, for the message of an error.
    dtype : torch.dtype
        Precision of the upload.
    site : str
        Who this is.
    negatives : Mapping[str, str] or None, default None
        Negative prompt of each domain; None leaves it to the server.

    Returns
    -------
    Message
        The reply, with the embeddings and the site's name.

    Raises
    ------
    ValueError
        When the server named another encoder than this one.
    """
    request = message.content.config_records.get(CONFIG, ConfigRecord())
    theirs, ours = cast(str, request.get(ENCODER, "")), encoder_fingerprint(encoder)
    if theirs not in ("", ours):
        raise ValueError(
            f"this client's text encoder {ours} (generator '{generator}') is not the server's {theirs}; "
            "both need the same generator, and LoRA weights if any"
        )
    embeddings = embed_prompts(encoder, prompts, dtype=dtype, negatives=negatives)
    content = RecordDict(
        {
            EMBEDDINGS: embeddings_to_record(embeddings),
            METRICS: metric_record({NUM_EXAMPLES: sum(prompt.count for prompt in prompts)}),
            SITE: site_record(site),
        }
    )
    return Message(content, reply_to=message)


def trained_content(state: State, metrics: Mapping[str, float | int | list[int]], site: str) -> RecordDict:
    """Return what a client that has trained sends: weights, metrics with "num-examples", who it is."""
    return RecordDict(
        {ARRAYS: state_to_arrays(state), METRICS: metric_record(metrics), SITE: site_record(site)}
    )
