"""SCAFFOLD as a Flower strategy (Karimireddy et al. 2020, arXiv 1910.06378)."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.records import CONFIG, CONTROL, CONTROL_ROUND, num_examples

logger = logging.getLogger("fgl")


class ScaffoldStrategy(Strategy):
    """Wrap an averaging strategy with SCAFFOLD's control variates.

    Each training message carries the server's variate c as a second ArrayRecord, "control", and each reply
    the change of the client's own in the same place. A reply may be lost, or left out by a wrapper around
    this strategy; so the config's "control-round" tells each client the last round whose change was taken
    (0: none), and it goes on from its variate of that round. Replies must have been checked, as
    :class:`fgl_app.strategies.checked.CheckedStrategy` around this strategy does.

    Where the paper takes plain means over clients, changes are weighted by "num-examples", as the wrapped
    strategy weighs the models; with clients of one size the two agree.

    Parameters
    ----------
    strategy : Strategy
        Averages the models; FedAvg with step size 1 is the paper's choice.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy = strategy
        self._control = ArrayRecord()
        self._num_nodes = 0
        self._taken: dict[int, int] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Add the server's variate to the wrapped strategy's messages."""
        if server_round == 1 or self._control.keys() != arrays.keys():
            self._control, self._taken = _zeros_like(arrays), {}
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        for message in messages:
            # Flower's strategies share one content between all messages.
            taken = {CONTROL_ROUND: self._taken.get(message.metadata.dst_node_id, 0)}
            message.content = RecordDict(
                {
                    **message.content,
                    CONTROL: self._control,
                    CONFIG: ConfigRecord({**message.content.config_records[CONFIG], **taken}),
                }
            )
        self._num_nodes = len(list(grid.get_node_ids()))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Move the server's variate by the mean change (algorithm 1, line 17), then average the models."""
        replies = [reply for reply in replies if reply.has_content()]
        weights = [num_examples(reply.content) for reply in replies]
        # |S| / N: those that replied, of all there are.
        share = len(replies) / max(len(replies), self._num_nodes)
        moved: dict[str, np.ndarray] = {name: array.numpy() for name, array in self._control.items()}
        for reply, weight in zip(replies, weights, strict=True):
            change = cast(ArrayRecord, reply.content.pop(CONTROL))
            for name, array in change.items():
                moved[name] = moved[name] + array.numpy() * np.float32(share * weight / sum(weights))
            self._taken[reply.metadata.src_node_id] = server_round
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
