"""SCAFFOLD as a Flower strategy (Karimireddy et al. 2020, arXiv 1910.06378)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.messages.control import control_config
from fgl_app.messages.keys import CONFIG, CONTROL
from fgl_app.messages.replies import num_examples
from fgl_app.messages.sites import site_name
from fgl_app.progress import log
from fgl_app.strategies.wrapper import WrapperStrategy


class ScaffoldStrategy(WrapperStrategy):
    """Wrap an averaging strategy with SCAFFOLD's control variates.

    Each training request carries the server's variate c as a second ArrayRecord, "control", and each reply
    the change of the client's own variate under the same name. A reply can be lost, or left out by a
    wrapper; so the request's config names the last round whose change was accepted
    (:mod:`fgl_app.messages.control`), and the client continues from its variate of that round. Replies must
    have been validated, as ``CheckedStrategy`` around this strategy does.

    The paper takes plain means over clients. Here changes are weighted by "num-examples", as the wrapped
    strategy weights the models; for clients of equal size the two agree.

    Parameters
    ----------
    strategy : Strategy
        Averages the models; FedAvg with server learning rate 1 is the paper's choice.
    """

    def __init__(self, strategy: Strategy) -> None:
        super().__init__(strategy)
        self._control = ArrayRecord()
        self._num_nodes = 0
        self._accepted: dict[int, tuple[str, int]] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Add the server's variate to the wrapped strategy's requests."""
        if server_round == 1 or self._control.keys() != arrays.keys():
            self._control, self._accepted = _zeros_like(arrays), {}
        messages = list(super().configure_train(server_round, arrays, config, grid))
        for message in messages:
            entries = control_config(message.metadata.dst_node_id, self._accepted)
            # Flower's strategies share one content between all messages.
            message.content = RecordDict(
                {
                    **message.content,
                    CONTROL: self._control,
                    CONFIG: ConfigRecord({**message.content.config_records[CONFIG], **entries}),
                }
            )
        self._num_nodes = len(list(grid.get_node_ids()))
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add the mean change to the server's variate (algorithm 1, line 17), then average the models."""
        replies = [reply for reply in replies if reply.has_content()]
        weights = [num_examples(reply.content) for reply in replies]
        # |S| / N: clients that replied, of all clients.
        share = len(replies) / max(len(replies), self._num_nodes)
        control: dict[str, np.ndarray] = {name: array.numpy() for name, array in self._control.items()}
        for reply, weight in zip(replies, weights, strict=True):
            change = cast(ArrayRecord, reply.content.pop(CONTROL))
            for name, array in change.items():
                control[name] = control[name] + array.numpy() * np.float32(share * weight / sum(weights))
            self._accepted[reply.metadata.src_node_id] = (site_name(reply), server_round)
        self._control = ArrayRecord({name: Array(values) for name, values in control.items()})
        return super().aggregate_train(server_round, replies)

    def summary(self) -> None:
        """Log this strategy's settings, then those of the wrapped one."""
        log.info("ScaffoldStrategy: control variates around %s", type(self.strategy).__name__)
        super().summary()

    def state_dict(self) -> dict[str, Any]:
        """Return the server's variate, the accepted rounds, and the wrapped strategy's state."""
        return {**super().state_dict(), "control": self._control, "accepted": self._accepted}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state of :meth:`state_dict`."""
        super().load_state_dict(state_dict)
        self._control, self._accepted = state_dict["control"], state_dict["accepted"]


def _zeros_like(arrays: ArrayRecord) -> ArrayRecord:
    return ArrayRecord({name: Array(np.zeros(array.shape, np.float32)) for name, array in arrays.items()})
