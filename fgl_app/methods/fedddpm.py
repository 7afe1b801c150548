"""``method="fedddpm"`` and ``"fedddpm-plus"``: federated diffusion, corrected on an auxiliary set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial

from torch import nn

from fgl_app.algorithms.diffusion import DiffusionSettings
from fgl_app.algorithms.plateau import is_plateau, relative_improvement
from fgl_app.algorithms.types import LabeledLatents, State
from fgl_app.data.saving import save_images
from fgl_app.messages.records import arrays_to_state
from fgl_app.progress import log, track
from fgl_app.results.curves import plot_corrections
from fgl_app.server.auxiliary import sample_shares
from fgl_app.server.correction import Corrector
from fgl_app.server.session import Session
from fgl_app.server.session_state import AUXILIARY, save_session
from fgl_app.strategies.fedddpm import FedDDPMStrategy, LocalModel
from fgl_app.strategies.no_exchange import NoExchangeStrategy
from fgl_app.strategies.state import read_state, write_state
from fgl_app.tasks import DiffusionTask


def run_fedddpm(session: Session) -> nn.Module:
    """Run FedDDPM, FedDDPM+ or the control without rounds, and return the last global model."""
    config, task = session.config, session.task
    assert isinstance(task, DiffusionTask)
    uploads = ExitStack()
    kept = session.directory.path / AUXILIARY

    def sample_fn(clients: Iterator[LocalModel]) -> LabeledLatents:
        uploads.close()
        if kept.is_file():
            return LabeledLatents(**read_state(kept))
        auxiliary = _sample_auxiliary(session, task, clients)
        # First who was left out: what is kept is not sampled again.
        save_session(session)
        write_state(asdict(auxiliary), kept)
        return auxiliary

    corrector = Corrector(task.new_model, partial(_correction_settings, task), config.seed)

    def correct_fn(state: State, auxiliary: LabeledLatents) -> State:
        with session.directory.phase("corrections"):
            return corrector(state, auxiliary)

    checked = session.checked_strategy()
    strategy = FedDDPMStrategy(
        NoExchangeStrategy() if config.inner_strategy == "auxiliary-only" else checked,
        sample_fn=sample_fn,
        correct_fn=correct_fn,
        should_correct_fn=_detector(session) if config.method == "fedddpm-plus" else None,
        max_corrections=config.max_corrections,
        auxiliary_size=config.auxiliary_size,
        num_classes=len(task.class_names) if config.class_conditional else 0,
        upload_dir=session.directory.path / "uploads",
        num_nodes=config.num_clients,
        min_uploads=config.min_nodes,
        setup_timeout=config.node_timeout,
    )
    log.info("%s over %d clients: each trains a model of its own", config.run_label, len(session.nodes))
    session.plot_partition()
    try:
        with uploads:
            if not session.has_uploads:
                uploads.enter_context(session.directory.phase("uploads"))
            arrays = session.run_rounds(strategy, {"correction": corrector})
    finally:
        session.note_incidents(
            [*strategy.rejected, *checked.rejected], [*strategy.failures, *checked.failures]
        )
        _tell_decisions(session, strategy)
    return session.model_of(arrays_to_state(arrays))


def _sample_auxiliary(session: Session, task: DiffusionTask, clients: Iterator[LocalModel]) -> LabeledLatents:
    """Sample each client's share, in its own proportions of classes."""
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
            on_rejected=lambda incident: session.note_incidents([incident], []),
        )
    images = task.space.decode(auxiliary)
    save_images(images, task.label_names, session.directory.path / "auxiliary")
    session.plot_images(images, "auxiliary_images.png", "Auxiliary set")
    session.outcome |= {"num_auxiliary_images": len(auxiliary), "auxiliary_images": shares}
    return auxiliary


def _correction_settings(task: DiffusionTask, number: int) -> DiffusionSettings:
    config = task.config
    return task.settings(config.server_epochs, config.server_learning_rate * task.round_factor(number))


def _detector(session: Session) -> Callable[[Sequence[float]], bool]:
    config = session.config
    return partial(
        is_plateau,
        window=config.correction_window,
        smoothing=config.correction_smoothing,
        threshold=config.correction_threshold,
    )


def _tell_decisions(session: Session, strategy: FedDDPMStrategy[LabeledLatents]) -> None:
    """Put what was decided after each round into the events, the summary and, for FedDDPM+, a plot."""
    config = session.config
    losses: list[float] = []
    rows: list[dict[str, float | int | bool | None]] = []
    for decision in strategy.decisions:
        if decision.loss is not None:
            losses.append(decision.loss)
        improvement = relative_improvement(
            losses, window=config.correction_window, smoothing=config.correction_smoothing
        )
        rows.append({**decision.to_json(), "improvement": improvement})
    session.outcome["corrections"] = sum(decision.corrected for decision in strategy.decisions)
    if config.method == "fedddpm-plus" and losses:
        session.outcome["decisions"] = rows
        plot_corrections(rows, config.correction_threshold, session.directory.path / "corrections.png")
