"""Exchanging messages with nodes: waiting for nodes, pulling replies one by one, describing failures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fgl_app.progress import log

POLL_SECONDS = 0.2
SETTLE_SECONDS = 1.0
MAX_REASON_LENGTH = 500


class TooFewRepliesError(RuntimeError):
    """A phase got fewer good replies than it needs; the message names the nodes and their reasons."""


@dataclass(frozen=True)
class ClientFailure:
    """A client's reply that could not be used.

    Parameters
    ----------
    node : str
        The node's id.
    phase : str
        Phase of the run in which the reply was due.
    reason : str
        Why it could not be used.
    site : str, default ""
        The site's name in the reply; a claim, not verified.
    """

    node: str
    phase: str
    reason: str
    site: str = ""

    def __post_init__(self) -> None:
        # A client can send any text: cut it to what a log line can show.
        for name in ("reason", "site"):
            text = getattr(self, name)[:MAX_REASON_LENGTH]
            object.__setattr__(self, name, "".join(c if c.isprintable() else " " for c in text))

    @classmethod
    def from_error_reply(cls, node: str, phase: str, reply: Message) -> ClientFailure:
        """Return the failure of an error reply."""
        return cls(node, phase, reply.error.reason or f"error {reply.error.code}")

    @property
    def client(self) -> str:
        """The node, and the site that it claims to be."""
        return f"node {self.node}, site {self.site}" if self.site else f"node {self.node}"

    def log(self) -> None:
        """Log that the reply was left out."""
        log.warning("%s: %s left out: %s", self.phase, self.client, self.reason)

    def to_json(self) -> dict[str, str]:
        """Return the fields by name."""
        return asdict(self)


def wait_for_nodes(grid: Grid, *, minimum: int, expected: int = 0, timeout: float) -> list[int]:
    """Wait until nodes are connected.

    Parameters
    ----------
    grid : Grid
        Flower's grid.
    minimum : int
        With fewer nodes after the timeout, the call fails.
    expected : int, default 0
        Number of nodes with which the call returns at once. 0: it returns when at least ``minimum`` nodes
        are connected and their number has not changed for a second (in simulation nodes appear in a burst).
    timeout : float
        Seconds.

    Returns
    -------
    list[int]
        Node ids in ascending order.

    Raises
    ------
    TooFewRepliesError
        When fewer than ``minimum`` nodes connected in time.
    """
    deadline = time.monotonic() + timeout
    before = -1
    while True:
        nodes = sorted(grid.get_node_ids())
        if expected and len(nodes) >= expected:
            return nodes
        if not expected and len(nodes) >= minimum and len(nodes) == before:
            return nodes
        if time.monotonic() >= deadline:
            break
        if len(nodes) != before and len(nodes) < (expected or minimum):
            log.info("waiting for nodes: %d connected, %d needed", len(nodes), expected or minimum)
        before = len(nodes)
        time.sleep(min(SETTLE_SECONDS, max(0.0, deadline - time.monotonic())))
    if len(nodes) < minimum:
        raise TooFewRepliesError(
            f"{len(nodes)} of at least {minimum} nodes connected within {timeout:g} s; "
            "start more SuperNodes or lower min-nodes"
        )
    return nodes


def iter_replies(grid: Grid, messages: Sequence[Message], *, timeout: float) -> Iterator[tuple[int, Message]]:
    """Send messages and yield the replies one by one, in the order of arrival.

    Each reply is pulled on its own, so that only one is in memory, however many there are.

    Parameters
    ----------
    grid : Grid
        Flower's grid.
    messages : Sequence[Message]
        At most one for each node.
    timeout : float
        Seconds after which missing replies are given up.

    Yields
    ------
    tuple[int, Message]
        Id of the node that received the request, and its reply. The id comes from the request: an error
        reply about a lost node comes from the SuperLink itself.
    """
    deadline = time.monotonic() + timeout
    message_ids = grid.push_messages(messages)
    nodes = [message.metadata.dst_node_id for message in messages]
    pending = {i: node for i, node in zip(message_ids, nodes, strict=True) if i is not None}
    while pending:
        found = False
        for message_id in list(pending):
            replies = list(grid.pull_messages([message_id]))
            while replies:
                found = True
                # Popped: a reference would keep it in memory while the next one is pulled.
                yield pending.pop(message_id), replies.pop()
        if time.monotonic() >= deadline:
            return
        if not found:
            time.sleep(POLL_SECONDS)


def unresponsive_nodes(
    phase: str, messages: Sequence[Message], heard: Iterable[int], timeout: float
) -> list[ClientFailure]:
    """Return a failure for each node that received a request and did not reply within ``timeout`` seconds."""
    silent = {message.metadata.dst_node_id for message in messages} - set(heard)
    return [ClientFailure(str(node), phase, f"no reply within {timeout:g} s") for node in sorted(silent)]


def too_few_replies(
    phase: str, good: int, needed: int, failures: Iterable[ClientFailure]
) -> TooFewRepliesError:
    """Return the error of a phase that got too few good replies."""
    reasons = "; ".join(f"{each.client}: {each.reason}" for each in failures) or "no node replied"
    return TooFewRepliesError(f"{phase}: {good} good replies, at least {needed} needed ({reasons})")
