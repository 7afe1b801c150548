"""SCAFFOLD as a Flower strategy (Karimireddy et al. 2020, arXiv 1910.06378)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.messages.records import CONFIG, CONTROL, CONTROL_ROUND, CONTROL_SITES, site_digest, site_name
from fgl_app.messages.uploads import num_examples
from fgl_app.progress import log
from fgl_app.strategies.state import load_strategy_state, strategy_state


class ScaffoldStrategy(Strategy):
    """Wrap an averaging strategy with SCAFFOLD's control variates.

    Each training message carries the server's variate c as a second ArrayRecord, "control", and each reply
    the change of the client's own in the same place. A reply may be lost, or left out by a wrapper around
    this strategy; so the config's "control-round" tells each client the last round whose change was taken
    (0: none), and it goes on from its variate of that round. To a node that did not reply yet, which after a
    resume can be a known site under another id, "control-sites" has digests of the names of all sites whose
    change was taken, and "control-round" then is a list of their rounds. Replies must have been checked, as
    ``CheckedStrategy`` around this strategy does.

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
        self._taken: dict[int, tuple[str, int]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Add the server's variate to the wrapped strategy's messages."""
        if server_round == 1 or self._control.keys() != arrays.keys():
            self._control, self._taken = _zeros_like(arrays), {}
        messages = list(self.strategy.configure_train(server_round, arrays, config, grid))
        for message in messages:
            # Flower's strategies share one content between all messages.
            taken = self._told(message.metadata.dst_node_id)
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
            self._taken[reply.metadata.src_node_id] = (site_name(reply), server_round)
        self._control = ArrayRecord({name: Array(values) for name, values in moved.items()})
        return self.strategy.aggregate_train(server_round, replies)

    def _told(self, node: int) -> dict[str, int | list[int] | list[str]]:
        if node in self._taken or not self._taken:
            return {CONTROL_ROUND: self._taken.get(node, ("", 0))[1]}
        sites, rounds = zip(*self._taken.values(), strict=True)
        return {CONTROL_SITES: list(map(site_digest, sites)), CONTROL_ROUND: list(rounds)}

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
        log.info("ScaffoldStrategy: control variates around %s", type(self.strategy).__name__)
        self.strategy.summary()

    def state_dict(self) -> dict[str, Any]:
        """Return the server's variate, whose changes are in it, and the wrapped strategy's state."""
        return {
            "control": self._control,
            "taken": self._taken,
            "strategy": strategy_state(self.strategy),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        self._control, self._taken = state_dict["control"], state_dict["taken"]
        load_strategy_state(self.strategy, state_dict["strategy"])


def _zeros_like(arrays: ArrayRecord) -> ArrayRecord:
    return ArrayRecord({name: Array(np.zeros(array.shape, np.float32)) for name, array in arrays.items()})
