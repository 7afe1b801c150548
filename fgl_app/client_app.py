"""The ClientApp: decode a message, call plain functions, encode the reply.

In deployment every message starts a new process, so each handler imports heavy libraries itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fgl_app.client.site import Site, read_site
from fgl_app.client.state import (
    load_captions,
    load_control,
    load_local_model,
    run_folder,
    save_captions,
    save_control,
    save_local_model,
)
from fgl_app.code_version import code_version
from fgl_app.config import RunConfig, parse_config
from fgl_app.messages.control import last_accepted_round
from fgl_app.messages.embeddings import check_encoder, embeddings_content
from fgl_app.messages.keys import ARRAYS, CONFIG, CONTROL, LABEL_COUNTS, NUM_EXAMPLES, TRAIN_LOSS
from fgl_app.messages.replies import evaluated_content, trained_content
from fgl_app.messages.requests import Request, decode_request
from fgl_app.messages.weights import arrays_to_state, state_to_arrays
from fgl_app.progress import log_to_stdout

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from fgl_app.algorithms.prompts import Prompt
    from fgl_app.algorithms.types import LabeledImages
    from fgl_app.data.types import ImageDataset
    from fgl_app.data.vocabulary import Vocabulary
    from fgl_app.tasks import Task

app = ClientApp()

CAPTION_BATCH_SIZE = 16


@app.query("embed")
def embed(message: Message, context: Context) -> Message:
    """Describe the private examples in prompts and reply with the prompts' text embeddings."""
    import torch

    from fgl_app.algorithms.embedding import embed_prompts
    from fgl_app.data.vocabulary import load_vocabulary
    from fgl_app.models.devices import resolve_device
    from fgl_app.models.fingerprints import encoder_fingerprint
    from fgl_app.models.pipelines import Placement, load_text_encoder

    client = _Client.of(message, context)
    config = client.config
    vocabulary = load_vocabulary(config.vocabulary)
    device = resolve_device(config.device)
    prompts = _prompts(client, vocabulary, device)
    placement = Placement(device, config.generator_dtype)
    encoder = load_text_encoder(config.generator, placement, config.generator_lora)
    check_encoder(message, encoder_fingerprint(encoder), config.generator)
    embeddings = embed_prompts(
        encoder,
        prompts,
        dtype=getattr(torch, config.embedding_dtype),
        negatives=vocabulary.negatives_for(client.source.domain_names, config.negative_prompt),
    )
    return Message(embeddings_content(embeddings, client.site.name), reply_to=message)


def _prompts(client: _Client, vocabulary: Vocabulary, device: torch.device) -> list[Prompt]:
    from fgl_app.algorithms.captions import choose_examples
    from fgl_app.algorithms.prompts import write_prompts
    from fgl_app.algorithms.randomness import seeded_generator

    config, site, data, source = client.config, client.site, client.data, client.source
    captions = domains = None
    if config.prompts == "instance":
        generator = seeded_generator("captions", config.seed, site.number)
        data = data.select(choose_examples(data.labels, config.captions_per_class, generator))
        captions = _captions(config, site, data, device)
    if data.domains is not None:
        domains = [source.domain_names[number] for number in data.domains.tolist()]
    return write_prompts(
        config.template,
        data.labels.tolist(),
        source.class_names,
        captions=captions,
        domains=domains,
        phrases={name: vocabulary.domain(name) for name in source.domain_names},
    )


def _captions(config: RunConfig, site: Site, data: LabeledImages, device: torch.device) -> list[str]:
    from fgl_app.algorithms.captions import caption_images
    from fgl_app.models.captioners import STROKES, load_captioner

    captioner = load_captioner(config.captioner, config.caption_prompt, device)
    if config.captioner == STROKES:
        return captioner(data.images)
    known = load_captions(site.state, config)
    return caption_images(
        data.images,
        captioner,
        known,
        batch_size=CAPTION_BATCH_SIZE,
        callback=lambda _: save_captions(site.state, config, known),
    )


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the received model on the private examples and reply with its weights."""
    from fgl_app.algorithms.randomness import seeded_generator
    from fgl_app.algorithms.scaffold import GradientControl
    from fgl_app.tasks.task import LocalRound

    client = _Client.of(message, context)
    config, site, data, request = client.config, client.site, client.data, client.request
    records = message.content.array_records
    if request.epochs is None or not request.server_round:
        raise ValueError("a training request needs 'epochs' and 'server-round' in its config")
    task = client.task
    model = task.model_with(arrays_to_state(records[ARRAYS]))
    control = None
    if CONTROL in records:
        accepted = last_accepted_round(message.content.config_records[CONFIG], site.name)
        own = load_control(client.run_folder, accepted)
        control = GradientControl(arrays_to_state(records[CONTROL]), own)
    # Several rounds in one request when each client trains alone.
    for number in range(request.server_round, request.server_round + request.num_rounds):
        loss = task.train(
            model,
            data,
            LocalRound(request.epochs, number, request.proximal_mu),
            seeded_generator("client", config.seed, number, site.number),
            on_gradients=control.on_gradients if control else None,
        )
    metrics = {NUM_EXAMPLES: len(data), TRAIN_LOSS: loss}
    content = trained_content(model.state_dict(), metrics, site.name)
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
    from fgl_app.tasks import DiffusionTask

    client = _Client.of(message, context)
    config, site, data, task = client.config, client.site, client.data, client.task
    assert isinstance(task, DiffusionTask)
    # A client that trained before the server died does not train again.
    kept = load_local_model(client.run_folder)
    state, loss = kept or (arrays_to_state(message.content.array_records[ARRAYS]), 0.0)
    model = task.model_with(state)
    if kept is None:
        loss = task.pretrain(model, data, seeded_generator("pretrain", config.seed, site.number))
        save_local_model(client.run_folder, model.state_dict(), loss)
    metrics: dict[str, float | int | list[int]] = {NUM_EXAMPLES: len(data), TRAIN_LOSS: loss}
    if config.class_conditional:
        num_classes = len(client.source.class_names)
        metrics[LABEL_COUNTS] = torch.bincount(data.labels, minlength=num_classes).tolist()
    return Message(trained_content(model.state_dict(), metrics, site.name), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate the received model on the site's test split; a site without one counts 0 examples."""
    client = _Client.of(message, context)
    metrics = {"accuracy": 0.0, "loss": 0.0}
    if len(client.source.test):
        task = client.task
        model = task.model_with(arrays_to_state(message.content.array_records[ARRAYS]))
        metrics = task.evaluate(model, client.source, final=False).metrics
    metrics = {NUM_EXAMPLES: len(client.source.test), **metrics}
    return Message(evaluated_content(metrics, client.site.name), reply_to=message)


@dataclass(frozen=True)
class _Client:
    """What every handler needs."""

    config: RunConfig
    site: Site
    request: Request
    data: LabeledImages
    source: ImageDataset

    @classmethod
    def of(cls, message: Message, context: Context) -> _Client:
        """Read the request and the site, and load the site's data."""
        from fgl_app.data.partitions import load_client_data
        from fgl_app.data.sites import load_site_data

        log_to_stdout()
        request = decode_request(message.content.config_records[CONFIG])
        own_code = code_version()
        if request.code != own_code:
            raise ValueError(
                f"this client runs fgl-app {own_code} and the server {request.code}; "
                "install the same version on both"
            )
        config = parse_config(context.run_config)
        site = read_site(context.node_config, config)
        if config.clients_own_data:
            source = load_site_data(config, site.data_path, request.class_names, request.channels)
            return cls(config, site, request, source.train, source)
        data, source = load_client_data(config, site.number, site.num_sites)
        return cls(config, site, request, data, source)

    @property
    def run_folder(self) -> Path:
        return run_folder(self.site.state, self.request.run)

    @property
    def task(self) -> Task:
        from fgl_app.tasks import make_task

        return make_task(self.config, self.source.class_names, self.data.images.shape[1])
