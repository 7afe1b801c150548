"""The strategies of the ordinary rounds, by the names that the config gives them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx, FedYogi, Strategy

from fgl_app.config import NO_DATASET, RunConfig
from fgl_app.strategies.scaffold import ScaffoldStrategy

Average = Callable[[list[RecordDict], str], MetricRecord]


def inner_strategy(config: RunConfig, average: Average) -> Strategy:
    """Return the Flower strategy that the config names, asking every node in each round.

    Parameters
    ----------
    config : RunConfig
        The validated config.
    average : Average
        Puts the sites' evaluations together, where the server has no test set of its own.
    """
    # A node that is lost must not leave the run waiting for it, so no more nodes than needed.
    sampling: dict[str, Any] = {
        "min_train_nodes": config.min_nodes,
        "min_available_nodes": config.min_nodes,
        "min_evaluate_nodes": config.min_nodes,
        "fraction_evaluate": 1.0 if config.dataset == NO_DATASET else 0.0,
        "evaluate_metrics_aggr_fn": average,
    }
    if config.inner_strategy == "fedprox":
        return FedProx(**sampling, proximal_mu=config.proximal_mu)
    if config.inner_strategy == "fedadam":
        return FedAdam(**sampling, eta=config.fedopt_learning_rate)
    if config.inner_strategy == "fedyogi":
        return FedYogi(**sampling, eta=config.fedopt_learning_rate)
    if config.inner_strategy == "scaffold":
        return ScaffoldStrategy(FedAvg(**sampling))
    return FedAvg(**sampling)
