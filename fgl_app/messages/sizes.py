"""Serialized sizes of messages."""

from __future__ import annotations

from flwr.app import Message, RecordDict
from flwr.common.serde import recorddict_to_proto
from flwr.common.serde_utils import error_to_proto


def message_bytes(message: Message) -> int:
    """Return the serialized size of a message's content or error, bytes.

    The envelope of about 200 bytes is left out: its random ids change its size from run to run.
    """
    if message.has_error():
        return int(error_to_proto(message.error).ByteSize())
    return content_bytes(message.content)


def content_bytes(content: RecordDict) -> int:
    """Return the serialized size of a message's content, bytes."""
    return int(recorddict_to_proto(content).ByteSize())
