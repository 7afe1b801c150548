"""Telling hub ids from folders."""

from __future__ import annotations


def looks_like_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, "owner/name", rather than of a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))
