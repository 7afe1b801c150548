"""The record by which a client names its site: Flower's node ids are random."""

from __future__ import annotations

import hashlib

from flwr.app import ConfigRecord, Message

from fgl_app.messages.keys import SITE

MAX_NAME_LENGTH = 64


def site_record(name: str) -> ConfigRecord:
    """Return the record with a site's name."""
    return ConfigRecord({"name": name})


def site_name(message: Message) -> str:
    """Return the site's name in a reply; without one, the node id."""
    record = message.content.config_records.get(SITE) if message.has_content() else None
    name = record.get("name") if record is not None else None
    # The client chooses it, so its length is limited to what a log line can show.
    return name[:MAX_NAME_LENGTH] if isinstance(name, str) else str(message.metadata.src_node_id)


def site_digest(name: str) -> str:
    """Return a digest by which a site recognizes its own name, and nobody reads another's."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
