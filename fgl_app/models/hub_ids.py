"""Telling hub ids from folders."""

from __future__ import annotations


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, "owner/name", rather than of a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def unknown_source_error(key: str, own_names: str, value: str) -> ValueError:
    """Return the error of a config value that is no own name, no folder that is there and no hub id."""
    return ValueError(
        f"{key} must be {own_names}, a folder or a hub id such as 'owner/name', got '{value}', "
        "which is no folder here"
    )
