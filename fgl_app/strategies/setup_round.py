"""A set-up round before the rounds of any Flower strategy: each client uploads once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.messages.sites import site_name
from fgl_app.messages.validation import UploadError
from fgl_app.messages.weights import require_finite
from fgl_app.progress import log
from fgl_app.strategies.exchange import (
    ClientFailure,
    iter_replies,
    too_few_replies,
    unresponsive_nodes,
    wait_for_nodes,
)
from fgl_app.strategies.wrapper import WrapperStrategy

PHASE = "set-up"


class SetupRoundStrategy(WrapperStrategy, ABC):
    """Wrap a strategy with a set-up round before it and a correction after each aggregate.

    Round 1 is the set-up; from round 2 on the wrapped strategy runs, with the round number less one in all
    four hooks. ``start`` is not overridden, so a wrapper that runs its own ``start`` still calls these
    hooks. The set-up runs inside ``configure_train`` of round 1, where replies can be pulled one
    by one: memory holds one upload at a time, and those that the subclass keeps.

    Flower's differential privacy strategies belong inside. Around this one their noise would follow the
    server's own training, whose effect on the weights has no bound, and protect nothing. A strategy cannot
    see its wrapper, so the run fails in the round in which a wrapper changed the arrays.

    Parameters
    ----------
    strategy : Strategy
        Any Flower strategy; options for node sampling and metrics stay on it.
    num_nodes : int, default 0
        Number of nodes to wait for before the set-up; 0 takes the connected ones.
    min_uploads : int, default 2
        Number of good uploads that the set-up needs; with fewer the run fails.
    setup_timeout : float, default 3600.0
        Seconds to wait for nodes, and again for their uploads.

    Attributes
    ----------
    rejected : list[ClientFailure]
        Uploads that broke a rule.
    failures : list[ClientFailure]
        Nodes that replied with an error, or not in time.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        num_nodes: int = 0,
        min_uploads: int = 2,
        setup_timeout: float = 3600.0,
    ) -> None:
        super().__init__(strategy)
        self.num_nodes = num_nodes
        self.min_uploads = min_uploads
        self.setup_timeout = setup_timeout
        self._on_collected: list[Callable[[], None]] = []
        self._result: ArrayRecord | None = None
        self._metrics: MetricRecord | None = None
        self._restored = False

    @abstractmethod
    def configure_setup(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Sequence[Message]:
        """Return the requests of the set-up, at most one for each node; none when no node is needed."""

    @abstractmethod
    def accept_upload(self, reply: Message) -> None:
        """Validate one upload and keep what is needed.

        Raises
        ------
        UploadError
            When the upload breaks a rule; it is then recorded and left out.
        """

    @abstractmethod
    def finish_setup(self, arrays: ArrayRecord) -> tuple[ArrayRecord, MetricRecord]:
        """Return the arrays and metrics of round 1, made from the accepted uploads."""

    def correct(self, server_round: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> ArrayRecord:
        """Return the corrected aggregate of a round (default: unchanged); metrics are the round's."""
        return arrays

    def on_collected(self, callback: Callable[[], None]) -> None:
        """Register one more function that is called when all uploads are in, before they are used."""
        self._on_collected.append(callback)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Run the set-up in round 1 and return no messages; later return the wrapped strategy's."""
        # Strategies write into the config; the caller's stays unchanged.
        config = ConfigRecord(dict(config))
        if server_round > 1:
            return self.strategy.configure_train(server_round - 1, arrays, config, grid)
        if not self._restored:
            requests = self.configure_setup(arrays, config, grid)
            if requests:
                self._collect(requests, grid)
            for callback in self._on_collected:
                callback()
        self._restored = False
        self._result, self._metrics = self.finish_setup(arrays)
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the result of the set-up in round 1; later the wrapped strategy's aggregate, corrected."""
        if server_round == 1:
            return self._result, self._metrics
        arrays, metrics = self.strategy.aggregate_train(server_round - 1, replies)
        if arrays is not None:
            require_finite(arrays, f"training round {server_round - 1}: the aggregate")
            arrays = self.correct(server_round, arrays, metrics)
        self._result = arrays
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the wrapped strategy's requests of the round before.

        Raises
        ------
        ValueError
            When a wrapper around this strategy changed the arrays of the round.
        """
        # In a resumed run the arrays of finished rounds come from the checkpoint.
        if self._result is not None and not _same(arrays, self._result):
            name = type(self).__name__
            raise ValueError(
                f"a strategy around {name} changed the result of round {server_round}, as Flower's "
                f"differential privacy does; put it inside: "
                f"{name}(DifferentialPrivacy...(FedAvg(...), ...), ...)"
            )
        return self.strategy.configure_evaluate(server_round - 1, arrays, ConfigRecord(dict(config)), grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return the wrapped strategy's metrics of the round before."""
        return self.strategy.aggregate_evaluate(server_round - 1, replies)

    def summary(self) -> None:
        """Log this strategy's settings, then those of the wrapped one."""
        name, inner = type(self).__name__, type(self.strategy).__name__
        log.info("%s: a set-up round that needs %d uploads, around %s", name, self.min_uploads, inner)
        super().summary()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state; the next set-up sends no request and starts from the uploads in the state."""
        super().load_state_dict(state_dict)
        self._restored = True

    def requests_to_all_nodes(self, grid: Grid, content: RecordDict, message_type: str) -> list[Message]:
        """Wait for the nodes and return the same request for each."""
        nodes = wait_for_nodes(
            grid, minimum=self.min_uploads, expected=self.num_nodes, timeout=self.setup_timeout
        )
        return [Message(content, node, message_type, ttl=self.setup_timeout) for node in nodes]

    def _collect(self, requests: Sequence[Message], grid: Grid) -> None:
        heard: set[int] = set()
        accepted = 0
        # A map holds no reference to a reply while the next one is pulled.
        for node, site in map(self._accept, iter_replies(grid, requests, timeout=self.setup_timeout)):
            heard.add(node)
            if site is not None:
                accepted += 1
                log.info("%s: upload %d of %d, from %s", PHASE, accepted, len(requests), site)
        for failure in unresponsive_nodes(PHASE, requests, heard, self.setup_timeout):
            self._leave_out(self.failures, failure)
        log.info("%s: %d of %d uploads accepted", PHASE, accepted, len(requests))
        if accepted < self.min_uploads:
            raise too_few_replies(PHASE, accepted, self.min_uploads, [*self.failures, *self.rejected])

    def _accept(self, pulled: tuple[int, Message]) -> tuple[int, str | None]:
        """Return the node that received the request, and the site if its upload was accepted."""
        node, reply = pulled
        if reply.has_error():
            self._leave_out(self.failures, ClientFailure.from_error_reply(str(node), PHASE, reply))
            return node, None
        try:
            self.accept_upload(reply)
        except UploadError as error:
            self._leave_out(self.rejected, ClientFailure(str(node), PHASE, str(error), site_name(reply)))
            return node, None
        return node, site_name(reply)

    def _leave_out(self, failures: list[ClientFailure], failure: ClientFailure) -> None:
        failure.log()
        failures.append(failure)


def _same(arrays: ArrayRecord, others: ArrayRecord) -> bool:
    if arrays is others:
        return True
    return arrays.keys() == others.keys() and all(arrays[name].data == others[name].data for name in arrays)
