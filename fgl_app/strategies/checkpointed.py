"""A strategy whose state is on disk after every round, so that a run that died goes on from there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.strategies.setup_round import SetupRoundStrategy
from fgl_app.strategies.state import (
    Stateful,
    load_strategy_state,
    read_state,
    strategy_state,
    write_state,
)


class CheckpointedStrategy(Strategy):
    """Wrap a strategy so that its state, and the global arrays, are written after each round.

    Flower does not resume a ServerApp that died. Here a new one with the same parts calls ``restore``
    and then ``start`` as usual, with the same ``num_rounds``: rounds that were finished pass without a
    message (but for the last one's evaluation), and the next goes on from the arrays and the state that the
    last of them left. Around a ``SetupRoundStrategy`` there is a
    checkpoint more, when the uploads are in. What a client keeps to itself is the client's to keep.

    Parameters
    ----------
    strategy : Strategy
        Any Flower strategy.
    file : Path
        Where the checkpoint is, a safetensors file; no pickle is written or read.
    parts : Mapping[str, Stateful] or None, default None
        What else changes over the rounds, such as an optimizer that the strategy's callables use.
    on_saved : Callable[[], None] or None, default None
        Called after each checkpoint.

    Attributes
    ----------
    rounds_done : int
        Rounds that the checkpoint holds; 0 before the first.
    """

    def __init__(
        self,
        strategy: Strategy,
        file: Path,
        *,
        parts: Mapping[str, Stateful] | None = None,
        on_saved: Callable[[], None] | None = None,
    ) -> None:
        self.strategy = strategy
        self.file = file
        self.parts = dict(parts or {})
        self.on_saved = on_saved
        self.rounds_done = 0
        self._arrays: ArrayRecord | None = None
        if isinstance(strategy, SetupRoundStrategy):
            strategy.on_collected = lambda: self._save(0, None)

    def restore(self) -> bool:
        """Take the checkpoint's state back.

        Returns
        -------
        bool
            False when there is none yet: nothing was finished.

        Raises
        ------
        ValueError
            When the file is damaged.
        """
        if not self.file.is_file():
            return False
        state = read_state(self.file)
        self.rounds_done, self._arrays = state["round"], state["arrays"]
        load_strategy_state(self.strategy, state["strategy"])
        for name, part in self.parts.items():
            part.load_state_dict(state["parts"][name])
        return True

    def forget(self) -> None:
        """Remove the checkpoint, so that the next run begins anew."""
        self.file.unlink(missing_ok=True)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy, or nobody in a round that was finished."""
        if server_round <= self.rounds_done:
            return []
        return self.strategy.configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the wrapped strategy's aggregate, once it is on disk."""
        if server_round <= self.rounds_done:
            return self._arrays, None
        arrays, metrics = self.strategy.aggregate_train(server_round, replies)
        self._save(server_round, arrays)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy, or nobody in a round before the last that was finished."""
        if server_round < self.rounds_done:
            return []
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Ask the wrapped strategy."""
        if server_round < self.rounds_done:
            return None
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log the wrapped strategy's settings."""
        self.strategy.summary()

    def _save(self, server_round: int, arrays: ArrayRecord | None) -> None:
        state: dict[str, Any] = {
            "round": server_round,
            "arrays": arrays,
            "strategy": strategy_state(self.strategy),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_state(state, self.file)
        if self.on_saved:
            self.on_saved()
