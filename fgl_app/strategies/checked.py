"""Checks around a strategy's rounds: what Flower's own strategies let pass does not pass here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.messages.records import require_finite, restore_dtypes, site_name
from fgl_app.messages.uploads import UploadError, check_evaluated, check_trained
from fgl_app.progress import log
from fgl_app.strategies.exchange import ClientFailure, TooFewRepliesError, explain, wait_for_nodes
from fgl_app.strategies.state import load_wrapper_state, wrapper_state


class CheckedStrategy(Strategy):
    """Wrap a strategy so that bad replies are left out and a round without enough good ones fails.

    Flower's FedAvg averages NaN, negative weights and broadcastable wrong shapes silently, and a run in
    which every client fails still ends as completed. Here each training reply must have the names, shapes
    and dtypes that were sent, finite values, a positive "num-examples" and the same metrics as most others.
    Good replies are handed on in the order of the sites they name (by node id when they name none), so that
    sums of floats come out the same in every run, and the aggregate keeps the dtypes that were sent. With
    good replies only, results are those of the wrapped strategy. Incidents count the wrapped strategy's
    rounds, as the strategy itself does: inside FGLStrategy that is the run's round less one.

    Parameters
    ----------
    strategy : Strategy
        Any Flower strategy that averages ArrayRecords by "num-examples".
    min_replies : int, default 2
        Good replies a training round needs, and nodes that must be connected before it.
    timeout : float, default 3600.0
        Seconds to wait for these nodes; also the life of a request: a node that was away does not work
        through requests of rounds that are long over.

    Attributes
    ----------
    rejected : list[ClientFailure]
        Replies that broke a rule.
    failures : list[ClientFailure]
        Replies that were errors, and nodes that did not reply.
    """

    def __init__(self, strategy: Strategy, *, min_replies: int = 2, timeout: float = 3600.0) -> None:
        self.strategy = strategy
        self.min_replies = min_replies
        self.timeout = timeout
        self.rejected: list[ClientFailure] = []
        self.failures: list[ClientFailure] = []
        self._sent = ArrayRecord()
        self._expected: dict[str, ArrayRecord] = {}
        self._requests: list[Message] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy, and remember what is sent."""
        self._sent = arrays
        # Flower's strategies wait for nodes without end.
        wait_for_nodes(grid, minimum=self.min_replies, expected=self.min_replies, timeout=self.timeout)
        config = ConfigRecord(dict(config))
        self._requests = list(self.strategy.configure_train(server_round, arrays, config, grid))
        for request in self._requests:
            request.metadata.ttl = self.timeout
        self._expected = dict(self._requests[0].content.array_records) if self._requests else {}
        return self._requests

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the good replies.

        Raises
        ------
        TooFewRepliesError
            When there are fewer than ``min_replies``, or the wrapped strategy returned nothing.
        ValueError
            When the aggregate holds NaN or infinity.
        """
        phase = f"training round {server_round}"
        good = self._good(phase, replies, lambda content: check_trained(content, self._expected))
        arrays, metrics = self.strategy.aggregate_train(server_round, good)
        if arrays is None:
            raise TooFewRepliesError(f"{phase}: {type(self.strategy).__name__} returned no arrays")
        arrays = require_finite(restore_dtypes(arrays, self._sent), f"{phase}: the aggregate")
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy, and remember whom it asks."""
        if _evaluates(self.strategy):
            wait_for_nodes(grid, minimum=self.min_replies, expected=self.min_replies, timeout=self.timeout)
        config = ConfigRecord(dict(config))
        self._requests = list(self.strategy.configure_evaluate(server_round, arrays, config, grid))
        for request in self._requests:
            request.metadata.ttl = self.timeout
        return self._requests

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate the good replies, if anybody was asked.

        Raises
        ------
        TooFewRepliesError
            When there are fewer than ``min_replies``.
        """
        good = list(replies)
        if self._requests:
            good = self._good(f"evaluation of round {server_round}", good, check_evaluated)
        return self.strategy.aggregate_evaluate(server_round, good)

    def _good(
        self, phase: str, replies: Iterable[Message], check: Callable[[RecordDict], None]
    ) -> list[Message]:
        """Return the replies that pass, in the order of sites; note the others."""
        # An error reply about a lost node comes from the SuperLink: only the request knows the node.
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in self._requests}
        good: list[Message] = []
        rejected: list[ClientFailure] = []
        failures: list[ClientFailure] = []
        for reply in replies:
            node = str(nodes.pop(reply.metadata.reply_to_message_id, reply.metadata.src_node_id))
            if reply.has_error():
                failures.append(ClientFailure.from_error_reply(node, phase, reply))
                continue
            try:
                check(reply.content)
                good.append(reply)
            except UploadError as error:
                rejected.append(ClientFailure(node, phase, str(error), site_name(reply)))
        failures += [ClientFailure(str(node), phase, "no reply in time") for node in nodes.values()]
        good, odd = _of_one_kind(good)
        reason = "other records or metrics than most replies"
        rejected += [ClientFailure(str(r.metadata.src_node_id), phase, reason, site_name(r)) for r in odd]
        for incident in failures + rejected:
            log.warning("%s: %s left out: %s", phase, incident.who, incident.reason)
        self.rejected += rejected
        self.failures += failures
        if len(good) < self.min_replies:
            raise TooFewRepliesError(explain(phase, len(good), self.min_replies, failures + rejected))
        return sorted(good, key=site_name)

    def summary(self) -> None:
        """Log the wrapped strategy's settings."""
        self.strategy.summary()

    def state_dict(self) -> dict[str, Any]:
        """Return the incidents, and what the wrapped strategy has learnt."""
        return wrapper_state(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back."""
        load_wrapper_state(self, state_dict)


def _evaluates(strategy: Strategy) -> bool:
    """Return whether a strategy, or the one inside it, asks nodes for evaluations; when in doubt, it does."""
    while isinstance(inner := getattr(strategy, "strategy", None), Strategy):
        strategy = inner
    return bool(getattr(strategy, "fraction_evaluate", 1.0) > 0)


def _of_one_kind(replies: list[Message]) -> tuple[list[Message], list[Message]]:
    """Part the replies into those of the most common record names and metrics, and the others.

    Flower's strategies end the run when these differ between replies.
    """

    def kind(reply: Message) -> tuple[object, ...]:
        content = reply.content
        metrics = next(iter(content.metric_records.values()))
        kinds = frozenset((key, isinstance(value, list)) for key, value in metrics.items())
        return (*content.array_records, *content.metric_records, kinds)

    counts = Counter(kind(reply) for reply in replies)
    common = max(counts, key=lambda key: counts[key], default=())
    same = [reply for reply in replies if kind(reply) == common]
    return same, [reply for reply in replies if kind(reply) != common]
