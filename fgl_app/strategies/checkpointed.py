"""A strategy whose state is written to disk after every round, so that a run can resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.strategies.setup_round import SetupRoundStrategy
from fgl_app.strategies.state import Stateful, load_strategy_state, read_state, strategy_state, write_state
from fgl_app.strategies.wrapper import WrapperStrategy


class CheckpointedStrategy(WrapperStrategy):
    """Wrap a strategy so that its state and the global arrays are written after each round.

    Flower does not resume a ServerApp that died. A new one with the same parts calls ``restore`` and then
    ``start`` with the same ``num_rounds``: finished rounds pass without a message (except the last one's
    evaluation), and the next round starts from the restored arrays and state. Around a
    ``SetupRoundStrategy`` there is one more checkpoint, when all uploads are in. State that a client keeps
    for itself is not in the checkpoint.

    Parameters
    ----------
    strategy : Strategy
        Any Flower strategy.
    file : Path
        The checkpoint, a safetensors file; no pickle is written or read.
    parts : Mapping[str, Stateful] or None, default None
        Other objects with state, such as an optimizer that the strategy's callables use.
    on_saved : Callable[[], None] or None, default None
        Called after each checkpoint.

    Attributes
    ----------
    rounds_done : int
        Number of rounds in the checkpoint; 0 before the first.
    """

    def __init__(
        self,
        strategy: Strategy,
        file: Path,
        *,
        parts: Mapping[str, Stateful] | None = None,
        on_saved: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(strategy)
        self.file = file
        self.parts = dict(parts or {})
        self.on_saved = on_saved
        self.rounds_done = 0
        self._arrays: ArrayRecord | None = None
        if isinstance(strategy, SetupRoundStrategy):
            strategy.on_collected(lambda: self._save(0, None))

    def restore(self) -> bool:
        """Load the checkpoint.

        Returns
        -------
        bool
            False when there is none: no phase was finished.

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
        """Delete the checkpoint, so that the next run starts from the beginning."""
        self.file.unlink(missing_ok=True)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's requests; none in a finished round."""
        if server_round <= self.rounds_done:
            return []
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the wrapped strategy's aggregate after writing it to disk."""
        if server_round <= self.rounds_done:
            return self._arrays, None
        arrays, metrics = super().aggregate_train(server_round, replies)
        self._save(server_round, arrays)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's requests; none in a round before the last finished one."""
        if server_round < self.rounds_done:
            return []
        return super().configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the wrapped strategy's metrics; None in a round before the last finished one."""
        if server_round < self.rounds_done:
            return None
        return super().aggregate_evaluate(server_round, replies)

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
