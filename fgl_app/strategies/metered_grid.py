"""A grid that counts the bytes of every message it carries, and carries none that is far too large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from fgl_app.messages.records import message_bytes, site_name
from fgl_app.metrics.traffic import TrafficLedger
from fgl_app.strategies.exchange import iter_replies

TOO_LARGE, UNREADABLE_REPLY = 413, 400
"""Codes of the errors in place of a reply that is too large, or cannot be read."""
UNREADABLE = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, DecodeError)
"""What Flower raises for a reply that was made to break it; a lost connection is none of these."""


class MeteredGrid(Grid):
    """Hand everything to another grid and enter each message into a ledger.

    Replies to a round's messages are pulled one by one, and one that is far larger than what was sent is
    dropped at once, so that memory stays that of the good replies and one more, whatever clients send.

    Parameters
    ----------
    grid : Grid
        Flower's grid.
    ledger : TrafficLedger
        Gets the serialized size of each message sent (downlink) and of each reply (uplink).
    phase_names : Mapping[str, str] or None, default None
        Message type to the phase it is entered under; other types are their own phase.
    waiting : Callable[[], AbstractContextManager[None]], default nullcontext
        Entered while the replies to a round's messages are awaited.
    max_reply_bytes : int, default 64,000,000
        A round's reply may be of this size, or twice that of its request if that is more; in place of a
        larger one comes an error that says so.
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
        """Create a message (Flower's deprecated way)."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of the connected nodes."""
        return self._grid.get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send messages, counting them."""
        sent = list(messages)
        message_ids = list(self._grid.push_messages(sent))
        self._count_requests(sent)
        self._requests.update(zip(message_ids, sent, strict=True))
        return message_ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Fetch replies one by one, counting them.

        A reply says of itself whom it is from and what it answers, so both are put right here; one that
        Flower cannot read becomes an error.
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
            reason = f"a reply that cannot be read: {type(error).__name__}: {error}"
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
        """Send messages and wait for the replies, counting both."""
        sent = list(messages)
        if not sent:
            return []
        requests = {message.metadata.dst_node_id: message for message in sent}
        with self._waiting():
            # Through this grid's own methods, which count.
            pulled = iter_replies(self, sent, timeout=timeout if timeout is not None else math.inf)
            # A map keeps no name for a reply, and so none in memory, while the next one is pulled.
            replies = list(map(partial(self._unless_too_large, requests), pulled))
        # A silent node's request is answered no more, and holds a model.
        silent = {id(message) for message in sent}
        self._requests = {i: request for i, request in self._requests.items() if id(request) not in silent}
        return replies

    def _unless_too_large(self, requests: Mapping[int, Message], pulled: tuple[int, Message]) -> Message:
        node, reply = pulled
        request = requests[node]
        size = message_bytes(reply)
        # The request is measured only when it matters: that serializes a whole model once more.
        if size <= self._max_reply_bytes or size <= 2 * message_bytes(request):
            return reply
        most = max(self._max_reply_bytes, 2 * message_bytes(request))
        reason = f"reply of {size:,} bytes from site {site_name(reply)}, at most {most:,} are accepted"
        return Message(Error(TOO_LARGE, reason), reply_to=request)

    def _phase(self, request: Message) -> str:
        message_type = request.metadata.message_type
        return self._phase_names.get(message_type, message_type)

    def _count_requests(self, messages: Iterable[Message]) -> None:
        # After sending: only then do messages have their ids, which travel too.
        for message in messages:
            self._ledger.record(self._phase(message), "downlink", message_bytes(message))
