"""The identity of a client, from the node config of its SuperNode."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fgl_app.config import RunConfig


@dataclass(frozen=True)
class Site:
    """A client."""

    name: str  # Unique; used in messages and file names.
    number: int  # Seed of its random streams.
    num_sites: int  # Number of clients over which a dataset is split; 0 if the client has its own data.
    data_path: str  # Path of its own data; empty if a dataset is split.
    state: Path  # Folder for its state across rounds and restarts.


def site_identity(node_config: Mapping[str, object]) -> tuple[str, int]:
    """Return the name of a SuperNode's site, empty if it has none, and the seed of its random streams."""
    partition_id = node_config.get("partition-id")
    if partition_id is None:
        name = str(node_config.get("site-name", ""))
        return name, zlib.crc32(name.encode())
    number = str(partition_id)
    if not number.isdecimal():
        raise ValueError(f"partition-id in --node-config must be a whole number, got '{number}'")
    return str(node_config.get("site-name", f"{int(number):05d}")), int(number)


def read_site(node_config: Mapping[str, object], config: RunConfig) -> Site:
    """Return the client of a SuperNode's node config; raises ValueError if a key is missing or invalid.

    Flower's simulation gives ``partition-id`` and ``num-partitions``. A site with its own data gives
    ``data-path``, ``site-name`` or ``partition-id`` or both, and optionally ``state-path``.
    """
    name, number = site_identity(node_config)
    required = ("data-path",) if config.clients_own_data else ("partition-id", "num-partitions")
    missing = [key for key in required if key not in node_config]
    if missing or not name:
        missing += [] if name else ["site-name"]
        raise ValueError(f"this SuperNode needs --node-config with {' and '.join(missing)}")
    if not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise ValueError(f"site-name must have at most 64 letters, digits and . _ -, got '{name}'")
    # The server's config decides where simulated clients write; a site with its own data decides for itself.
    state_path = str(node_config.get("state-path", ""))
    if not config.clients_own_data:
        num_sites = int(str(node_config["num-partitions"]))
        return Site(name, number, num_sites, "", _state_folder(state_path or config.client_state_dir) / name)
    return Site(name, number, 0, str(node_config["data-path"]), _state_folder(state_path) / name)


def _state_folder(path: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(path).expanduser() if path else cache / "fgl"
