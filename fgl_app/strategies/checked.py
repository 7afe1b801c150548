"""Validation of the replies in a strategy's rounds, which Flower's own strategies do not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.messages.keys import NUM_EXAMPLES
from fgl_app.messages.replies import check_evaluated, check_trained, num_examples
from fgl_app.messages.sites import site_name
from fgl_app.messages.validation import UploadError, reply_metrics
from fgl_app.messages.weights import require_finite, restore_dtypes
from fgl_app.strategies.exchange import ClientFailure, TooFewRepliesError, too_few_replies, wait_for_nodes
from fgl_app.strategies.limits import outlying_replies
from fgl_app.strategies.wrapper import WrapperStrategy, nested_strategies


class CheckedStrategy(WrapperStrategy):
    """Wrap a strategy so that bad replies are left out and a round without enough good replies fails.

    Flower's FedAvg averages NaN, negative weights and wrong shapes that broadcast without a warning, and a
    run in which every client fails still completes. Here each training reply must have the names, shapes
    and dtypes of the request, finite values, a positive "num-examples" and the same metrics as most others.
    Good replies are passed on in the order of their sites' names (of node ids without names), so that sums
    of floats are the same in every run, and the aggregate keeps the dtypes of the request. With only good
    replies, results are those of the wrapped strategy. Failures are numbered by the wrapped strategy's
    rounds: inside FGLStrategy that is the run's round less one.

    Parameters
    ----------
    strategy : Strategy
        Any Flower strategy that averages ArrayRecords by "num-examples".
    min_replies : int, default 2
        Number of good replies that a training round needs, and of nodes that must be connected before it.
    timeout : float, default 3600.0
        Seconds to wait for these nodes, and lifetime of a request: a node that was away does not work through
        the requests of earlier rounds.
    max_update_ratio : float, default 100.0
        A reply is left out when the norm of its update is larger than this multiple of the median reply's (at
        least 0.001 of the norm of the weights), or its "train-loss" than this multiple of the median loss (at
        least 1). 0 accepts any; fewer than three replies are not compared.
    max_weight_ratio : float, default 10.0
        A reply's "num-examples" counts at most this multiple of the median reply's. 0 sets no limit; fewer
        than three replies are not compared.
    metric_ranges : Mapping[str, tuple[float, float]] or None, default None
        Lowest and highest value of metrics in the replies of evaluations; None accepts any finite value.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        min_replies: int = 2,
        timeout: float = 3600.0,
        max_update_ratio: float = 100.0,
        max_weight_ratio: float = 10.0,
        metric_ranges: Mapping[str, tuple[float, float]] | None = None,
    ) -> None:
        super().__init__(strategy)
        self.min_replies = min_replies
        self.timeout = timeout
        self.max_update_ratio = max_update_ratio
        self.max_weight_ratio = max_weight_ratio
        self.metric_ranges = dict(metric_ranges or {})
        self._sent = ArrayRecord()
        self._expected: dict[str, ArrayRecord] = {}
        self._requests: list[Message] = []

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's requests, and keep them for the validation of the replies."""
        self._sent = arrays
        # Flower's strategies wait for nodes without a limit.
        self._wait_for_nodes(grid)
        requests = self.strategy.configure_train(server_round, arrays, ConfigRecord(dict(config)), grid)
        self._keep(requests)
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
        good = self._without_outliers(phase, good)
        self._cap_weights(good)
        arrays, metrics = self.strategy.aggregate_train(server_round, good)
        if arrays is None:
            raise TooFewRepliesError(f"{phase}: {type(self.strategy).__name__} returned no arrays")
        arrays = require_finite(restore_dtypes(arrays, self._sent), f"{phase}: the aggregate")
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's requests, and keep them for the validation of the replies."""
        if _evaluates(self.strategy):
            self._wait_for_nodes(grid)
        self._keep(self.strategy.configure_evaluate(server_round, arrays, ConfigRecord(dict(config)), grid))
        return self._requests

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Aggregate the good replies, if there were requests.

        Raises
        ------
        TooFewRepliesError
            When there are fewer than ``min_replies``.
        """
        good = list(replies)
        if self._requests:
            check = partial(check_evaluated, ranges=self.metric_ranges)
            good = self._good(f"evaluation of round {server_round}", good, check)
            self._cap_weights(good)
        return self.strategy.aggregate_evaluate(server_round, good)

    def _wait_for_nodes(self, grid: Grid) -> None:
        wait_for_nodes(grid, minimum=self.min_replies, expected=self.min_replies, timeout=self.timeout)

    def _keep(self, requests: Iterable[Message]) -> None:
        self._requests = list(requests)
        for request in self._requests:
            request.metadata.ttl = self.timeout

    def _good(
        self, phase: str, replies: Iterable[Message], check: Callable[[RecordDict], None]
    ) -> list[Message]:
        """Return the valid replies in the order of sites; record the others."""
        # An error reply about a lost node comes from the SuperLink: only the request has the node's id.
        nodes = {message.metadata.message_id: message.metadata.dst_node_id for message in self._requests}
        valid: list[Message] = []
        rejected: list[ClientFailure] = []
        failures: list[ClientFailure] = []
        for reply in replies:
            node = str(nodes.pop(reply.metadata.reply_to_message_id, reply.metadata.src_node_id))
            if reply.has_error():
                failures.append(ClientFailure.from_error_reply(node, phase, reply))
                continue
            try:
                check(reply.content)
                valid.append(reply)
            except UploadError as error:
                rejected.append(ClientFailure(node, phase, str(error), site_name(reply)))
        failures += [ClientFailure(str(node), phase, "no reply in time") for node in nodes.values()]
        good, odd = _split_by_kind(valid)
        reason = "other records or metrics than most replies"
        rejected += [ClientFailure(str(r.metadata.src_node_id), phase, reason, site_name(r)) for r in odd]
        for failure in failures + rejected:
            failure.log()
        self.rejected += rejected
        self.failures += failures
        if len(good) < self.min_replies:
            raise too_few_replies(phase, len(good), self.min_replies, failures + rejected)
        return sorted(good, key=site_name)

    def _without_outliers(self, phase: str, replies: list[Message]) -> list[Message]:
        """Return the replies without those that are far larger than the others."""
        outliers = outlying_replies(replies, self._expected, self.max_update_ratio)
        rejected = [
            ClientFailure(str(replies[i].metadata.src_node_id), phase, reason, site_name(replies[i]))
            for i, reason in outliers.items()
        ]
        for failure in rejected:
            failure.log()
        self.rejected += rejected
        kept = [reply for i, reply in enumerate(replies) if i not in outliers]
        if len(kept) < self.min_replies:
            raise too_few_replies(phase, len(kept), self.min_replies, rejected)
        return kept

    def _cap_weights(self, replies: list[Message]) -> None:
        """Limit the weights of the replies in place."""
        weights = [num_examples(reply.content) for reply in replies]
        capped = self.cap_examples(map(site_name, replies), weights, self.max_weight_ratio)
        for reply, weight in zip(replies, capped, strict=True):
            reply_metrics(reply.content)[NUM_EXAMPLES] = weight


def _evaluates(strategy: Strategy) -> bool:
    """Return whether the innermost strategy requests evaluations; True when unknown."""
    *_, innermost = nested_strategies(strategy)
    return bool(getattr(innermost, "fraction_evaluate", 1.0) > 0)


def _split_by_kind(replies: list[Message]) -> tuple[list[Message], list[Message]]:
    """Split the replies into those with the most common record names and metrics, and the others.

    Flower's strategies end the run when these differ between replies.
    """

    def kind(reply: Message) -> tuple[object, ...]:
        content = reply.content
        metrics = reply_metrics(content)
        kinds = frozenset((key, isinstance(value, list)) for key, value in metrics.items())
        return (*content.array_records, *content.metric_records, kinds)

    counts = Counter(kind(reply) for reply in replies)
    common = max(counts, key=lambda key: counts[key], default=())
    same = [reply for reply in replies if kind(reply) == common]
    return same, [reply for reply in replies if kind(reply) != common]
