"""Which client this is: what its SuperNode's node config says."""

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
    """A client.

    Parameters
    ----------
    name : str
        Tells it from the others, in messages and in the names of files.
    number : int
        Seeds its random streams.
    num_sites : int
        Over how many clients a data set is split; 0 when it has data of its own.
    data_path : str
        Where its own data are; empty when a data set is split.
    state : Path
        Folder for what it keeps over rounds and restarts.
    """

    name: str
    number: int
    num_sites: int
    data_path: str
    state: Path


def site_identity(node_config: Mapping[str, object]) -> tuple[str, int]:
    """Return the name of a SuperNode's site, empty when it has none, and the number of its random streams."""
    partition_id = node_config.get("partition-id")
    if partition_id is None:
        name = str(node_config.get("site-name", ""))
        return name, zlib.crc32(name.encode())
    number = str(partition_id)
    if not number.isdecimal():
        raise ValueError(f"partition-id in --node-config must be a whole number, got '{number}'")
    return str(node_config.get("site-name", f"{int(number):05d}")), int(number)


def read_site(node_config: Mapping[str, object], config: RunConfig) -> Site:
    """Read a SuperNode's node config.

    Parameters
    ----------
    node_config : Mapping[str, object]
        Flower's simulation gives ``partition-id`` and ``num-partitions``. A site with data of its own has
        ``data-path``, ``site-name`` or ``partition-id`` or both, and maybe ``state-path``.
    config : RunConfig
        Says which of the two a run is.

    Returns
    -------
    Site
        Which client this is, and where its data and its own state are.

    Raises
    ------
    ValueError
        When a key is missing or has no sense; says which.
    """
    name, number = site_identity(node_config)
    needed = ("data-path",) if config.clients_own_data else ("partition-id", "num-partitions")
    missing = [key for key in needed if key not in node_config]
    if missing or not name:
        missing += [] if name else ["site-name"]
        raise ValueError(f"this SuperNode needs --node-config with {' and '.join(missing)}")
    if not re.fullmatch(r"\w[\w.-]{0,63}", name):
        raise ValueError(f"site-name must be of at most 64 letters, digits and . _ -, got '{name}'")
    # Where a site says it writes, it writes: the server's config has a say for simulated clients alone.
    own = str(node_config.get("state-path", ""))
    if not config.clients_own_data:
        of = int(str(node_config["num-partitions"]))
        return Site(name, number, of, "", _state_folder(own or config.client_state_dir) / name)
    return Site(name, number, 0, str(node_config["data-path"]), _state_folder(own) / name)


def _state_folder(given: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(given).expanduser() if given else cache / "fgl"
