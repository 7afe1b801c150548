"""``method="classifier"``: a Flower strategy on the classifier, and two reference points without one."""

from __future__ import annotations

from statistics import mean

import numpy as np
import torch
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from torch import nn

from fgl_app.algorithms.classification import evaluate, train
from fgl_app.algorithms.randomness import seeded
from fgl_app.data.partitions import partition
from fgl_app.methods.session import Session
from fgl_app.methods.settings import client_settings
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
from fgl_app.strategies.checked import CheckedStrategy
from fgl_app.strategies.exchange import Incident, TooFewRepliesError, explain, pull_each


def run_classifier(session: Session) -> nn.Module:
    """Run the inner strategy alone and return the last global model."""
    if session.config.inner_strategy == "centralized":
        return _centralized(session)
    if session.config.inner_strategy == "local-only":
        return _local_only(session)
    session.plot_partition()
    log.info("%s over %d clients", session.config.inner_strategy, len(session.nodes))
    strategy = CheckedStrategy(session.inner_strategy(), min_replies=session.config.min_nodes)
    try:
        with session.directory.phase("rounds"):
            arrays = session.run_rounds(strategy)
    finally:
        session.note_incidents(strategy.rejected, strategy.failures)
    return session.model_of(arrays_to_state(arrays))


def _centralized(session: Session) -> nn.Module:
    """Train on all clients' examples in one place: what skew and federation cost, seen from above."""
    config, data = session.config, session.dataset
    everything = np.sort(np.concatenate(partition(config, len(session.nodes))))
    examples = data.train.select(torch.from_numpy(everything))
    model = session.new_model()
    settings = client_settings(config, epochs=config.local_epochs)
    for server_round in range(1, config.num_server_rounds + 1):
        total = config.local_epochs * len(examples)
        with (
            session.directory.phase("training"),
            track(total, f"centralized training {server_round}", "images") as progress,
        ):
            generator = seeded("centralized", config.seed, server_round)
            train(model, examples, settings, generator, callback=progress.update)
        session.log_round(server_round, *evaluate(model, data.test))
    return model


def _local_only(session: Session) -> nn.Module:
    """Let each client train alone for the whole budget of epochs; report the mean over clients.

    The returned model is the best client's.
    """
    config = session.config
    session.plot_partition()
    arrays = state_to_arrays(session.new_model().state_dict())
    budget = config.local_epochs * config.num_server_rounds
    content = RecordDict({ARRAYS: arrays, CONFIG: ConfigRecord({"epochs": budget, "server-round": 1})})
    requests = [Message(content, node, MessageType.TRAIN) for node in session.nodes]
    results: dict[tuple[str, int], tuple[float, float]] = {}
    best, best_model = (-1.0, ""), session.new_model()
    with session.directory.phase("local training"):
        for node, reply in pull_each(session.grid, requests, timeout=config.node_timeout):
            if reply.has_error():
                session.failures.append(Incident.of_error(str(node), "train", reply))
                continue
            try:
                check_trained(reply.content, arrays)
            except UploadError as error:
                session.rejected.append(Incident(str(node), "train", str(error), site_name(reply)))
                continue
            site = site_name(reply)
            model = session.model_of(arrays_to_state(next(iter(reply.content.array_records.values()))))
            accuracy, loss = evaluate(model, session.dataset.test)
            results[site, node] = accuracy, loss
            log.info("client %s alone: accuracy %.1f %%", site, 100 * accuracy)
            # The site decides between equals, not who replied first.
            if (accuracy, site) > best:
                best, best_model = (accuracy, site), model
    if len(results) < config.min_nodes:
        incidents = [*session.failures, *session.rejected]
        raise TooFewRepliesError(explain("local training", len(results), config.min_nodes, incidents))
    session.outcome["client_accuracies"] = {site: results[site, node][0] for site, node in sorted(results)}
    session.log_round(
        config.num_server_rounds,
        mean(accuracy for accuracy, _ in results.values()),
        mean(loss for _, loss in results.values()),
    )
    return best_model
