"""What every method needs on the server, in one place: data, model, ledger, run directory."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAdam, FedAvg, FedProx, FedYogi, Strategy
from torch import nn

from fgl_app.algorithms.classification import evaluate
from fgl_app.algorithms.types import State
from fgl_app.config import RunConfig
from fgl_app.data.partitions import label_counts, partition
from fgl_app.data.sources import ImageDataset, load_dataset
from fgl_app.methods.settings import new_classifier
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.models.classifiers import save_classifier
from fgl_app.models.devices import resolve_device
from fgl_app.progress import log
from fgl_app.records import arrays_to_state, load_state, metric_record, state_to_arrays
from fgl_app.results.plots import plot_accuracy, plot_label_distribution, plot_traffic
from fgl_app.results.report import SETUP_PHASE, write_report
from fgl_app.results.run_directory import RunDirectory, versions
from fgl_app.strategies.exchange import Incident, wait_for_nodes
from fgl_app.strategies.fgl import EMBED
from fgl_app.strategies.metered_grid import MeteredGrid


class Session:
    """A run on the server.

    Parameters
    ----------
    config : RunConfig
        The validated config.
    directory : RunDirectory
        Where results go.
    grid : Grid
        Flower's grid; :attr:`grid` counts what passes through it.
    """

    def __init__(self, config: RunConfig, directory: RunDirectory, grid: Grid) -> None:
        self.config = config
        self.directory = directory
        self.ledger = TrafficLedger()
        self.grid = MeteredGrid(grid, self.ledger, phase_names={EMBED: SETUP_PHASE})
        self.device = resolve_device(config.device)
        self.accuracies: list[tuple[int, float]] = []
        self.rejected: list[Incident] = []
        self.failures: list[Incident] = []
        self.outcome: dict[str, object] = {}

    @cached_property
    def dataset(self) -> ImageDataset:
        """The data set: its test split, its class names, and its training split for reference points."""
        return load_dataset(self.config.dataset, self.config.image_size)

    @cached_property
    def nodes(self) -> list[int]:
        """The connected nodes, once enough of them are and the data can be split over them."""
        config = self.config
        nodes = wait_for_nodes(
            self.grid, minimum=config.min_nodes, expected=config.num_clients, timeout=config.node_timeout
        )
        partition(config, len(nodes))
        return nodes

    def new_model(self) -> nn.Module:
        """Return a classifier with the seeded initial weights, on the server's device."""
        data = self.dataset
        return new_classifier(self.config, data.test, len(data.class_names)).to(self.device)

    def model_of(self, state: State) -> nn.Module:
        """Return a classifier with these weights."""
        model = self.new_model()
        load_state(model, state)
        return model

    def evaluate_round(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate the global model on the test split; fits ``Strategy.start(evaluate_fn=...)``."""
        if server_round == 0:
            return None
        accuracy, loss = evaluate(self.model_of(arrays_to_state(arrays)), self.dataset.test)
        self.log_round(server_round, accuracy, loss)
        return metric_record({"accuracy": accuracy, "loss": loss})

    def log_round(self, server_round: int, accuracy: float, loss: float) -> None:
        """Write a round's result down and say it."""
        traffic = self.ledger.totals()
        self.accuracies.append((server_round, accuracy))
        self.outcome |= {"accuracy": accuracy, "loss": loss}
        self.directory.log(
            {
                "event": "round",
                "round": server_round,
                "accuracy": accuracy,
                "loss": loss,
                "uplink_bytes": traffic["uplink"],
                "downlink_bytes": traffic["downlink"],
            }
        )
        total = self.config.num_server_rounds
        log.info("round %d/%d: accuracy %.1f %%, loss %.3f", server_round, total, 100 * accuracy, loss)

    def inner_strategy(self) -> Strategy:
        """Return the Flower strategy that the config names, asking every node in each round."""
        # A node that is lost must not leave the run waiting for it, so no more nodes than needed.
        sampling: dict[str, Any] = {
            "min_train_nodes": self.config.min_nodes,
            "min_available_nodes": self.config.min_nodes,
            "fraction_evaluate": 0.0,
        }
        if self.config.inner_strategy == "fedprox":
            return FedProx(**sampling, proximal_mu=self.config.proximal_mu)
        if self.config.inner_strategy == "fedadam":
            return FedAdam(**sampling, eta=self.config.fedopt_learning_rate)
        if self.config.inner_strategy == "fedyogi":
            return FedYogi(**sampling, eta=self.config.fedopt_learning_rate)
        return FedAvg(**sampling)

    def run_rounds(self, strategy: Strategy) -> ArrayRecord:
        """Run a strategy from the seeded initial weights and return its last global weights."""
        config = self.config
        result = strategy.start(
            self.grid,
            state_to_arrays(self.new_model().state_dict()),
            num_rounds=config.num_server_rounds,
            timeout=config.node_timeout,
            train_config=ConfigRecord({"epochs": config.local_epochs}),
            evaluate_fn=self.evaluate_round,
        )
        assert result.arrays is not None, "checked strategies return arrays or raise"
        return result.arrays

    def note_incidents(self, rejected: Iterable[Incident], failures: Iterable[Incident]) -> None:
        """Keep what went wrong with single nodes for the summary."""
        self.rejected.extend(rejected)
        self.failures.extend(failures)

    def plot_label_counts(self, counts: np.ndarray) -> None:
        """Draw who holds which labels; counts is int64 of shape (clients, classes)."""
        path = self.directory.path / "label_distribution.png"
        plot_label_distribution(counts, self.dataset.class_names, path)

    def plot_partition(self) -> None:
        """Draw who holds which labels, from the config: in simulation the split is no secret."""
        self.plot_label_counts(label_counts(self.config, len(self.nodes)))

    def save_model(self, model: nn.Module) -> None:
        """Save the trained classifier to ``classifier/``."""
        save_classifier(model, self.directory.path / "classifier", self.dataset.class_names)

    def finish(self, error: BaseException | None) -> None:
        """Write plots, ``summary.json`` and ``report.html``, whether the run completed or failed."""
        if self.accuracies:
            plot_accuracy(self.accuracies, self.directory.path / "accuracy.png")
        traffic = self.ledger.by_phase()
        if traffic:
            plot_traffic(traffic, self.directory.path / "traffic.png")
        self.directory.write_summary(self._summary(error))
        write_report(self.directory.path)

    def _summary(self, error: BaseException | None) -> dict[str, object]:
        config, traffic = self.config, self.ledger.by_phase()
        outcome = {"status": "completed"}
        if error is not None:
            outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        return {
            **outcome,
            "method": config.method,
            "strategy": config.what_runs,
            "dataset": config.dataset,
            "seed": config.seed,
            "num_clients": len(self.__dict__.get("nodes", [])),
            "rounds": self.accuracies[-1][0] if self.accuracies else 0,
            **self.outcome,
            "seconds": self.directory.seconds,
            **{
                f"{way}_bytes": {"total": self.ledger.totals()[way]}
                | {phase: counts[way] for phase, counts in traffic.items()}
                for way in ("uplink", "downlink")
            },
            "rejected_uploads": [incident.to_json() for incident in self.rejected],
            "failures": [incident.to_json() for incident in self.failures],
            "versions": versions(),
        }
