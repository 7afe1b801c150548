"""The client's part: answers to the set-up's requests, added to anybody's ClientApp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod

from fgl_app.algorithms.diffusion import DiffusionSettings, train_diffusion
from fgl_app.algorithms.embedding import embed_prompts
from fgl_app.algorithms.prompts import write_prompts
from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import LabeledImages, LabeledLatents
from fgl_app.algorithms.weights import load_weights
from fgl_app.client.site import site_identity
from fgl_app.messages.embeddings import EMBEDDING_DTYPES, check_encoder, embeddings_content
from fgl_app.messages.keys import ARRAYS, LABEL_COUNTS, NUM_EXAMPLES
from fgl_app.messages.replies import trained_content
from fgl_app.messages.weights import arrays_to_state
from fgl_app.plug_in.checks import (
    check_choice,
    check_fraction,
    check_integer,
    check_positive,
    checked_process,
    require_app_extra,
    require_unet,
)
from fgl_app.plug_in.local_data import PromptData, checked_labels, requested_texts, to_model_input

if TYPE_CHECKING:
    from diffusers import UNet2DModel


def register_fgl(
    app: ClientApp,
    *,
    dataset_fn: Callable[[Context], PromptData | LabeledImages],
    class_names: Sequence[str],
    generator: str,
    prompt_template: str = "{label}, real world images, high resolution",
    embedding_dtype: Literal["float16", "float32"] = "float16",
    device: str = "auto",
    mods: Sequence[Mod] = (),
) -> None:
    """Have a ClientApp answer ``FGLStrategy``: prompts about its data, encoded (arXiv 2306.16064, 3.1-3.2).

    Parameters
    ----------
    app : ClientApp
        Yours; the messages "query.embed" are added to what it handles.
    dataset_fn : Callable[[Context], PromptData or LabeledImages]
        Describes the private data of the client that a context is of.
    class_names : Sequence[str]
        Name of each class, as prompts have it; labels count in it.
    generator : str
        Hub id or folder of the text-to-image pipeline that the server draws with, or "embedded". Only its
        text encoder is loaded.
    prompt_template : str, default "{label}, real world images, high resolution"
        Prompt with ``{label}``, and ``{caption}`` or ``{domain}`` if the data have them (paper's).
    embedding_dtype : {"float16", "float32"}, default "float16"
        Precision of the upload.
    device : str, default "auto"
        Torch device of the text encoder; "auto" is a GPU if there is one.
    mods : Sequence[Mod], default ()
        Flower mods of this message alone.

    Raises
    ------
    ValueError
        When an argument breaks its rule, or the app cannot take handlers.
    ImportError
        When fgl-app is installed without its extra "app".
    """
    require_app_extra("register_fgl")
    from fgl_app.config.templates import check_template
    from fgl_app.models.pipelines import check_classes

    check_choice(EMBEDDING_DTYPES, embedding_dtype=embedding_dtype)
    kind = "instance" if "{caption}" in prompt_template else "class"
    check_template(prompt_template or "-", kind, has_domains="{domain}" in prompt_template)
    names = tuple(class_names)
    if not names:
        raise ValueError("class_names must name at least one class")
    check_classes(generator, names)

    def embed(message: Message, context: Context) -> Message:
        from fgl_app.models.devices import resolve_device
        from fgl_app.models.fingerprints import encoder_fingerprint
        from fgl_app.models.pipelines import Placement, load_text_encoder

        data = dataset_fn(context)
        prompts = write_prompts(
            prompt_template,
            checked_labels(data.labels, len(names)),
            names,
            captions=requested_texts(data, "captions", prompt_template),
            domains=requested_texts(data, "domains", prompt_template),
        )
        encoder = load_text_encoder(generator, Placement(resolve_device(device)))
        check_encoder(message, encoder_fingerprint(encoder), generator)
        embeddings = embed_prompts(encoder, prompts, dtype=getattr(torch, embedding_dtype))
        return Message(embeddings_content(embeddings, _who(context)[0]), reply_to=message)

    _register(app, "query", "embed", embed, mods)


def register_fedddpm(
    app: ClientApp,
    *,
    dataset_fn: Callable[[Context], LabeledImages | LabeledLatents],
    unet_fn: Callable[[], UNet2DModel],
    epochs: int = 20,
    min_steps: int = 500,
    learning_rate: float = 0.002,
    batch_size: int = 32,
    ema_decay: float = 0.995,
    prediction_type: Literal["epsilon", "v_prediction"] = "epsilon",
    noise_schedule: Literal["linear", "cosine"] = "linear",
    seed: int = 0,
    device: str = "auto",
    mods: Sequence[Mod] = (),
) -> None:
    """Have a ClientApp answer ``FedDDPMStrategy``'s set-up: a U-Net trained on its data alone.

    Parameters
    ----------
    app : ClientApp
        Yours; the messages "train.local_diffusion" are added to what it handles.
    dataset_fn : Callable[[Context], LabeledImages or LabeledLatents]
        The private examples of the client that a context is of: uint8 images, which become pixels in [-1, 1];
        or what your U-Net sees, as floats.
    unet_fn : Callable[[], UNet2DModel]
        Makes your U-Net of diffusers; the server's initial weights are loaded into it.
    epochs : int, default 20
        Passes over the private examples.
    min_steps : int, default 500
        Steps at least, by more epochs when the examples are few.
    learning_rate : float, default 0.002
        Peak step size of AdamW; it falls to zero as a cosine.
    batch_size : int, default 32
        Examples in a batch.
    ema_decay : float, default 0.995
        Decay of the moving average of the weights, which is what is uploaded; 0 is none.
    prediction_type : {"epsilon", "v_prediction"}, default "epsilon"
        What your U-Net learns to predict.
    noise_schedule : {"linear", "cosine"}, default "linear"
        Betas over 1000 time steps; the defaults are those of ``DDPMScheduler()``.
    seed : int, default 0
        Seed of order, times and noise, beside the client's number.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.
    mods : Sequence[Mod], default ()
        Flower mods of this message alone, such as ``LocalDpMod``.

    Raises
    ------
    ValueError
        When an argument breaks its rule, or the app cannot take handlers.
    ImportError
        When fgl-app is installed without its extra "app".
    """
    require_app_extra("register_fedddpm")
    check_integer(0, epochs=epochs, min_steps=min_steps, seed=seed)
    check_integer(1, batch_size=batch_size)
    check_fraction(ema_decay=ema_decay)
    check_positive(learning_rate=learning_rate)
    settings = DiffusionSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        process=checked_process(prediction_type, noise_schedule),
        min_steps=min_steps,
        schedule="cosine",
    )

    def local_diffusion(message: Message, context: Context) -> Message:
        from fgl_app.models.devices import resolve_device

        unet = unet_fn().to(resolve_device(device))
        require_unet(unet)
        load_weights(unet, arrays_to_state(message.content.array_records[ARRAYS]))
        data = to_model_input(dataset_fn(context), unet)
        site, number = _who(context)
        loss = train_diffusion(unet, data, settings, seeded_generator("pretrain", seed, number))
        metrics: dict[str, float | int | list[int]] = {NUM_EXAMPLES: len(data), "train-loss": loss}
        classes = unet.config.num_class_embeds
        if classes:
            metrics[LABEL_COUNTS] = torch.bincount(data.labels, minlength=classes).tolist()
        return Message(trained_content(unet.state_dict(), metrics, site), reply_to=message)

    _register(app, "train", "local_diffusion", local_diffusion, mods)


def _register(
    app: ClientApp,
    category: Literal["query", "train"],
    action: str,
    handler: ClientAppCallable,
    mods: Sequence[Mod],
) -> None:
    try:
        decorate = getattr(app, category)(action, mods=list(mods))
    except ValueError:
        raise ValueError(
            "this ClientApp was made with a client_fn and takes no other handler; write its training as a "
            "function under @app.train(), as Flower's Message API has it"
        ) from None
    decorate(handler)


def _who(context: Context) -> tuple[str, int]:
    """Return the name of a context's site, and the number of its random streams."""
    name, number = site_identity(context.node_config)
    return (name, number) if name else (str(context.node_id), context.node_id)
