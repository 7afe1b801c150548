"""The strategies of the ordinary rounds, by the values of the config key ``inner-strategy``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx, FedYogi, Strategy

from fgl_app.config import NO_DATASET, RunConfig
from fgl_app.strategies.buffers import PlainBuffersStrategy
from fgl_app.strategies.scaffold import ScaffoldStrategy

AggregateMetrics = Callable[[list[RecordDict], str], MetricRecord]


def inner_strategy(config: RunConfig, aggregate_sites: AggregateMetrics) -> Strategy:
    """Return the config's Flower strategy, with every node in each round.

    Parameters
    ----------
    config : RunConfig
        The validated config.
    aggregate_sites : Callable[[list[RecordDict], str], MetricRecord]
        Aggregates the sites' evaluations, used when the server has no test set.
    """
    # The minimum, not the number of clients: a lost node must not keep the run waiting.
    options: dict[str, Any] = {
        "min_train_nodes": config.min_nodes,
        "min_available_nodes": config.min_nodes,
        "min_evaluate_nodes": config.min_nodes,
        "fraction_evaluate": 1.0 if config.dataset == NO_DATASET else 0.0,
        "evaluate_metrics_aggr_fn": aggregate_sites,
    }
    strategies: dict[str, Callable[[], Strategy]] = {
        "fedprox": lambda: FedProx(**options, proximal_mu=config.proximal_mu),
        "fedadam": lambda: PlainBuffersStrategy(FedAdam(**options, eta=config.fedopt_learning_rate)),
        "fedyogi": lambda: PlainBuffersStrategy(FedYogi(**options, eta=config.fedopt_learning_rate)),
        "scaffold": lambda: ScaffoldStrategy(FedAvg(**options)),
    }
    # A baseline in place of a strategy, such as "auxiliary-only", needs none of these.
    return strategies.get(config.inner_strategy, lambda: FedAvg(**options))()
