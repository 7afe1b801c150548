"""The ClientApp: a message in, a plain call, a message out.

In deployment every message starts a new process, so heavy imports wait for the handler that needs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fgl_app.client.site import Site, read_site
from fgl_app.code_version import code_version
from fgl_app.config import RunConfig, parse_config
from fgl_app.messages.records import (
    ARRAYS,
    CHANNELS,
    CLASS_NAMES,
    CODE,
    CONFIG,
    CONTROL,
    LABEL_COUNTS,
    METRICS,
    NUM_EXAMPLES,
    RUN,
    SITE,
    arrays_to_state,
    last_accepted_round,
    load_weights,
    metric_record,
    site_record,
    state_to_arrays,
)
from fgl_app.messages.replies import embeddings_reply, trained_content

if TYPE_CHECKING:
    from pathlib import Path

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
    from fgl_app.algorithms.prompts import write_prompts
    from fgl_app.algorithms.randomness import seeded_generator
    from fgl_app.data.vocabulary import load_vocabulary
    from fgl_app.models.devices import resolve_device
    from fgl_app.models.pipelines import Placement, load_text_encoder

    client = _client(message, context)
    config, site, data, source = client.config, client.site, client.data, client.source
    words = load_vocabulary(config.vocabulary)
    device = resolve_device(config.device)
    captions = domains = None
    if config.prompts == "instance":
        generator = seeded_generator("captions", config.seed, site.number)
        data = data.select(choose_examples(data.labels, config.captions_per_class, generator))
        captions = _captions(config, site, data, device)
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
    return embeddings_reply(
        message,
        encoder,
        prompts,
        generator=config.generator,
        dtype=getattr(torch, config.embedding_dtype),
        site=site.name,
        negatives=words.negatives_for(source.domain_names, config.negative_prompt),
    )


def _captions(config: RunConfig, site: Site, data: LabeledImages, device: torch.device) -> list[str]:
    from fgl_app.algorithms.captions import caption_images
    from fgl_app.client.state import load_captions, save_captions
    from fgl_app.models.captioners import STROKES, load_captioner

    write = load_captioner(config.captioner, config.caption_prompt, device)
    if config.captioner == STROKES:
        return write(data.images)
    known = load_captions(site.state, config)
    return caption_images(
        data.images,
        write,
        known,
        batch_size=CAPTION_BATCH,
        callback=lambda _: save_captions(site.state, config, known),
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on the private examples and reply with its weights."""
    from fgl_app.algorithms.randomness import seeded_generator
    from fgl_app.algorithms.scaffold import GradientControl
    from fgl_app.client.state import load_control, save_control
    from fgl_app.tasks import make_task
    from fgl_app.tasks.task import LocalRound

    client = _client(message, context)
    config, site, data, source = client.config, client.site, client.data, client.source
    task = make_task(config, source.class_names, data.images.shape[1])
    model = task.new_model()
    load_weights(model, arrays_to_state(message.content.array_records[ARRAYS]))
    request = client.request
    number = cast(int, request["server-round"])
    control = None
    if CONTROL in message.content.array_records:
        own = load_control(client.run_folder, last_accepted_round(request, site.name))
        control = GradientControl(arrays_to_state(message.content.array_records[CONTROL]), own)
    # More than one round without an exchange between them when each client trains alone.
    rounds = range(number, number + cast(int, request.get("rounds", 1)))
    for number in rounds:
        local_round = LocalRound(
            epochs=cast(int, request["epochs"]),
            number=number,
            proximal_mu=cast(float, request.get("proximal-mu", 0.0)),
        )
        loss = task.train(
            model,
            data,
            local_round,
            seeded_generator("client", config.seed, number, site.number),
            on_gradients=control.on_gradients if control else None,
        )
    content = trained_content(model.state_dict(), {NUM_EXAMPLES: len(data), "train-loss": loss}, site.name)
    if control:
        new, change = control.finish()
        save_control(client.run_folder, number, new)
        content[CONTROL] = state_to_arrays(change)
    return Message(content, reply_to=message)


@app.train("local_diffusion")
def train_local_diffusion(message: Message, context: Context) -> Message:
    """Train the received diffusion model on the private examples alone, for FedDDPM's set-up."""
    import torch

    from fgl_app.algorithms.randomness import seeded_generator
    from fgl_app.client.state import load_local_model, save_local_model
    from fgl_app.tasks.diffusion import DiffusionTask

    client = _client(message, context)
    config, site, data, source = client.config, client.site, client.data, client.source
    task = DiffusionTask(config, source.class_names, data.images.shape[1])
    model = task.new_model()
    load_weights(model, arrays_to_state(message.content.array_records[ARRAYS]))
    kept = load_local_model(client.run_folder)
    if kept is not None:
        state, loss = kept
        load_weights(model, state)
    else:
        loss = task.pretrain(model, data, seeded_generator("pretrain", config.seed, site.number))
        save_local_model(client.run_folder, model.state_dict(), loss)
    metrics: dict[str, float | int | list[int]] = {NUM_EXAMPLES: len(data), "train-loss": loss}
    if config.class_conditional:
        metrics[LABEL_COUNTS] = torch.bincount(data.labels, minlength=len(source.class_names)).tolist()
    return Message(trained_content(model.state_dict(), metrics, site.name), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the received model on the site's own test split; one that has none stands for 0 examples."""
    from fgl_app.tasks import make_task

    client = _client(message, context)
    metrics = {"accuracy": 0.0, "loss": 0.0}
    if len(client.source.test):
        task = make_task(client.config, client.source.class_names, client.data.images.shape[1])
        model = task.new_model()
        load_weights(model, arrays_to_state(message.content.array_records[ARRAYS]))
        metrics = task.evaluate(model, client.source, final=False).metrics
    content = RecordDict(
        {
            METRICS: metric_record({NUM_EXAMPLES: len(client.source.test), **metrics}),
            SITE: site_record(client.site.name),
        }
    )
    return Message(content, reply_to=message)


@dataclass(frozen=True)
class _Client:
    """What every handler begins with."""

    config: RunConfig
    site: Site
    request: ConfigRecord
    data: LabeledImages
    source: ImageDataset

    @property
    def run_folder(self) -> Path:
        from fgl_app.client.state import run_folder

        return run_folder(self.site.state, cast(str, self.request[RUN]))


def _client(message: Message, context: Context) -> _Client:
    """Read what the server asks and who this client is, and load its data."""
    from fgl_app.data.partitions import load_client_data
    from fgl_app.data.sites import load_site_data

    request = message.content.config_records[CONFIG]
    theirs, ours = cast(str, request[CODE]), code_version()
    if theirs != ours:
        raise ValueError(
            f"this client runs fgl-app {ours} and the server {theirs}; install the same version on both"
        )
    config = parse_config(context.run_config)
    site = read_site(context.node_config, config)
    if config.clients_own_data:
        names, channels = cast("list[str]", request[CLASS_NAMES]), cast(int, request[CHANNELS])
        source = load_site_data(config, site.data_path, tuple(names), channels)
        return _Client(config, site, request, source.train, source)
    data, source = load_client_data(config, site.number, site.num_sites)
    return _Client(config, site, request, data, source)
