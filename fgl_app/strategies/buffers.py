"""Plain averages of buffers under a server optimizer."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

from fgl_app.messages.keys import ARRAYS, NUM_EXAMPLES
from fgl_app.strategies.wrapper import WrapperStrategy

RUNNING_STATISTICS = ("running_mean", "running_var")
"""Last part of the names of BatchNorm's buffers in torch."""


class PlainBuffersStrategy(WrapperStrategy):
    """Wrap a server optimizer so that buffers are averaged plainly instead of optimized.

    FedAdam, FedYogi and FedAdagrad (Reddi et al. 2021, arXiv 2003.00295) take a step for every array of a
    reply. A running variance then moves by the server's learning rate whatever its own scale is, becomes
    negative, and the evaluated model returns NaN. Here buffers are the average of the replies, weighted by
    "num-examples"; all other arrays are the wrapped strategy's. Around FedAvg nothing changes.

    Parameters
    ----------
    strategy : Strategy
        The server optimizer.
    suffixes : Collection[str], default ("running_mean", "running_var")
        An array whose name's last part (after the last dot) is one of these is a buffer.
    """

    def __init__(self, strategy: Strategy, suffixes: Collection[str] = RUNNING_STATISTICS) -> None:
        super().__init__(strategy)
        self.suffixes = frozenset(suffixes)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the wrapped strategy's aggregate with plainly averaged buffers."""
        replies = list(replies)
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is not None:
            contents = [reply.content for reply in replies if reply.has_content()]
            arrays = ArrayRecord({**arrays, **self._average_buffers(contents)})
        return arrays, metrics

    def _average_buffers(self, contents: list[RecordDict]) -> ArrayRecord:
        parts = [self._with_buffers_only(content) for content in contents]
        key = getattr(self.strategy, "weighted_by_key", NUM_EXAMPLES)
        return aggregate_arrayrecords(parts, key) if parts else ArrayRecord()

    def _with_buffers_only(self, content: RecordDict) -> RecordDict:
        # The weights are the first record, whatever its name; SCAFFOLD's variates are the second.
        arrays = next(iter(content.array_records.values()))
        buffers = {name: each for name, each in arrays.items() if name.rpartition(".")[2] in self.suffixes}
        return RecordDict({ARRAYS: ArrayRecord(buffers), **content.metric_records})
