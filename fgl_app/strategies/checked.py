"""Checks around a strategy's rounds: what Flower's own strategies let pass does not pass here."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.records import UploadError, check_trained, restore_dtypes, site_name
from fgl_app.strategies.exchange import Incident, TooFewRepliesError, explain

logger = logging.getLogger("fgl")


class CheckedStrategy(Strategy):
    """Wrap a strategy so that bad replies are left out and a round without enough good ones fails.

    Flower's FedAvg averages NaN, negative weights and broadcastable wrong shapes silently, and a run in
    which every client fails still ends as completed. Here each training reply must have the names, shapes
    and dtypes that were sent, finite values and a positive "num-examples". Good replies are handed on in
    the order of their sites, so that sums of floats come out the same in every run, and the aggregate
    keeps the dtypes that were sent. With good replies only, results are those of the wrapped strategy.

    Parameters
    ----------
    strategy : Strategy
        Any Flower strategy that averages ArrayRecords.
    min_replies : int, default 2
        Good replies a training round needs.

    Attributes
    ----------
    rejected : list[Incident]
        Replies that broke a rule.
    failures : list[Incident]
        Replies that were errors.
    """

    def __init__(self, strategy: Strategy, *, min_replies: int = 2) -> None:
        self.strategy = strategy
        self.min_replies = min_replies
        self.rejected: list[Incident] = []
        self.failures: list[Incident] = []
        self._sent = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy, and remember what is sent."""
        self._sent = arrays
        return self.strategy.configure_train(server_round, arrays, ConfigRecord(dict(config)), grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Aggregate the good replies.

        Raises
        ------
        TooFewRepliesError
            When there are fewer than ``min_replies``, or the wrapped strategy returned nothing.
        """
        phase = f"training round {server_round}"
        good, incidents = [], []
        for reply in replies:
            incident = self._check(phase, reply)
            if incident is None:
                good.append(reply)
            else:
                logger.warning("%s: node %s left out: %s", phase, incident.node, incident.reason)
                incidents.append(incident)
        if len(good) < self.min_replies:
            raise TooFewRepliesError(explain(phase, len(good), self.min_replies, incidents))
        good.sort(key=site_name)
        arrays, metrics = self.strategy.aggregate_train(server_round, good)
        if arrays is None:
            raise TooFewRepliesError(f"{phase}: {type(self.strategy).__name__} returned no arrays")
        return restore_dtypes(arrays, self._sent), metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy."""
        return self.strategy.configure_evaluate(server_round, arrays, ConfigRecord(dict(config)), grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Ask the wrapped strategy."""
        return self.strategy.aggregate_evaluate(server_round, sorted(replies, key=site_name))

    def summary(self) -> None:
        """Log the wrapped strategy's settings."""
        self.strategy.summary()

    def _check(self, phase: str, reply: Message) -> Incident | None:
        node = site_name(reply)
        if reply.has_error():
            incident = Incident.of_error(node, phase, reply)
            self.failures.append(incident)
            return incident
        try:
            check_trained(reply.content, self._sent)
        except UploadError as error:
            incident = Incident(node, phase, str(error))
            self.rejected.append(incident)
            return incident
        return None
