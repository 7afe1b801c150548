"""Two baselines without a strategy: all data in one place, and no exchange at all."""

from __future__ import annotations

from statistics import mean

import numpy as np
import torch
from flwr.app import Message, MessageType, RecordDict
from torch import nn

from fgl_app.algorithms.randomness import seeded_generator
from fgl_app.algorithms.types import State
from fgl_app.data.partitions import partition
from fgl_app.messages.keys import ARRAYS, CONFIG, EPOCHS, NUM_ROUNDS, SERVER_ROUND
from fgl_app.messages.replies import check_trained
from fgl_app.messages.sites import site_name
from fgl_app.messages.validation import UploadError
from fgl_app.messages.weights import arrays_to_state
from fgl_app.progress import log, track
from fgl_app.server.session import Session
from fgl_app.strategies.exchange import ClientFailure, iter_replies, too_few_replies, unresponsive_nodes
from fgl_app.tasks.task import Evaluation, LocalRound

PHASE = "local training"


def run_centralized(session: Session) -> nn.Module:
    """Train on all clients' examples in one place, as an upper bound."""
    config, data = session.config, session.dataset
    indices = np.sort(np.concatenate(partition(config, len(session.nodes))))
    examples = data.train.select(torch.from_numpy(indices))
    model = session.task.new_model()
    for number in range(1, config.num_server_rounds + 1):
        total = config.local_epochs * len(examples)
        with (
            session.directory.phase("training"),
            track(total, f"centralized training {number}", "images") as progress,
        ):
            local_round = LocalRound(config.local_epochs, number)
            # The first client's generator: with one client, federated training gives the same bits.
            generator = seeded_generator("client", config.seed, number, 0)
            session.task.train(model, examples, local_round, generator, callback=progress.update)
        session.evaluator.evaluate_if_due(number, model)
    return model


def run_local_only(session: Session) -> nn.Module:
    """Train each client alone for all rounds; record the mean over clients and return the best model."""
    config, task = session.config, session.task
    states = _train_alone(session)
    results: dict[tuple[str, int], dict[str, float]] = {}
    best = best_score = None
    # In the order of sites: of equal models the first wins, whatever the order of the replies.
    for key in sorted(states):
        model = task.model_with(states.pop(key))
        with session.directory.phase("evaluation"):
            evaluation = task.evaluate(model, session.dataset, final=True)
        session.evaluator.check_finite(config.num_server_rounds, evaluation)
        metrics = results[key] = evaluation.metrics
        log.info("client %s alone: %s", key[0], task.log_text(metrics))
        if best_score is None or task.score(metrics) > best_score:
            best, best_score = model, task.score(metrics)
    assert best is not None
    session.state.results[f"client_{task.primary_metric}"] = {
        site: metrics[task.primary_metric] for (site, _), metrics in results.items()
    }
    names = next(iter(results.values()))
    averages = {name: mean(metrics[name] for metrics in results.values()) for name in names}
    session.evaluator.record(config.num_server_rounds, Evaluation(averages))
    return best


def _train_alone(session: Session) -> dict[tuple[str, int], State]:
    """Return each client's weights after all rounds, by site name and node id."""
    config, state = session.config, session.state
    arrays = session.initial_arrays()
    request = session.request_config(
        {EPOCHS: config.local_epochs, SERVER_ROUND: 1, NUM_ROUNDS: config.num_server_rounds}
    )
    content = RecordDict({ARRAYS: arrays, CONFIG: request})
    requests = [Message(content, node, MessageType.TRAIN, ttl=config.node_timeout) for node in session.nodes]
    states: dict[tuple[str, int], State] = {}
    heard: set[int] = set()
    with session.directory.phase(PHASE):
        for node, reply in iter_replies(session.grid, requests, timeout=config.node_timeout):
            heard.add(node)
            if reply.has_error():
                state.failures.append(ClientFailure.from_error_reply(str(node), PHASE, reply))
                continue
            try:
                check_trained(reply.content, {ARRAYS: arrays})
            except UploadError as error:
                state.rejected.append(ClientFailure(str(node), PHASE, str(error), site_name(reply)))
                continue
            received = next(iter(reply.content.array_records.values()))
            states[site_name(reply), node] = arrays_to_state(received)
            log.info("%s: client %d of %d is done", PHASE, len(states), len(requests))
    state.failures += unresponsive_nodes(PHASE, requests, heard, config.node_timeout)
    if len(states) < config.min_nodes:
        raise too_few_replies(PHASE, len(states), config.min_nodes, [*state.failures, *state.rejected])
    return states
