"""Client side: handlers of the set-up messages, added to any ClientApp."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import ClientAppCallable, Mod

from fgl_app.algorithms.diffusion import train_diffusion
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
    check_integer,
    checked_settings,
    checked_unet,
    require_app_extra,
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
    """Add FGL's set-up handler to a ClientApp: encoded prompts about its data (arXiv 2306.16064, 3.1-3.2).

    Parameters
    ----------
    app : ClientApp
        Your app; gets a handler of the messages "query.embed".
    dataset_fn : Callable[[Context], PromptData or LabeledImages]
        Returns the labels, and captions or domains if any, of the client of a context.
    class_names : Sequence[str]
        Name of each class in prompts; labels index it.
    generator : str
        Hub id or folder of the server's text-to-image pipeline, or "embedded". Only its text encoder is
        loaded.
    prompt_template : str, default "{label}, real world images, high resolution"
        Prompt with ``{label}``, and ``{caption}`` or ``{domain}`` if the data have them (the paper's value).
    embedding_dtype : {"float16", "float32"}, default "float16"
        Precision of the upload.
    device : str, default "auto"
        Torch device of the text encoder; "auto" is a GPU if there is one.
    mods : Sequence[Mod], default ()
        Flower mods of this handler only.

    Raises
    ------
    ValueError
        If an argument is invalid, or the app takes no handlers.
    ImportError
        If fgl-app is installed without its extra "app".
    """
    require_app_extra("register_fgl")
    from fgl_app.config.templates import check_template
    from fgl_app.models.generators import check_classes

    check_choice(EMBEDDING_DTYPES, embedding_dtype=embedding_dtype)
    kind = "instance" if "{caption}" in prompt_template else "class"
    check_template(prompt_template or "-", kind, has_domains="{domain}" in prompt_template)
    names = tuple(class_names)
    if not names:
        raise ValueError("class_names must name at least one class")
    check_classes(generator, names)

    def embed(message: Message, context: Context) -> Message:
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
        encoder = load_text_encoder(generator, Placement(device))
        check_encoder(message, encoder_fingerprint(encoder), generator)
        embeddings = embed_prompts(encoder, prompts, dtype=getattr(torch, embedding_dtype))
        return Message(embeddings_content(embeddings, _site(context)[0]), reply_to=message)

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
    """Add FedDDPM's set-up handler to a ClientApp: a U-Net trained only on its data.

    Parameters
    ----------
    app : ClientApp
        Your app; gets a handler of the messages "train.local_diffusion".
    dataset_fn : Callable[[Context], LabeledImages or LabeledLatents]
        Returns the private examples of the client of a context: uint8 images, which are scaled to [-1, 1], or
        inputs of your U-Net as floats.
    unet_fn : Callable[[], UNet2DModel]
        Builds your U-Net of diffusers; the server's initial weights are loaded into it.
    epochs : int, default 20
        Passes over the private examples.
    min_steps : int, default 500
        Minimum number of optimizer steps; small datasets get more epochs.
    learning_rate : float, default 0.002
        Initial learning rate of AdamW, with cosine decay to zero.
    batch_size : int, default 32
        Examples per batch.
    ema_decay : float, default 0.995
        Decay of the moving average of the weights, which is uploaded; 0 disables averaging.
    prediction_type : {"epsilon", "v_prediction"}, default "epsilon"
        Target that your U-Net predicts.
    noise_schedule : {"linear", "cosine"}, default "linear"
        Betas over 1000 time steps; the defaults match ``DDPMScheduler()``.
    seed : int, default 0
        Seed of order, time steps and noise, combined with the number of the client.
    device : str, default "auto"
        Torch device; "auto" is a GPU if there is one.
    mods : Sequence[Mod], default ()
        Flower mods of this handler only, such as ``LocalDpMod``.

    Raises
    ------
    ValueError
        If an argument is invalid, or the app takes no handlers.
    ImportError
        If fgl-app is installed without its extra "app".
    """
    require_app_extra("register_fedddpm")
    check_integer(0, seed=seed)
    settings = checked_settings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        ema_decay=ema_decay,
        prediction_type=prediction_type,
        noise_schedule=noise_schedule,
        min_steps=min_steps,
        schedule="cosine",
    )

    def local_diffusion(message: Message, context: Context) -> Message:
        from fgl_app.models.devices import resolve_device

        unet = checked_unet(unet_fn).to(resolve_device(device))
        load_weights(unet, arrays_to_state(message.content.array_records[ARRAYS]))
        data = to_model_input(dataset_fn(context), unet)
        site, number = _site(context)
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
            "this ClientApp was created with a client_fn and takes no other handlers; write its training as "
            "a function under @app.train() (Message API of Flower)"
        ) from None
    decorate(handler)


def _site(context: Context) -> tuple[str, int]:
    """Return the name of a context's site, and the number that seeds its generators."""
    name, number = site_identity(context.node_config)
    return (name, number) if name else (str(context.node_id), context.node_id)
