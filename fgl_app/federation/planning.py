"""What `fgl federation up` starts: the federation that a folder holds, or a new one."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from fgl_app.config import ConfigError, RunConfig, parse_config
from fgl_app.federation.state import DATA_KEYS, Federation, Site, data_config, is_federation, read_federation
from fgl_app.launch.config_sources import absolute_path
from fgl_app.launch.flower import free_ports

DEFAULT_SITES = 3


def open_or_plan(folder: Path, values: dict[str, Any], sites: int | None, *, insecure: bool) -> Federation:
    """Return the federation in a folder, or plan a new one there without writing anything.

    Without ``sites``, their number is that of the existing federation, the config or the default. Raises
    ConfigError if a value is invalid, or the existing federation differs from the requested one.
    """
    requested = values.get("num-clients", 0)
    if sites is not None and requested not in (0, sites):
        raise ConfigError(f"--sites {sites} and config key 'num-clients' ({requested}) differ; give only one")
    if "dataset" in values:
        values = values | {"dataset": absolute_path(Path.cwd(), values["dataset"])}
    if is_federation(folder):
        return _open(folder, values, sites or requested, insecure=insecure)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"'{folder}' exists and is not a federation; give a new folder")
    if '"' in str(folder.absolute()):
        raise ConfigError(f"the federation's folder must not contain a double quote, got '{folder}'")
    number = sites or requested or DEFAULT_SITES
    if values.get("domain-column"):
        raise ConfigError(
            "config key 'domain-column' is not supported in a federation; leave it out, or use `fgl run`"
        )
    config = parse_config(values | {"num-clients": number})
    if config.clients_own_data:
        raise ConfigError(
            "config key 'partitioning' must split the dataset over the sites, got 'sites'; leave it out"
        )
    from fgl_app.data.partitions import partition

    try:
        partition(config, number)
    except (ValueError, OSError) as error:
        raise ConfigError(str(error)) from error
    return plan_federation(folder, number, config, insecure=insecure)


def _open(folder: Path, values: dict[str, Any], sites: int, *, insecure: bool) -> Federation:
    """Return an existing federation if it is as requested."""
    federation = read_federation(folder)
    advice = "give another folder or leave it out"
    if sites not in (0, len(federation.sites)):
        raise ConfigError(
            f"the federation in '{folder}' has {len(federation.sites)} sites, got {sites}; {advice}"
        )
    if insecure and not federation.insecure:
        raise ConfigError(f"the federation in '{folder}' has TLS and keys, got --insecure; {advice}")
    chosen = {key: value for key, value in values.items() if key in DATA_KEYS}
    requested = data_config(parse_config(federation.data_config | chosen))
    for key, value in federation.data_config.items():
        if requested[key] != value:
            raise ConfigError(
                f"the sites in '{folder}' hold data with {key}={value}, got {key}={requested[key]}; {advice}"
            )
    return federation


def plan_federation(folder: Path, sites: int, config: RunConfig, *, insecure: bool) -> Federation:
    """Return a new federation with a unique id, an absolute folder and unused ports; write nothing."""
    superlink, *ports = free_ports(sites + 1)
    return Federation(
        id=secrets.token_hex(8),
        insecure=insecure,
        address=f"127.0.0.1:{superlink}",
        sites=tuple(
            Site(name=f"site-{number}", number=number, data=f"site-{number}/data", port=port)
            for number, port in enumerate(ports)
        ),
        data_config=data_config(config),
        folder=folder.absolute(),
    )
