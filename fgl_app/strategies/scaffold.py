"""SCAFFOLD as a Flower strategy (Karimireddy et al. 2020, arXiv 1910.06378)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.records import CONTROL, num_examples

logger = logging.getLogger("fgl")


class ScaffoldStrategy(Strategy):
    """Wrap an averaging strategy with SCAFFOLD's control variates.

    Each training message carries the server's variate c as a second ArrayRecord, "control", and each reply
    the change of the client's own in the same place. Where the paper takes plain means over clients, changes
    are weighted by "num-examples", as the wrapped strategy weighs the models; with clients of one size the
    two agree.

    Parameters
    ----------
    strategy : Strategy
        Averages the models; FedAvg with step size 1 is the paper's choice.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._control = ArrayRecord()
        self._share = 1.0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Add the server's variate to the wrapped strategy's messages."""
        if self._control.keys() != arrays.keys():
            self._control = _zeros_like(arrays)
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        for message in messages:
            message.content[CONTROL] = self._control
        self._share = len(messages) / max(1, len(list(grid.get_node_ids())))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the server's variate by the mean change (algorithm 1, line 17), then average the models."""
        replies = list(replies)
        changes = [cast(ArrayRecord, reply.content.pop(CONTROL)) for reply in replies if reply.has_content()]
        weights = [num_examples(reply.content) for reply in replies if reply.has_content()]
        total = sum(weights)
        moved: dict[str, np.ndarray] = {name: array.numpy() for name, array in self._control.items()}
        for change, weight in zip(changes, weights, strict=True):
            for name, array in change.items():
                moved[name] = moved[name] + array.numpy() * np.float32(self._share * weight / total)
        self._control = ArrayRecord({name: Array(values) for name, values in moved.items()})
        return self.strategy.aggregate_train(server_round, replies)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy."""
        return self.strategy.configure_evaluate(server_round, arrays, config, grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Ask the wrapped strategy."""
        return self.strategy.aggregate_evaluate(server_round, replies)

    def summary(self) -> None:
        """Log this strategy's settings, then the wrapped one's."""
        logger.info("ScaffoldStrategy: control variates around %s", type(self.strategy).__name__)
        self.strategy.summary()


def _zeros_like(arrays: ArrayRecord) -> ArrayRecord:
    return ArrayRecord({name: Array(np.zeros(array.shape, np.float32)) for name, array in arrays.items()})
