"""The ClientApp: a message in, a plain call, a message out.

In deployment every message starts a new process, so heavy imports wait for the handler that needs them.
"""

from __future__ import annotations

from typing import cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fgl_app.config import RunConfig, parse_config
from fgl_app.records import (
    ARRAYS,
    CONFIG,
    EMBEDDINGS,
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

app = ClientApp()

CAPTION_SIZE = 32


def _site(context: Context) -> tuple[RunConfig, int, int]:
    config = parse_config(context.run_config)
    missing = {"partition-id", "num-partitions"} - context.node_config.keys()
    if missing:
        raise ValueError(f"this SuperNode needs --node-config with {' and '.join(sorted(missing))}")
    return config, int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])


@app.query("embed")
def embed(message: Message, context: Context) -> Message:
    """Describe the private examples in prompts and reply with their text embeddings."""
    import torch

    from fgl_app.algorithms.embedding import embed_prompts
    from fgl_app.algorithms.prompts import class_prompts, instance_prompts
    from fgl_app.data.partitions import load_client_data
    from fgl_app.data.sources import resize_images
    from fgl_app.models.devices import resolve_device
    from fgl_app.models.pipelines import load_text_encoder

    config, partition_id, num_partitions = _site(context)
    data, class_names = load_client_data(config, partition_id, num_partitions)
    labels = data.labels.tolist()
    if config.prompts == "instance":
        from fgl_app.algorithms.strokes import measure_strokes, stroke_captions

        # The words stand for pixels of the original digits, whatever the classifier's image size.
        originals = resize_images(data, CAPTION_SIZE).images.float() / 255
        captions = stroke_captions(measure_strokes(originals))
        prompts = instance_prompts(config.template, labels, captions, class_names)
    else:
        prompts = class_prompts(config.template, labels, class_names)
    encoder = load_text_encoder(config.generator, resolve_device(config.device))
    embeddings = embed_prompts(encoder, prompts, dtype=getattr(torch, config.embedding_dtype))
    content = RecordDict(
        {
            EMBEDDINGS: embeddings_to_record(embeddings),
            METRICS: metric_record({NUM_EXAMPLES: len(data)}),
            SITE: site_record(f"{partition_id:05d}"),
        }
    )
    return Message(content, reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received classifier on the private examples and reply with its weights."""
    from fgl_app.algorithms.classification import train as train_classifier
    from fgl_app.algorithms.randomness import seeded
    from fgl_app.data.partitions import load_client_data
    from fgl_app.methods.settings import client_settings, new_classifier
    from fgl_app.models.devices import resolve_device

    config, partition_id, num_partitions = _site(context)
    data, class_names = load_client_data(config, partition_id, num_partitions)
    request = message.content.config_records[CONFIG]
    model = new_classifier(config, data, len(class_names))
    load_state(model, arrays_to_state(message.content.array_records[ARRAYS]))
    loss = train_classifier(
        model.to(resolve_device(config.device)),
        data,
        client_settings(
            config,
            epochs=cast(int, request["epochs"]),
            proximal_mu=cast(float, request.get("proximal-mu", 0.0)),
        ),
        seeded("client", config.seed, cast(int, request["server-round"]), partition_id),
    )
    content = RecordDict(
        {
            ARRAYS: state_to_arrays(model.state_dict()),
            METRICS: metric_record({NUM_EXAMPLES: len(data), "train-loss": loss}),
            SITE: site_record(f"{partition_id:05d}"),
        }
    )
    return Message(content, reply_to=message)
