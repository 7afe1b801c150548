"""What every method needs on the server, in one place: data, model, ledger, run directory."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from functools import cached_property, partial
from typing import Any, cast

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_metricrecords
from torch import nn

from fgl_app.algorithms.types import LabeledImages, State
from fgl_app.code_version import code_version
from fgl_app.config import NO_DATASET, RunConfig
from fgl_app.data.partitions import label_counts, partition
from fgl_app.data.sources import config_dataset
from fgl_app.data.types import ImageDataset
from fgl_app.messages.records import (
    ARRAYS,
    CHANNELS,
    CLASS_NAMES,
    CODE,
    RUN,
    arrays_to_state,
    content_bytes,
    load_weights,
    metric_record,
    state_to_arrays,
)
from fgl_app.messages.uploads import num_examples
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.progress import log
from fgl_app.results.plots import plot_image_grid, plot_label_distribution
from fgl_app.results.report import SETUP_PHASE, write_report
from fgl_app.results.run_directory import RunDirectory, versions
from fgl_app.results.trackers import Trackers
from fgl_app.server.inner_strategies import inner_strategy
from fgl_app.server.session_state import (
    CHECKPOINT,
    delete_state_files,
    log_resume,
    restore_session,
    save_session,
)
from fgl_app.strategies.checked import CheckedStrategy
from fgl_app.strategies.checkpointed import CheckpointedStrategy
from fgl_app.strategies.exchange import ClientFailure, wait_for_nodes
from fgl_app.strategies.fedddpm import LOCAL_DIFFUSION
from fgl_app.strategies.fgl import EMBED
from fgl_app.strategies.metered_grid import MeteredGrid
from fgl_app.strategies.state import Stateful
from fgl_app.tasks import Task, make_task
from fgl_app.tasks.task import Evaluation

SETUP_MESSAGES = dict.fromkeys((EMBED, LOCAL_DIFFUSION), SETUP_PHASE)


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
        self.curve: list[tuple[int, float]] = []
        self.samples: dict[int, np.ndarray] = {}
        self._of_sites = Evaluation({})
        self.rejected: list[ClientFailure] = []
        self.failures: list[ClientFailure] = []
        self.outcome: dict[str, Any] = {}
        self.ledger = TrafficLedger()
        # By this clients know the run, also when it is resumed: Flower then gives it another number.
        self.token = secrets.token_hex(8)
        if config.resume:
            restore_session(self)
        self.trackers = Trackers(
            config.tracker_names, directory.path, config.to_run_config(), after=self.last_evaluated
        )
        self.grid = MeteredGrid(
            grid,
            self.ledger,
            phase_names=SETUP_MESSAGES,
            waiting=partial(directory.phase, "clients' rounds"),
            max_reply_bytes=int(config.max_upload_mb * 1e6),
        )

    @property
    def has_uploads(self) -> bool:
        """Whether this run goes on from one in which the uploads of the set-up were in."""
        return self.config.resume and (self.directory.path / CHECKPOINT).is_file()

    @cached_property
    def dataset(self) -> ImageDataset:
        """The data set: its test split, its class names, and its training split for reference points."""
        return config_dataset(self.config)

    @cached_property
    def nodes(self) -> list[int]:
        """The connected nodes, once enough of them are and the data can be split over them."""
        config = self.config
        nodes = wait_for_nodes(
            self.grid, minimum=config.min_nodes, expected=config.num_clients, timeout=config.node_timeout
        )
        if not config.clients_own_data:
            partition(config, len(nodes))
        return nodes

    @cached_property
    def task(self) -> Task:
        """What is trained."""
        data = self.dataset
        return make_task(self.config, data.class_names, data.test.images.shape[1])

    def model_of(self, state: State) -> nn.Module:
        """Return a model with these weights."""
        model = self.task.new_model()
        load_weights(model, state)
        return model

    def evaluate_round(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate the global model when it is due; fits ``Strategy.start(evaluate_fn=...)``."""
        final = server_round == self.config.num_server_rounds
        due = server_round > 0 and (final or server_round % self.config.evaluate_every == 0)
        metrics = None
        if due and server_round > self.last_evaluated:
            if self.config.dataset == NO_DATASET:
                self.log_round(server_round, self._of_sites)
            else:
                metrics = metric_record(self.evaluate(server_round, self.model_of(arrays_to_state(arrays))))
            save_session(self)
        return metrics

    def _average_sites(self, replies: list[RecordDict], weighted_by: str) -> MetricRecord:
        """Put the sites' evaluations of a round together, and keep the result for that round's log."""
        if not sum(map(num_examples, replies)):
            raise ValueError(
                "no site has a test split; give the server a dataset, or the sites' data a split 'test'"
            )
        metrics = aggregate_metricrecords(replies, weighted_by)
        self._of_sites = Evaluation({name: float(cast(float, value)) for name, value in metrics.items()})
        return metrics

    @property
    def last_evaluated(self) -> int:
        """The last round that was evaluated; 0 before the first."""
        return self.curve[-1][0] if self.curve else 0

    def evaluate(self, server_round: int, model: nn.Module) -> dict[str, float]:
        """Evaluate a model, write the result down as a round's, and return it."""
        final = server_round == self.config.num_server_rounds
        with self.directory.phase("evaluation"):
            evaluation = self.task.evaluate(model, self.dataset, final=final)
        self.log_round(server_round, evaluation)
        return evaluation.metrics

    def log_round(self, server_round: int, evaluation: Evaluation) -> None:
        """Write a round's result down and say it."""
        metrics, traffic = evaluation.metrics, self.ledger.totals()
        self.curve.append((server_round, metrics[self.task.primary_metric]))
        by_domain = (
            {f"{self.task.primary_metric}_by_domain": evaluation.by_domain} if evaluation.by_domain else {}
        )
        self.outcome |= {**metrics, **self.task.evaluation_details, **by_domain}
        bytes_so_far = {"uplink_bytes": traffic["uplink"], "downlink_bytes": traffic["downlink"]}
        self.directory.log({"event": "round", "round": server_round, **metrics, **by_domain, **bytes_so_far})
        self.trackers.log(server_round, metrics, self.ledger.by_phase(), self.directory.seconds)
        if evaluation.samples is not None:
            self._keep_samples(server_round, evaluation.samples)
        text = self.task.log_text(metrics)
        log.info("round %d/%d: %s", server_round, self.config.num_server_rounds, text)

    def _keep_samples(self, server_round: int, samples: LabeledImages) -> None:
        """Draw a round's samples, and one of each class beside those of the rounds before."""
        (self.directory.path / "samples").mkdir(exist_ok=True)
        title = f"Samples after round {server_round}"
        self.plot_images(samples, f"samples/round-{server_round:03d}.png", title)
        self.samples[server_round] = samples.arrays()[: len(self.dataset.class_names)]
        rows = [np.full(len(row), number) for number, row in enumerate(self.samples.values())]
        plot_image_grid(
            np.concatenate(list(self.samples.values())),
            np.concatenate(rows),
            [f"round {number}" for number in self.samples],
            self.directory.path / "samples_by_round.png",
            title="Samples from the same noise",
            rows=("round", "rounds"),
        )

    def plot_images(self, images: LabeledImages, name: str, title: str) -> None:
        """Draw images by class into the run directory."""
        path, names = self.directory.path / name, self.task.label_names
        plot_image_grid(images.arrays(), images.labels.numpy(), names, path, title=title)

    def checked_strategy(self) -> CheckedStrategy:
        """Return the Flower strategy that the config names, with its replies checked."""
        config = self.config
        return CheckedStrategy(
            inner_strategy(config, self._average_sites),
            min_replies=config.min_nodes,
            timeout=config.node_timeout,
        )

    def run_rounds(self, strategy: Strategy, parts: Mapping[str, Stateful] | None = None) -> ArrayRecord:
        """Run a strategy from the seeded initial weights and return its last global weights.

        Parameters
        ----------
        strategy : Strategy
            The method's, with its checks.
        parts : Mapping[str, Stateful] or None, default None
            What the strategy's callables keep over rounds.
        """
        config = self.config
        file = self.directory.path / CHECKPOINT
        checkpointed = CheckpointedStrategy(strategy, file, parts=parts, on_saved=lambda: save_session(self))
        if config.resume:
            log_resume(self, restored=checkpointed.restore(), rounds_done=checkpointed.rounds_done)
        save_session(self)
        result = checkpointed.start(
            self.grid,
            self.initial_arrays(),
            num_rounds=config.num_server_rounds,
            timeout=config.node_timeout,
            train_config=self.told({"epochs": config.local_epochs}),
            evaluate_config=self.told({}),
            evaluate_fn=self.evaluate_round,
        )
        assert result.arrays is not None, "checked strategies return arrays or raise"
        return result.arrays

    def initial_arrays(self) -> ArrayRecord:
        """Return the seeded initial weights, and note how large they are when they travel."""
        arrays = state_to_arrays(self.task.new_model().state_dict())
        # What one client sends in a round of FedAvg: the report sets the run's bytes beside it.
        self.outcome["model_bytes"] = content_bytes(RecordDict({ARRAYS: arrays}))
        return arrays

    def told(self, values: Mapping[str, int]) -> ConfigRecord:
        """Return what a request tells a client: some values, which run this is and which code runs."""
        told = ConfigRecord({**values, RUN: self.token, CODE: code_version()})
        if self.config.clients_own_data:
            told[CLASS_NAMES] = list(self.dataset.class_names)
            told[CHANNELS] = self.task.channels
        return told

    def note_incidents(self, rejected: Iterable[ClientFailure], failures: Iterable[ClientFailure]) -> None:
        """Keep what went wrong with single nodes for the summary."""
        self.rejected.extend(rejected)
        self.failures.extend(failures)

    def plot_label_counts(self, counts: np.ndarray) -> None:
        """Draw who holds which labels; counts is int64 of shape (clients, classes)."""
        path = self.directory.path / "label_distribution.png"
        plot_label_distribution(counts, self.dataset.class_names, path)

    def plot_partition(self) -> None:
        """Draw who holds which labels, from the config: where it splits the data, that is no secret."""
        if self.config.clients_own_data:
            return
        self.plot_label_counts(label_counts(self.config, len(self.nodes)))

    def save_model(self, model: nn.Module) -> None:
        """Save the trained model to a folder of its kind's name."""
        self.task.save(model, self.directory.path / self.task.folder)

    def finish(self, error: BaseException | None) -> None:
        """Write plots, ``summary.json`` and ``report.html``, whether the run completed or failed."""
        self.directory.write_summary(self._summary(error))
        write_report(self.directory.path)
        self.trackers.finish()
        if error is None:
            delete_state_files(self.directory.path)

    def _skipped(self) -> tuple[str, ...]:
        # A run that failed before its data were loaded does not load them to say so.
        data: ImageDataset | None = self.__dict__.get("dataset")
        return data.skipped if data is not None else ()

    def _summary(self, error: BaseException | None) -> dict[str, object]:
        config, traffic = self.config, self.ledger.by_phase()
        outcome = {"status": "completed"}
        if error is not None:
            outcome = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        return {
            **outcome,
            "method": config.method,
            "strategy": config.run_label,
            "dataset": config.dataset,
            "seed": config.seed,
            "num_clients": len(self.__dict__.get("nodes", [])),
            "rounds": self.curve[-1][0] if self.curve else 0,
            **self.outcome,
            "seconds": self.directory.seconds,
            **{
                f"{way}_bytes": {"total": self.ledger.totals()[way]}
                | {phase: counts[way] for phase, counts in traffic.items()}
                for way in ("uplink", "downlink")
            },
            "rejected_uploads": [incident.to_json() for incident in self.rejected],
            "skipped_images": list(self._skipped()),
            "failures": [incident.to_json() for incident in self.failures],
            "versions": versions(),
        }
