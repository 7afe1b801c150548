"""Two reference points without a strategy: all data in one place, and no exchange at all."""

from __future__ import annotations

from statistics import mean

import numpy as np
import torch
from flwr.app import Message, MessageType, RecordDict
from torch import nn

from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import State
from fgl_app.data.partitions import partition
from fgl_app.messages.records import ARRAYS, CONFIG, arrays_to_state, site_name
from fgl_app.messages.uploads import UploadError, check_trained
from fgl_app.progress import log, track
from fgl_app.server.session import Session
from fgl_app.strategies.exchange import (
    ClientFailure,
    TooFewRepliesError,
    explain,
    iter_replies,
    unresponsive_nodes,
)
from fgl_app.tasks.task import Evaluation, LocalRound

PHASE = "local training"


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
            local_round = LocalRound(config.local_epochs, number)
            # The stream of a first client: with one client, federated training is this to the last bit.
            generator = seeded_generator("client", config.seed, number, 0)
            session.task.train(model, examples, local_round, generator, callback=progress.update)
        if number == config.num_server_rounds or number % config.evaluate_every == 0:
            session.evaluate(number, model)
    return model


def run_local_only(session: Session) -> nn.Module:
    """Let each client train alone, for all rounds; report the mean over clients.

    The returned model is the best client's.
    """
    config, task = session.config, session.task
    states = _train_alone(session)
    results: dict[tuple[str, int], dict[str, float]] = {}
    best = best_score = None
    # In the order of sites: that decides between equals, not who replied first.
    for key in sorted(states):
        model = session.model_of(states.pop(key))
        with session.directory.phase("evaluation"):
            metrics = results[key] = task.evaluate(model, session.dataset, final=True).metrics
        log.info("client %s alone: %s", key[0], task.log_text(metrics))
        if best_score is None or task.score(metrics) > best_score:
            best, best_score = model, task.score(metrics)
    assert best is not None
    session.outcome[f"client_{task.primary_metric}"] = {
        site: metrics[task.primary_metric] for (site, _), metrics in results.items()
    }
    names = next(iter(results.values()))
    averages = {name: mean(metrics[name] for metrics in results.values()) for name in names}
    session.log_round(config.num_server_rounds, Evaluation(averages))
    return best


def _train_alone(session: Session) -> dict[tuple[str, int], State]:
    """Return each client's weights after all rounds, by site name and node id."""
    config = session.config
    arrays = session.initial_arrays()
    told = session.told(
        {"epochs": config.local_epochs, "server-round": 1, "rounds": config.num_server_rounds}
    )
    content = RecordDict({ARRAYS: arrays, CONFIG: told})
    requests = [Message(content, node, MessageType.TRAIN, ttl=config.node_timeout) for node in session.nodes]
    states: dict[tuple[str, int], State] = {}
    heard: set[int] = set()
    with session.directory.phase(PHASE):
        for node, reply in iter_replies(session.grid, requests, timeout=config.node_timeout):
            heard.add(node)
            if reply.has_error():
                session.failures.append(ClientFailure.from_error_reply(str(node), PHASE, reply))
                continue
            try:
                check_trained(reply.content, {ARRAYS: arrays})
            except UploadError as error:
                session.rejected.append(ClientFailure(str(node), PHASE, str(error), site_name(reply)))
                continue
            received = next(iter(reply.content.array_records.values()))
            states[site_name(reply), node] = arrays_to_state(received)
            log.info("%s: client %d of %d is done", PHASE, len(states), len(requests))
    session.failures += unresponsive_nodes(PHASE, requests, heard, config.node_timeout)
    if len(states) < config.min_nodes:
        incidents = [*session.failures, *session.rejected]
        raise TooFewRepliesError(explain(PHASE, len(states), config.min_nodes, incidents))
    return states
