"""A grid that counts the bytes of every message and rejects replies that are far too large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from flwr.app import Error, Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fgl_app.messages.sites import site_name
from fgl_app.messages.sizes import message_bytes
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.strategies.exchange import iter_replies

TOO_LARGE, UNREADABLE_REPLY = 413, 400
"""Codes of the errors in place of a reply that is too large, or cannot be read."""
UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, DecodeError)
"""Errors that Flower raises for a malformed reply; a lost connection raises another."""


class MeteredGrid(Grid):
    """Delegate to another grid and record the size of each message.

    Replies to a round's messages are pulled one by one, and one that is far larger than its request is
    dropped at once, so that memory holds the good replies and one more, whatever clients send.

    Parameters
    ----------
    grid : Grid
        Flower's grid.
    ledger : TrafficLedger
        Gets the serialized size of each message sent (downlink) and of each reply (uplink).
    phase_names : Mapping[str, str] or None, default None
        Message type to phase; other types are their own phase.
    waiting : Callable[[], AbstractContextManager[None]], default nullcontext
        Context that is active while the grid waits for the replies of a round.
    max_reply_bytes : int, default 64,000,000
        Largest reply in a round, or twice the size of its request if that is more; a larger reply is replaced
        by an error.
    """

    def __init__(
        self,
        grid: Grid,
        ledger: TrafficLedger,
        *,
        phase_names: Mapping[str, str] | None = None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        max_reply_bytes: int = 64_000_000,
    ) -> None:
        self._grid = grid
        self._ledger = ledger
        self._phase_names = phase_names or {}
        self._waiting = waiting
        self._max_reply_bytes = max_reply_bytes
        self._requests: dict[str, Message] = {}

    def set_run(self, run: Run) -> None:
        """Set the run."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The run."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message (deprecated in Flower)."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the connected nodes."""
        return self._grid.get_node_ids()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """Return the connected nodes."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages and record their sizes."""
        sent = list(messages)
        message_ids = list(self._grid.push_messages(sent))
        self._count_requests(sent)
        self._requests.update(zip(message_ids, sent, strict=True))
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Pull replies one by one and record their sizes.

        A reply names its own sender and request, so both are set from the request here; a reply that Flower
        cannot read becomes an error.
        """
        return [reply for message_id in message_ids for reply in self._pull(message_id)]

    def _pull(self, message_id: str) -> list[Message]:
        request = self._requests.get(message_id)
        try:
            replies = list(self._grid.pull_messages([message_id]))
            sizes = [message_bytes(reply) for reply in replies]
        except UNREADABLE as error:
            if request is None:
                raise
            reason = f"the reply cannot be read: {type(error).__name__}: {error}"
            replies, sizes = [Message(Error(UNREADABLE_REPLY, reason), reply_to=request)], [0]
        for reply, size in zip(replies, sizes, strict=True):
            self._ledger.record(self._phase(request) if request else "other", "uplink", size)
            if request:
                reply.metadata.__dict__["_src_node_id"] = request.metadata.dst_node_id
                reply.metadata.__dict__["_reply_to_message_id"] = message_id
                self._requests.pop(message_id, None)
        return replies

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Send messages, wait for the replies, and record the sizes of both."""
        sent = list(messages)
        if not sent:
            return []
        requests = {message.metadata.dst_node_id: message for message in sent}
        with self._waiting():
            # This grid's own methods record the sizes.
            pulled = iter_replies(self, sent, timeout=timeout if timeout is not None else math.inf)
            # A map holds no reference to a reply while the next one is pulled.
            replies = list(map(partial(self._unless_too_large, requests), pulled))
        # The request of a silent node gets no reply any more, and holds a model.
        silent = {id(message) for message in sent}
        self._requests = {i: request for i, request in self._requests.items() if id(request) not in silent}
        return replies

    def _unless_too_large(self, requests: Mapping[int, Message], pulled: tuple[int, Message]) -> Message:
        node, reply = pulled
        request = requests[node]
        size = message_bytes(reply)
        # The request is measured only when needed: that serializes a model once more.
        if size <= self._max_reply_bytes or size <= 2 * message_bytes(request):
            return reply
        most = max(self._max_reply_bytes, 2 * message_bytes(request))
        reason = f"reply of {size:,} bytes from site {site_name(reply)}, at most {most:,} are accepted"
        return Message(Error(TOO_LARGE, reason), reply_to=request)

    def _phase(self, request: Message) -> str:
        message_type = request.metadata.message_type
        return self._phase_names.get(message_type, message_type)

    def _count_requests(self, messages: Iterable[Message]) -> None:
        # After sending: messages then have their ids, which are part of them.
        for message in messages:
            self._ledger.record(self._phase(message), "downlink", message_bytes(message))
