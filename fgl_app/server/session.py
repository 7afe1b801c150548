"""A run on the server: the data, the task, the strategy of the rounds, and the run directory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property, partial

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from flwr.serverapp import Grid
from torch import nn

from fgl_app.algorithms.types import LabeledImages
from fgl_app.code_version import code_version
from fgl_app.config import METHODS, RunConfig
from fgl_app.data.partitions import label_counts, partition
from fgl_app.data.sources import config_dataset
from fgl_app.data.types import ImageDataset
from fgl_app.messages.keys import ARRAYS, EPOCHS
from fgl_app.messages.requests import encode_request
from fgl_app.messages.sizes import content_bytes
from fgl_app.messages.weights import arrays_to_state, state_to_arrays
from fgl_app.metrics.specs import METRICS
from fgl_app.progress import log
from fgl_app.results.plots import plot_image_grid, plot_label_distribution
from fgl_app.results.report import SETUP_PHASE, write_report
from fgl_app.results.run_directory import RunDirectory
from fgl_app.results.trackers import Trackers
from fgl_app.server.evaluation import RoundEvaluator
from fgl_app.server.inner_strategies import inner_strategy
from fgl_app.server.run_state import CHECKPOINT, RunState, delete_state_files
from fgl_app.server.summary import run_summary
from fgl_app.strategies.checked import CheckedStrategy
from fgl_app.strategies.checkpointed import CheckpointedStrategy
from fgl_app.strategies.exchange import wait_for_nodes
from fgl_app.strategies.metered_grid import MeteredGrid
from fgl_app.strategies.setup_round import SetupRoundStrategy
from fgl_app.strategies.state import Stateful
from fgl_app.strategies.wrapper import WrapperStrategy
from fgl_app.tasks import Task, make_task

SETUP_PHASES = {spec.setup_message: SETUP_PHASE for spec in METHODS.values() if spec.setup_message}


class Session:
    """A run on the server.

    Parameters
    ----------
    config : RunConfig
        The validated config.
    directory : RunDirectory
        Folder of the results.
    grid : Grid
        Flower's grid; :attr:`grid` records the size of each message.
    """

    def __init__(self, config: RunConfig, directory: RunDirectory, grid: Grid) -> None:
        self.config = config
        self.directory = directory
        self.state = RunState.load(directory.path) if config.resume else RunState()
        if config.resume:
            directory.drop_rounds_after(self.state.last_evaluated)
        if self.state.seconds:
            directory.resume_clock(self.state.seconds)
        self.trackers = Trackers(
            config.tracker_names, directory.path, config.to_run_config(), after=self.state.last_evaluated
        )
        self.grid = MeteredGrid(
            grid,
            self.state.traffic,
            phase_names=SETUP_PHASES,
            waiting=partial(directory.phase, "clients' rounds"),
            max_reply_bytes=int(config.max_upload_mb * 1e6),
        )

    @cached_property
    def dataset(self) -> ImageDataset:
        """The server's dataset: test split, class names, and the training split for baselines."""
        return config_dataset(self.config)

    @cached_property
    def nodes(self) -> list[int]:
        """The connected nodes, once there are enough of them and the data can be split over them."""
        config = self.config
        nodes = wait_for_nodes(
            self.grid, minimum=config.min_nodes, expected=config.num_clients, timeout=config.node_timeout
        )
        if not config.clients_own_data:
            partition(config, len(nodes))
        return nodes

    @cached_property
    def task(self) -> Task:
        """The kind of model that is trained, and how."""
        return make_task(self.config, self.dataset.class_names, self.dataset.test.images.shape[1])

    @cached_property
    def evaluator(self) -> RoundEvaluator:
        """Evaluates and records rounds."""
        return RoundEvaluator(
            self.config, self.directory, self.state, self.trackers, task=self.task, dataset=self.dataset
        )

    def checked_strategy(self) -> CheckedStrategy:
        """Return the config's inner strategy with validated replies."""
        config = self.config
        return CheckedStrategy(
            inner_strategy(config, self.evaluator.aggregate_sites),
            min_replies=config.min_nodes,
            timeout=config.node_timeout,
            max_update_ratio=config.max_update_ratio,
            max_weight_ratio=config.max_weight_ratio,
            metric_ranges={spec.key: (0.0, spec.maximum) for spec in METRICS.values()},
        )

    def run(self, strategy: WrapperStrategy, parts: Mapping[str, Stateful] | None = None) -> nn.Module:
        """Run a strategy from the seeded initial weights and return the last global model.

        Parameters
        ----------
        strategy : WrapperStrategy
            The method's strategy, around a checked one.
        parts : Mapping[str, Stateful] or None, default None
            Objects with state that the strategy's callables use, for the checkpoint.
        """
        try:
            arrays = self._run_rounds(strategy, parts)
        finally:
            rejected, failures = strategy.client_failures()
            self.state.rejected += rejected
            self.state.failures += failures
            if capped := strategy.capped_sites():
                self.state.results["capped_sites"] = capped
        return self.task.model_with(arrays_to_state(arrays))

    def _run_rounds(self, strategy: WrapperStrategy, parts: Mapping[str, Stateful] | None) -> ArrayRecord:
        config, file = self.config, self.directory.path / CHECKPOINT
        with ExitStack() as uploads:
            if isinstance(strategy, SetupRoundStrategy) and not (config.resume and file.is_file()):
                uploads.enter_context(self.directory.phase("uploads"))
                strategy.on_collected(uploads.close)
            checkpointed = CheckpointedStrategy(strategy, file, parts=parts, on_saved=self.save_state)
            if config.resume:
                self._log_resume(restored=checkpointed.restore(), rounds_done=checkpointed.rounds_done)
            self.save_state()
            result = checkpointed.start(
                self.grid,
                self.initial_arrays(),
                num_rounds=config.num_server_rounds,
                timeout=config.node_timeout,
                train_config=self.request_config({EPOCHS: config.local_epochs}),
                evaluate_config=self.request_config({}),
                evaluate_fn=self.evaluator,
            )
        assert result.arrays is not None, "checked strategies return arrays or raise"
        return result.arrays

    def initial_arrays(self) -> ArrayRecord:
        """Return the seeded initial weights, and record their serialized size."""
        arrays = state_to_arrays(self.task.new_model().state_dict())
        # What one client sends in a round of FedAvg: the report compares the run's bytes with it.
        self.state.results["model_bytes"] = content_bytes(RecordDict({ARRAYS: arrays}))
        return arrays

    def request_config(self, values: Mapping[str, int]) -> ConfigRecord:
        """Return the config of a request to a client."""
        own_data = self.config.clients_own_data
        return encode_request(
            values,
            run=self.state.token,
            code=code_version(),
            class_names=self.dataset.class_names if own_data else (),
            channels=self.task.channels if own_data else 0,
        )

    def plot_images(self, images: LabeledImages, name: str, title: str) -> None:
        """Plot images by class into the run directory."""
        path = self.directory.path / name
        plot_image_grid(images.arrays(), images.labels.numpy(), self.task.label_names, path, title=title)

    def plot_label_counts(self, counts: np.ndarray) -> None:
        """Plot the examples of each class that each client holds, int64 of shape (clients, classes)."""
        path = self.directory.path / "label_distribution.png"
        plot_label_distribution(counts, self.dataset.class_names, path)

    def plot_partition(self) -> None:
        """Plot the split of the dataset over the clients.

        Skipped when sites own their data: the server does not know the split.
        """
        if not self.config.clients_own_data:
            self.plot_label_counts(label_counts(self.config, len(self.nodes)))

    def save_state(self) -> None:
        """Write the run's state, for a resume."""
        self.state.save(self.directory.path, self.directory.seconds)

    def save_model(self, model: nn.Module) -> None:
        """Save the trained model to the run directory."""
        self.task.save(model, self.directory.path / self.task.folder)

    def finish(self, error: BaseException | None) -> None:
        """Write ``summary.json`` and ``report.html`` of a completed or failed run."""
        # A run that failed early does not load its data or wait for nodes here.
        known = self.__dict__
        summary = run_summary(
            self.config,
            self.state,
            num_clients=len(known.get("nodes", ())),
            seconds=self.directory.seconds,
            skipped_images=known["dataset"].skipped if "dataset" in known else (),
            error=error,
        )
        self.directory.write_summary(summary)
        write_report(self.directory.path)
        self.trackers.finish()
        if error is None:
            delete_state_files(self.directory.path)

    def _log_resume(self, *, restored: bool, rounds_done: int) -> None:
        if restored and rounds_done:
            text = f"resumed after round {rounds_done} of {self.config.num_server_rounds}"
        else:
            text = "resumed with the uploads" if restored else "no phase was finished: starting again"
        log.info("%s", text)
        resumes = self.state.results.get("resumed_after_round", ())
        self.state.results["resumed_after_round"] = [*resumes, rounds_done]
        self.directory.log({"event": "resumed", "rounds": rounds_done, "uploads": restored})
