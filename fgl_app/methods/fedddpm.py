"""``method="fedddpm"`` and ``"fedddpm-plus"``: federated diffusion, corrected on an auxiliary set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial

from torch import nn

from fgl_app.algorithms.diffusion import DiffusionSettings
from fgl_app.algorithms.plateau import is_plateau, relative_improvement
from fgl_app.algorithms.types import LabeledLatents, State
from fgl_app.data.saving import save_images
from fgl_app.progress import log, track
from fgl_app.results.curves import plot_corrections
from fgl_app.server.auxiliary import sample_shares
from fgl_app.server.correction import Corrector
from fgl_app.server.run_state import AUXILIARY
from fgl_app.server.session import Session
from fgl_app.strategies.fedddpm import FedDDPMStrategy, LocalModel
from fgl_app.strategies.no_exchange import NoExchangeStrategy
from fgl_app.strategies.state import read_state, write_state
from fgl_app.tasks import DiffusionTask

PlateauDetector = Callable[[Sequence[float]], bool]


def run_fedddpm(session: Session) -> nn.Module:
    """Run FedDDPM, or its control without rounds, and return the last global model."""
    strategy, corrector = _prepare(session)
    try:
        return session.run(strategy, {"correction": corrector})
    finally:
        session.state.results["corrections"] = _num_corrections(strategy)


def run_fedddpm_plus(session: Session) -> nn.Module:
    """Run FedDDPM+, which corrects when the loss has reached a plateau, and return the last global model."""
    config = session.config
    improvement = partial(
        relative_improvement, window=config.correction_window, smoothing=config.correction_smoothing
    )
    is_due = partial(
        is_plateau,
        window=config.correction_window,
        smoothing=config.correction_smoothing,
        threshold=config.correction_threshold,
    )
    strategy, corrector = _prepare(session, is_due)
    try:
        return session.run(strategy, {"correction": corrector})
    finally:
        session.state.results["corrections"] = _num_corrections(strategy)
        _report_decisions(session, strategy, improvement)


def _prepare(
    session: Session, should_correct_fn: PlateauDetector | None = None
) -> tuple[FedDDPMStrategy[LabeledLatents], Corrector]:
    config, task = session.config, session.task
    assert isinstance(task, DiffusionTask)
    file = session.directory.path / AUXILIARY

    def sample_fn(clients: Iterator[LocalModel]) -> LabeledLatents:
        if file.is_file():
            return LabeledLatents(**read_state(file))
        auxiliary = _sample_auxiliary(session, task, clients)
        # The rejected clients first: a set on disk is not sampled again.
        session.save_state()
        write_state(asdict(auxiliary), file)
        return auxiliary

    corrector = Corrector(task.new_model, partial(_correction_settings, task), config.seed)

    def correct_fn(state: State, auxiliary: LabeledLatents) -> State:
        with session.directory.phase("corrections"):
            return corrector(state, auxiliary)

    has_rounds = config.inner_strategy != "auxiliary-only"
    strategy = FedDDPMStrategy(
        session.checked_strategy() if has_rounds else NoExchangeStrategy(),
        sample_fn=sample_fn,
        correct_fn=correct_fn,
        should_correct_fn=should_correct_fn,
        max_corrections=config.max_corrections,
        auxiliary_size=config.auxiliary_size,
        num_classes=len(task.class_names) if config.class_conditional else 0,
        upload_dir=session.directory.path / "uploads",
        max_weight_ratio=config.max_weight_ratio,
        num_nodes=config.num_clients,
        min_uploads=config.min_nodes,
        setup_timeout=config.node_timeout,
    )
    log.info("%s over %d clients: each client trains its own model", config.run_label, len(session.nodes))
    session.plot_partition()
    return strategy, corrector


def _sample_auxiliary(session: Session, task: DiffusionTask, clients: Iterator[LocalModel]) -> LabeledLatents:
    """Sample each client's share, in the client's own proportions of classes."""
    model = task.new_model()
    with (
        session.directory.phase("auxiliary set"),
        track(session.config.auxiliary_size, "sampling the auxiliary set", "images") as progress,
    ):
        auxiliary, shares = sample_shares(
            clients,
            model,
            partial(task.sample, model, callback=progress.update),
            seed=session.config.seed,
            on_rejected=session.state.rejected.append,
        )
    images = task.space.decode(auxiliary)
    save_images(images, task.label_names, session.directory.path / "auxiliary")
    session.plot_images(images, "auxiliary_images.png", "Auxiliary set")
    session.state.results |= {"num_auxiliary_images": len(auxiliary), "auxiliary_images": shares}
    return auxiliary


def _correction_settings(task: DiffusionTask, number: int) -> DiffusionSettings:
    config = task.config
    return task.settings(config.server_epochs, config.server_learning_rate * task.round_factor(number))


def _num_corrections(strategy: FedDDPMStrategy[LabeledLatents]) -> int:
    return sum(decision.corrected for decision in strategy.decisions)


def _report_decisions(
    session: Session,
    strategy: FedDDPMStrategy[LabeledLatents],
    improvement: Callable[[Sequence[float]], float | None],
) -> None:
    """Add the decision after each round, with the loss's improvement, to the summary, and plot them."""
    losses: list[float] = []
    rows: list[dict[str, float | int | bool | None]] = []
    for decision in strategy.decisions:
        if decision.loss is not None:
            losses.append(decision.loss)
        rows.append({**decision.to_json(), "improvement": improvement(losses)})
    if losses:
        session.state.results["decisions"] = rows
        file = session.directory.path / "corrections.png"
        plot_corrections(rows, session.config.correction_threshold, file)
