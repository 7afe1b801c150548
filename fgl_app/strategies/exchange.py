"""Asking nodes and hearing from them: waiting, pulling replies one by one, telling their errors apart."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from flwr.app import Message
from flwr.serverapp import Grid

from fgl_app.progress import log

POLL_SECONDS = 0.2
SETTLE_SECONDS = 1.0
LONGEST_REASON = 500


class TooFewRepliesError(RuntimeError):
    """Fewer good replies than a phase needs; the message names the nodes and their reasons."""


@dataclass(frozen=True)
class ClientFailure:
    """A node's reply that was of no use.

    Parameters
    ----------
    node : str
        The node's id.
    phase : str
        What it was asked for.
    reason : str
        What was wrong.
    site : str, default ""
        Which site the reply says it comes from; a claim, nothing more.
    """

    node: str
    phase: str
    reason: str
    site: str = ""

    def __post_init__(self) -> None:
        # Parts of it are what a client sent: no more of that than a line of the log can show.
        for name in ("reason", "site"):
            text = getattr(self, name)[:LONGEST_REASON]
            object.__setattr__(self, name, "".join(c if c.isprintable() else " " for c in text))

    @classmethod
    def from_error_reply(cls, node: str, phase: str, reply: Message) -> ClientFailure:
        """Return the incident of an error reply."""
        return cls(node, phase, reply.error.reason or f"error {reply.error.code}")

    @property
    def who(self) -> str:
        """The node, and the site it claims to be."""
        return f"node {self.node}, site {self.site}" if self.site else f"node {self.node}"

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
        Fewer nodes at the time-out are an error.
    expected : int, default 0
        Return as soon as so many are there. 0: when at least ``minimum`` are there and their number has
        stopped growing for a second (in simulation nodes appear in a burst).
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
    """Send messages and yield the replies one at a time, as they come.

    Replies are pulled singly, so that the memory in use is that of one reply however many there are.

    Parameters
    ----------
    grid : Grid
        Flower's grid.
    messages : Sequence[Message]
        At most one for each node.
    timeout : float
        Seconds until the remaining replies are given up.

    Yields
    ------
    tuple[int, Message]
        Id of the node that was asked, and its reply. The node is known from the request: an error reply
        about a lost node comes from the SuperLink itself.
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
                # Popped, since a name for it would keep it in memory while the next one is pulled.
                yield pending.pop(message_id), replies.pop()
        if time.monotonic() >= deadline:
            return
        if not found:
            time.sleep(POLL_SECONDS)


def unresponsive_nodes(
    phase: str, messages: Sequence[Message], heard: Iterable[int], timeout: float
) -> list[ClientFailure]:
    """Return an incident for each node that was asked and not heard within ``timeout`` seconds."""
    silent = {message.metadata.dst_node_id for message in messages} - set(heard)
    return [ClientFailure(str(node), phase, f"no reply within {timeout:g} s") for node in sorted(silent)]


def explain(phase: str, good: int, needed: int, incidents: Iterable[ClientFailure]) -> str:
    """Return the sentence of a phase that got too few good replies."""
    reasons = "; ".join(f"{i.who}: {i.reason}" for i in incidents) or "no node replied"
    return f"{phase}: {good} good replies, at least {needed} needed ({reasons})"
