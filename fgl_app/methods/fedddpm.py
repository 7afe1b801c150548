"""``method="fedddpm"`` and ``"fedddpm-plus"``: federated diffusion, corrected on an auxiliary set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import nn

from fgl_app.algorithms.apportion import apportion
from fgl_app.algorithms.diffusion import new_optimizer, train_diffusion
from fgl_app.algorithms.randomness import seeded
from fgl_app.algorithms.slow_learning import is_slow, relative_improvement
from fgl_app.algorithms.types import LabeledLatents, State
from fgl_app.data.saving import save_images
from fgl_app.methods.session import Session
from fgl_app.methods.session_state import AUXILIARY, save_session
from fgl_app.progress import log, track
from fgl_app.records import arrays_to_state
from fgl_app.records import load_state as load_model_state
from fgl_app.results.curves import plot_corrections
from fgl_app.strategies.exchange import Incident
from fgl_app.strategies.fedddpm import FedDDPMStrategy, LocalModel
from fgl_app.strategies.no_exchange import NoExchangeStrategy
from fgl_app.strategies.state import load_state, save_state
from fgl_app.tasks import DiffusionTask

LARGEST = 1000.0
"""Images and latents have a scale of 1 here, and a model that draws larger values than this is broken.

With few steps even an untrained one stays within hundreds: 1 / sqrt(alpha-bar_T) is 157 with linear betas.
"""


def run_fedddpm(session: Session) -> nn.Module:
    """Run FedDDPM, FedDDPM+ or the control without rounds, and return the last global model."""
    config, task = session.config, session.task
    assert isinstance(task, DiffusionTask)
    uploads = ExitStack()

    def sample_fn(clients: Iterator[LocalModel]) -> LabeledLatents:
        uploads.close()
        if kept.is_file():
            return LabeledLatents(**load_state(kept))
        auxiliary = _sample_auxiliary(session, task, clients)
        # First who was left out: what is kept is not sampled again.
        save_session(session)
        save_state(asdict(auxiliary), kept)
        return auxiliary

    kept = session.directory.path / AUXILIARY
    correct_fn = _Corrector(session, task)
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
    log.info("%s over %d clients: each trains a model of its own", config.what_runs, len(session.nodes))
    session.plot_partition()
    try:
        with uploads:
            if not session.has_uploads:
                uploads.enter_context(session.directory.phase("uploads"))
            arrays = session.run_rounds(strategy, {"correction": correct_fn})
    finally:
        session.note_incidents(
            [*strategy.rejected, *checked.rejected], [*strategy.failures, *checked.failures]
        )
        _tell_decisions(session, strategy)
    return session.model_of(arrays_to_state(arrays))


def _sample_auxiliary(session: Session, task: DiffusionTask, clients: Iterator[LocalModel]) -> LabeledLatents:
    """Sample each client's share, in its own proportions of classes."""
    parts: list[LabeledLatents] = []
    shares: dict[str, int] = {}
    model = task.new_model()
    with (
        session.directory.phase("auxiliary set"),
        track(session.config.auxiliary_size, "sampling the auxiliary set", "images") as progress,
    ):
        for number, client in enumerate(clients):
            if not client.num_images:
                continue
            load_model_state(model, client.state)
            by_class = apportion(client.label_counts.tolist() or [1], client.num_images)
            labels = torch.arange(len(by_class)).repeat_interleave(torch.tensor(by_class))
            noise = [seeded("auxiliary", session.config.seed, number, i) for i in range(len(labels))]
            samples = task.sample(model, labels, noise, callback=progress.update)
            if samples.latents.abs().max() < LARGEST:
                parts.append(samples)
                shares[client.site] = shares.get(client.site, 0) + client.num_images
            else:
                _leave_out(session, client)
    if not parts:
        raise ValueError("no client's model draws images: nothing to make the auxiliary set of")
    auxiliary = LabeledLatents(
        torch.cat([part.latents for part in parts]), torch.cat([part.labels for part in parts])
    )
    images = task.space.decode(auxiliary)
    save_images(images, task.kinds_of_images, session.directory.path / "auxiliary")
    session.plot_images(images, "auxiliary_images.png", "Auxiliary set")
    session.outcome |= {"num_auxiliary_images": len(auxiliary), "auxiliary_images": shares}
    return auxiliary


def _leave_out(session: Session, client: LocalModel) -> None:
    reason = f"its model draws values beyond {LARGEST:g}, or NaN"
    incident = Incident(str(client.node), "auxiliary set", reason, client.site)
    log.warning("auxiliary set: %s left out: %s", incident.who, reason)
    session.note_incidents([incident], [])


class _Corrector:
    """The server's training on the auxiliary set; its optimizer's moments last over corrections."""

    def __init__(self, session: Session, task: DiffusionTask) -> None:
        self._session, self._task = session, task
        self._model: UNet2DModel = task.new_model()
        self._optimizer = new_optimizer(self._model)
        self._done = 0

    def __call__(self, state: State, auxiliary: LabeledLatents) -> State:
        config, number = self._session.config, self._done + 1
        load_model_state(self._model, state)
        settings = self._task.settings(
            config.server_epochs, config.server_learning_rate * self._task.round_factor(number)
        )
        with (
            self._session.directory.phase("corrections"),
            track(config.server_epochs * len(auxiliary), f"correction {number}", "images") as progress,
        ):
            train_diffusion(
                self._model,
                auxiliary,
                settings,
                seeded("server", config.seed, self._done),
                optimizer=self._optimizer,
                callback=progress.update,
            )
        self._done = number
        corrected: State = self._model.state_dict()
        return corrected

    def state_dict(self) -> dict[str, Any]:
        return {"done": self._done, "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._done = state_dict["done"]
        self._optimizer.load_state_dict(state_dict["optimizer"])


def _detector(session: Session) -> Callable[[Sequence[float]], bool]:
    config = session.config
    return partial(
        is_slow,
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
