"""Hub ids: their form, their revisions, and errors for sources that cannot be loaded."""

from __future__ import annotations


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, "owner/name", rather than of a path."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def split_revision(hub_id: str) -> tuple[str, dict[str, str]]:
    """Split "owner/name@revision" into the name and the ``revision`` argument of loaders, if any."""
    name, _, revision = hub_id.partition("@")
    return name, {"revision": revision} if revision else {}


def unknown_source_error(key: str, known_names: str, value: str) -> ValueError:
    """Return the error for a config value that is not a known name, an existing folder or a hub id."""
    return ValueError(
        f"{key} must be {known_names}, a folder or a hub id such as 'owner/name', got '{value}', "
        "which is not an existing folder"
    )


def unreachable_error(key: str, value: str, contents: str = "") -> ValueError:
    """Return the error for a hub id that is not cached while the hub cannot be reached."""
    return ValueError(
        f"{key} '{value}' is neither in the hub's cache nor can it be downloaded; "
        f"give a local folder{contents}"
    )
