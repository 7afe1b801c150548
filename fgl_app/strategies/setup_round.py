"""A set-up round in front of any Flower strategy: clients upload once, then the rounds begin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fgl_app.messages.records import require_finite, site_name
from fgl_app.messages.uploads import UploadError
from fgl_app.progress import log
from fgl_app.strategies.exchange import (
    ClientFailure,
    TooFewRepliesError,
    explain,
    iter_replies,
    unresponsive_nodes,
    wait_for_nodes,
)
from fgl_app.strategies.privacy import refuse_privacy_around
from fgl_app.strategies.state import load_wrapper_state, wrapper_state

PHASE = "set-up"


class SetupRoundStrategy(Strategy, ABC):
    """Wrap a strategy with a set-up round before it and a correction after each aggregate.

    Round 1 is the set-up; from round 2 on the wrapped strategy runs, and sees the round number less one
    in all four hooks. ``start`` is not overridden, so outer code that runs its own ``start`` still comes
    through here. The set-up happens inside ``configure_train`` of round 1, where replies can be pulled one
    by one: only one upload is held in memory, whatever a subclass does not keep.

    Flower's differential privacy strategies belong inside; around this one they are refused in round 1.

    Parameters
    ----------
    strategy : Strategy
        Any Flower strategy; node sampling and metric options stay on it.
    num_nodes : int, default 0
        Nodes to wait for before asking; 0 takes those that are connected.
    min_uploads : int, default 2
        Good uploads the set-up needs; with fewer the run fails.
    setup_timeout : float, default 3600.0
        Seconds to wait for nodes, and again for their uploads.

    Attributes
    ----------
    rejected : list[ClientFailure]
        Uploads that broke a rule.
    failures : list[ClientFailure]
        Nodes that replied with an error, or not in time.
    on_collected : Callable[[], None] or None
        Called when the uploads are in and nothing was made of them yet.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        num_nodes: int = 0,
        min_uploads: int = 2,
        setup_timeout: float = 3600.0,
    ) -> None:
        self.strategy = strategy
        self.num_nodes = num_nodes
        self.min_uploads = min_uploads
        self.setup_timeout = setup_timeout
        self.rejected: list[ClientFailure] = []
        self.failures: list[ClientFailure] = []
        self.on_collected: Callable[[], None] | None = None
        self._outcome: tuple[ArrayRecord | None, MetricRecord | None] = (None, None)
        self._restored = False

    @abstractmethod
    def configure_setup(self, arrays: ArrayRecord, config: ConfigRecord, grid: Grid) -> Sequence[Message]:
        """Return the set-up's requests, at most one for each node; none when nothing is asked of nodes."""

    @abstractmethod
    def accept_upload(self, reply: Message) -> None:
        """Validate one upload and keep what is needed of it.

        Raises
        ------
        UploadError
            When the upload breaks a rule; it is then recorded and left out.
        """

    @abstractmethod
    def finish_setup(self, arrays: ArrayRecord) -> tuple[ArrayRecord, MetricRecord]:
        """Turn the accepted uploads into the arrays and metrics of round 1."""

    def correct(self, server_round: int, arrays: ArrayRecord, metrics: MetricRecord | None) -> ArrayRecord:
        """Return the aggregate of ``server_round`` corrected (default: as it is); metrics came with it."""
        return arrays

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Run the set-up in round 1 and return no messages; afterwards ask the wrapped strategy."""
        # Strategies write into the config they are given; the caller's stays as it is.
        config = ConfigRecord(dict(config))
        refuse_privacy_around(self)
        if server_round > 1:
            return self.strategy.configure_train(server_round - 1, arrays, config, grid)
        if not self._restored:
            requests = self.configure_setup(arrays, config, grid)
            if requests:
                self._collect(requests, grid)
            if self.on_collected:
                self.on_collected()
        self._restored = False
        self._outcome = self.finish_setup(arrays)
        return []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Return the set-up's outcome in round 1; afterwards the wrapped aggregate, corrected."""
        if server_round == 1:
            return self._outcome
        arrays, metrics = self.strategy.aggregate_train(server_round - 1, replies)
        if arrays is not None:
            require_finite(arrays, f"training round {server_round - 1}: the aggregate")
            arrays = self.correct(server_round, arrays, metrics)
        return arrays, metrics

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask the wrapped strategy, one round behind."""
        return self.strategy.configure_evaluate(server_round - 1, arrays, ConfigRecord(dict(config)), grid)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Ask the wrapped strategy, one round behind."""
        return self.strategy.aggregate_evaluate(server_round - 1, replies)

    def summary(self) -> None:
        """Log this strategy's settings, then the wrapped one's."""
        log.info(
            "%s: a set-up round that needs %d uploads, around %s",
            type(self).__name__,
            self.min_uploads,
            type(self.strategy).__name__,
        )
        self.strategy.summary()

    def state_dict(self) -> dict[str, Any]:
        """Return what this strategy and the wrapped one have learnt; subclasses add their uploads."""
        return wrapper_state(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take a state back; the next set-up then asks nobody and begins from the uploads in it."""
        load_wrapper_state(self, state_dict)
        self._restored = True

    def ask_every_node(self, grid: Grid, content: RecordDict, message_type: str) -> list[Message]:
        """Wait for the nodes and return the same request for each."""
        nodes = wait_for_nodes(
            grid, minimum=self.min_uploads, expected=self.num_nodes, timeout=self.setup_timeout
        )
        return [Message(content, node, message_type, ttl=self.setup_timeout) for node in nodes]

    def _collect(self, requests: Sequence[Message], grid: Grid) -> None:
        heard: set[int] = set()
        accepted = 0
        # A map keeps no name for a reply, and so none in memory, while the next one is pulled.
        for node, site in map(self._take, iter_replies(grid, requests, timeout=self.setup_timeout)):
            heard.add(node)
            if site is not None:
                accepted += 1
                log.info("%s: upload %d of %d, from %s", PHASE, accepted, len(requests), site)
        for incident in unresponsive_nodes(PHASE, requests, heard, self.setup_timeout):
            self._leave_out(self.failures, incident)
        log.info("set-up: %d uploads accepted, %d asked", accepted, len(requests))
        if accepted < self.min_uploads:
            incidents = [*self.failures, *self.rejected]
            raise TooFewRepliesError(explain(PHASE, accepted, self.min_uploads, incidents))

    def _take(self, pulled: tuple[int, Message]) -> tuple[int, str | None]:
        """Return the node that was asked, and whose upload was accepted, if it was."""
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

    def _leave_out(self, incidents: list[ClientFailure], incident: ClientFailure) -> None:
        log.warning("%s: %s left out: %s", PHASE, incident.who, incident.reason)
        incidents.append(incident)
