"""Evaluation of the global model after a round: by the server, or by the sites where it has no test set."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from torch import nn

from fgl_app.algorithms.types import LabeledImages
from fgl_app.config import NO_DATASET, RunConfig
from fgl_app.data.types import ImageDataset
from fgl_app.messages.replies import metric_record, num_examples
from fgl_app.messages.weights import arrays_to_state
from fgl_app.progress import log
from fgl_app.results.plots import plot_image_grid
from fgl_app.results.run_directory import RunDirectory
from fgl_app.results.trackers import Trackers
from fgl_app.server.run_state import RunState
from fgl_app.tasks import Task
from fgl_app.tasks.task import Evaluation


class RoundEvaluator:
    """Evaluate rounds and write their results to the run directory, the state, the trackers and the log.

    Parameters
    ----------
    config : RunConfig
        The run's config.
    directory : RunDirectory
        Gets the events and the pictures of samples.
    state : RunState
        Gets the curve, the samples and the results.
    trackers : Trackers
        Get the metrics of each round.
    task : Task
        Evaluates a model.
    dataset : ImageDataset
        The server's data.
    """

    def __init__(
        self,
        config: RunConfig,
        directory: RunDirectory,
        state: RunState,
        trackers: Trackers,
        *,
        task: Task,
        dataset: ImageDataset,
    ) -> None:
        self.config, self.directory, self.state = config, directory, state
        self.trackers, self.task, self.dataset = trackers, task, dataset
        self._sites = Evaluation({})

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate the global model when it is due; fits ``Strategy.start(evaluate_fn=...)``."""
        if not self._is_due(server_round) or server_round <= self.state.last_evaluated:
            return None
        metrics = None
        if self.config.dataset == NO_DATASET:
            self.record(server_round, self._sites)
        else:
            model = self.task.model_with(arrays_to_state(arrays))
            metrics = metric_record(self.evaluate(server_round, model))
        self.state.save(self.directory.path, self.directory.seconds)
        return metrics

    def evaluate(self, server_round: int, model: nn.Module) -> dict[str, float]:
        """Evaluate a model after a round, record the result, and return its metrics."""
        with self.directory.phase("evaluation"):
            evaluation = self.task.evaluate(model, self.dataset, final=self._is_final(server_round))
        self.check_finite(server_round, evaluation)
        self.record(server_round, evaluation)
        return evaluation.metrics

    def check_finite(self, server_round: int, evaluation: Evaluation) -> None:
        """Raise ValueError when a metric of a model is NaN or infinite."""
        for name, value in evaluation.metrics.items():
            if not math.isfinite(value):
                raise ValueError(
                    f"round {server_round}: {name} of the global model is {value}; lower the learning rates"
                )

    def evaluate_if_due(self, server_round: int, model: nn.Module) -> None:
        """Evaluate a model after a round when the config asks for it."""
        if self._is_due(server_round):
            self.evaluate(server_round, model)

    def aggregate_sites(self, replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        """Aggregate the sites' metrics of a round; fits ``evaluate_metrics_aggr_fn``."""
        if not sum(map(num_examples, replies)):
            raise ValueError(
                "no site has a test split; give the server a dataset, or the sites' data a split 'test'"
            )
        metrics = aggregate_metricrecords(replies, weighted_by)
        self._sites = Evaluation({name: float(cast(float, value)) for name, value in metrics.items()})
        return metrics

    def record(self, server_round: int, evaluation: Evaluation) -> None:
        """Record the result of a round."""
        metrics, traffic = evaluation.metrics, self.state.traffic.totals()
        primary = self.task.primary_metric
        self.state.curve.append((server_round, metrics[primary]))
        by_domain = {f"{primary}_by_domain": evaluation.by_domain} if evaluation.by_domain else {}
        self.state.results |= {**metrics, **self.task.evaluation_details, **by_domain}
        bytes_so_far = {"uplink_bytes": traffic["uplink"], "downlink_bytes": traffic["downlink"]}
        self.directory.log({"event": "round", "round": server_round, **metrics, **by_domain, **bytes_so_far})
        self.trackers.log(server_round, metrics, self.state.traffic.by_phase(), self.directory.seconds)
        if evaluation.samples is not None:
            self._plot_samples(server_round, evaluation.samples)
        text = self.task.log_text(metrics)
        log.info("round %d/%d: %s", server_round, self.config.num_server_rounds, text)

    def _is_final(self, server_round: int) -> bool:
        return server_round == self.config.num_server_rounds

    def _is_due(self, server_round: int) -> bool:
        every = self.config.evaluate_every
        return server_round > 0 and (self._is_final(server_round) or server_round % every == 0)

    def _plot_samples(self, server_round: int, samples: LabeledImages) -> None:
        """Plot the samples of a round, and one sample of each class for every round so far."""
        folder = self.directory.path / "samples"
        folder.mkdir(exist_ok=True)
        images, labels = samples.arrays(), samples.labels.numpy()
        plot_image_grid(
            images,
            labels,
            self.task.label_names,
            folder / f"round-{server_round:03d}.png",
            title=f"Samples after round {server_round}",
        )
        by_round = self.state.samples
        by_round[server_round] = images[: len(self.dataset.class_names)]
        plot_image_grid(
            np.concatenate(list(by_round.values())),
            np.concatenate([np.full(len(row), number) for number, row in enumerate(by_round.values())]),
            [f"round {number}" for number in by_round],
            self.directory.path / "samples_by_round.png",
            title="Samples from the same noise",
            rows=("round", "rounds"),
        )
