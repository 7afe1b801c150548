"""The ClientApp: a message in, a plain call, a message out.

In deployment every message starts a new process, so heavy imports wait for the handler that needs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fgl_app.config import RunConfig, parse_config
from fgl_app.records import (
    ARRAYS,
    CONFIG,
    CONTROL,
    CONTROL_ROUND,
    EMBEDDINGS,
    ENCODER,
    LABEL_COUNTS,
    METRICS,
    NUM_EXAMPLES,
    SITE,
    arrays_to_state,
    embeddings_to_record,
    load_state,
    metric_record,
    site_record,
    state_to_arrays,
)

if TYPE_CHECKING:
    import torch

    from fgl_app.algorithms.types import LabeledImages
    from fgl_app.data.types import ImageDataset

app = ClientApp()

CAPTION_BATCH = 16


@app.query("embed")
def embed(message: Message, context: Context) -> Message:
    """Describe the private examples in prompts and reply with their text embeddings."""
    import torch

    from fgl_app.algorithms.captions import choose_examples
    from fgl_app.algorithms.embedding import embed_prompts
    from fgl_app.algorithms.prompts import write_prompts
    from fgl_app.algorithms.randomness import seeded
    from fgl_app.data.vocabulary import load_vocabulary
    from fgl_app.models.devices import resolve_device
    from fgl_app.models.fingerprints import encoder_fingerprint
    from fgl_app.models.pipelines import Placement, load_text_encoder

    config, partition_id, data, source = _private_data(context)
    words = load_vocabulary(config.vocabulary)
    device = resolve_device(config.device)
    captions = domains = None
    if config.prompts == "instance":
        generator = seeded("captions", config.seed, partition_id)
        data = data.select(choose_examples(data.labels, config.captions_per_class, generator))
        captions = _captions(config, partition_id, data, device)
    if data.domains is not None:
        domains = [source.domain_names[number] for number in data.domains.tolist()]
    prompts = write_prompts(
        config.template,
        data.labels.tolist(),
        source.class_names,
        captions=captions,
        domains=domains,
        phrases={name: words.domain(name) for name in source.domain_names},
    )
    placement = Placement(device, config.generator_dtype)
    encoder = load_text_encoder(config.generator, placement, config.generator_lora)
    theirs = cast(str, message.content.config_records[CONFIG].get(ENCODER, ""))
    ours = encoder_fingerprint(encoder)
    if theirs not in ("", ours):
        raise ValueError(
            f"this client's text encoder {ours} (generator '{config.generator}') is not the server's {theirs}"
        )
    embeddings = embed_prompts(
        encoder,
        prompts,
        dtype=getattr(torch, config.embedding_dtype),
        negatives=words.negatives_for(source.domain_names, config.negative_prompt),
    )
    content = RecordDict(
        {
            EMBEDDINGS: embeddings_to_record(embeddings),
            METRICS: metric_record({NUM_EXAMPLES: len(data)}),
            SITE: site_record(f"{partition_id:05d}"),
        }
    )
    return Message(content, reply_to=message)


def _captions(config: RunConfig, partition_id: int, data: LabeledImages, device: torch.device) -> list[str]:
    from fgl_app.algorithms.captions import caption_images
    from fgl_app.client_state import load_captions, save_captions
    from fgl_app.models.captioners import STROKES, load_captioner

    write = load_captioner(config.captioner, config.caption_prompt, device)
    if config.captioner == STROKES:
        return write(data.images)
    known = load_captions(config, partition_id)
    return caption_images(
        data.images,
        write,
        known,
        batch_size=CAPTION_BATCH,
        callback=lambda _: save_captions(config, partition_id, known),
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on the private examples and reply with its weights."""
    from fgl_app.algorithms.randomness import seeded
    from fgl_app.algorithms.scaffold import GradientControl
    from fgl_app.client_state import load_control, save_control
    from fgl_app.tasks import make_task
    from fgl_app.tasks.task import LocalRound

    config, partition_id, data, source = _private_data(context)
    task = make_task(config, source.class_names, data.images.shape[1])
    model = task.new_model()
    load_state(model, arrays_to_state(message.content.array_records[ARRAYS]))
    request = message.content.config_records[CONFIG]
    number = cast(int, request["server-round"])
    control = None
    if CONTROL in message.content.array_records:
        own = load_control(config, context.run_id, partition_id, cast(int, request[CONTROL_ROUND]))
        control = GradientControl(arrays_to_state(message.content.array_records[CONTROL]), own)
    # More than one round without an exchange between them when each client trains alone.
    rounds = range(number, number + cast(int, request.get("rounds", 1)))
    for number in rounds:
        this = LocalRound(
            epochs=cast(int, request["epochs"]),
            number=number,
            proximal_mu=cast(float, request.get("proximal-mu", 0.0)),
        )
        loss = task.train(
            model,
            data,
            this,
            seeded("client", config.seed, number, partition_id),
            on_gradients=control.on_gradients if control else None,
        )
    content = _trained(model, {NUM_EXAMPLES: len(data), "train-loss": loss}, partition_id)
    if control:
        new, change = control.finish()
        save_control(config, context.run_id, partition_id, number, new)
        content[CONTROL] = state_to_arrays(change)
    return Message(content, reply_to=message)


@app.train("local_diffusion")
def train_local_diffusion(message: Message, context: Context) -> Message:
    """Train the received diffusion model on the private examples alone, for FedDDPM's set-up."""
    import torch

    from fgl_app.algorithms.randomness import seeded
    from fgl_app.tasks.diffusion import DiffusionTask

    config, partition_id, data, source = _private_data(context)
    task = DiffusionTask(config, source.class_names, data.images.shape[1])
    model = task.new_model()
    load_state(model, arrays_to_state(message.content.array_records[ARRAYS]))
    loss = task.pretrain(model, data, seeded("pretrain", config.seed, partition_id))
    metrics: dict[str, float | int | list[int]] = {NUM_EXAMPLES: len(data), "train-loss": loss}
    if config.class_conditional:
        metrics[LABEL_COUNTS] = torch.bincount(data.labels, minlength=len(source.class_names)).tolist()
    return Message(_trained(model, metrics, partition_id), reply_to=message)


def _private_data(context: Context) -> tuple[RunConfig, int, LabeledImages, ImageDataset]:
    from fgl_app.data.partitions import load_client_data

    config = parse_config(context.run_config)
    missing = {"partition-id", "num-partitions"} - context.node_config.keys()
    if missing:
        raise ValueError(f"this SuperNode needs --node-config with {' and '.join(sorted(missing))}")
    partition_id = int(context.node_config["partition-id"])
    data, source = load_client_data(config, partition_id, int(context.node_config["num-partitions"]))
    return config, partition_id, data, source


def _trained(
    model: torch.nn.Module, metrics: Mapping[str, float | int | list[int]], partition_id: int
) -> RecordDict:
    return RecordDict(
        {
            ARRAYS: state_to_arrays(model.state_dict()),
            METRICS: metric_record(metrics),
            SITE: site_record(f"{partition_id:05d}"),
        }
    )
