"""Two reference points without a strategy: all data in one place, and no exchange at all."""

from __future__ import annotations

from statistics import mean

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from torch import nn

from fgl_app.algorithms.randomness import seeded
from fgl_app.data.partitions import partition
from fgl_app.methods.session import Session
from fgl_app.progress import log, track
from fgl_app.records import (
    ARRAYS,
    CONFIG,
    UploadError,
    arrays_to_state,
    check_trained,
    site_name,
    state_to_arrays,
)
from fgl_app.strategies.exchange import Incident, TooFewRepliesError, explain, pull_each
from fgl_app.tasks.task import Evaluation, LocalRound


def run_centralized(session: Session) -> nn.Module:
    """Train on all clients' examples in one place: what skew and federation cost, seen from above."""
    config, data = session.config, session.dataset
    everything = np.sort(np.concatenate(partition(config, len(session.nodes))))
    examples = data.train.select(torch.from_numpy(everything))
    model = session.task.new_model()
    for number in range(1, config.num_server_rounds + 1):
        total = config.local_epochs * len(examples)
        with (
            session.directory.phase("training"),
            track(total, f"centralized training {number}", "images") as progress,
        ):
            this = LocalRound(config.local_epochs, number)
            # The stream of a first client: with one client, federated training is this to the last bit.
            generator = seeded("client", config.seed, number, 0)
            session.task.train(model, examples, this, generator, callback=progress.update)
        if number == config.num_server_rounds or number % config.evaluate_every == 0:
            session.evaluate(number, model)
    return model


def run_local_only(session: Session) -> nn.Module:
    """Let each client train alone for the whole budget of epochs; report the mean over clients.

    The returned model is the best client's.
    """
    config = session.config
    results, models = _train_alone(session)
    if len(results) < config.min_nodes:
        incidents = [*session.failures, *session.rejected]
        raise TooFewRepliesError(explain("local training", len(results), config.min_nodes, incidents))
    headline = session.task.headline
    session.outcome[f"client_{headline}"] = {
        site: results[site, node][headline] for site, node in sorted(results)
    }
    names = next(iter(results.values()))
    averages = {name: mean(metrics[name] for metrics in results.values()) for name in names}
    session.log_round(config.num_server_rounds, Evaluation(averages))
    # The site decides between equals, not who replied first.
    return models[max(results, key=lambda key: (session.task.quality(results[key]), key))]


def _train_alone(
    session: Session,
) -> tuple[dict[tuple[str, int], dict[str, float]], dict[tuple[str, int], nn.Module]]:
    config = session.config
    arrays = state_to_arrays(session.task.new_model().state_dict())
    budget = config.local_epochs * config.num_server_rounds
    content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({"epochs": budget, "server-round": 1})})
    requests = [Message(content, node, MessageType.TRAIN) for node in session.nodes]
    results: dict[tuple[str, int], dict[str, float]] = {}
    models: dict[tuple[str, int], nn.Module] = {}
    with session.directory.phase("local training"):
        for node, reply in pull_each(session.grid, requests, timeout=config.node_timeout):
            if reply.has_error():
                session.failures.append(Incident.of_error(str(node), "train", reply))
                continue
            try:
                check_trained(reply.content, {ARRAYS: arrays})
            except UploadError as error:
                session.rejected.append(Incident(str(node), "train", str(error), site_name(reply)))
                continue
            key = site_name(reply), node
            models[key] = session.model_of(arrays_to_state(next(iter(reply.content.array_records.values()))))
            results[key] = session.task.evaluate(models[key], session.dataset, final=True).metrics
            log.info("client %s alone: %s", key[0], session.task.describe(results[key]))
    return results, models
