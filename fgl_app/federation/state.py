"""The state of a federation: its folder and the file ``federation.json`` in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, Self

import psutil  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fgl_app.config import ConfigError, RunConfig
from fgl_app.files import write_atomically
from fgl_app.launch.app_bundle import Scalar
from fgl_app.launch.flower import FlowerEnvironment, flower_environment
from fgl_app.launch.process_group import is_alive

SUPERLINK, SUPEREXEC = "superlink", "superexec"
ONLINE = "online"
"""Status at the SuperLink of a connected site."""
FEDERATION_VARIABLE = "FGL_FEDERATION"
"""Environment variable of all processes of a federation; its value is the federation's id."""

DATA_KEYS = (
    *("dataset", "dataset-config", "image-size", "image-column", "label-column", "class-subset"),
    *("partitioning", "dirichlet-alpha", "classes-per-client", "seed"),
)
"""Config keys that determine the images of a site."""

_FILE = "federation.json"
# Start times are relative to the boot time, which shifts by a second when the clock is set.
_START_TOLERANCE_SECONDS = 2.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Site(_Frozen):
    """A site and its SuperNode."""

    name: str  # Name of the site, its folder, its keys and its process.
    number: int  # Number of its partition, from 0.
    data: str  # Folder of its images, relative to the federation's folder.
    port: int  # Port on which its SuperNode listens for its ClientApps.
    node_id: str = ""  # Flower's id of its node; empty until the site is registered.


class ProcessRecord(_Frozen):
    """A started process."""

    name: str  # "superlink", "superexec" or the name of a site.
    pid: int  # The system can reuse it after the process has ended.
    create_time: float  # Seconds since 1970; distinguishes the process from a later one with the same id.

    def find(self) -> psutil.Process | None:
        """Return the process if it still runs."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.create_time) < _START_TOLERANCE_SECONDS
        except psutil.Error:
            return None
        return process if is_same and is_alive(process) else None


class Federation(_Frozen):
    """A federation on this machine."""

    version: Literal[1] = 1  # Version of the file format.
    id: str  # Unique, independent of the folder.
    insecure: bool  # Whether TLS and keys are off.
    address: str  # HOST:PORT of the SuperLink.
    sites: tuple[Site, ...]  # In the order of their numbers.
    processes: tuple[ProcessRecord, ...] = ()  # The last started process of each name.
    data_config: dict[str, Scalar]  # Values of DATA_KEYS.
    folder: Path = Field(exclude=True)  # Absolute; not in the file, so that the folder can be moved.

    @property
    def port(self) -> int:
        """Port of the SuperLink."""
        return int(self.address.rpartition(":")[2])

    @property
    def home(self) -> Path:
        """FLWR_HOME with the connection ``fgl`` to the SuperLink."""
        return self.folder / "home"

    @property
    def keys(self) -> Path:
        """Folder of keys and certificates."""
        return self.folder / "keys"

    @property
    def authority(self) -> Path | None:
        """Certificate of the authority that signed the SuperLink's certificate; None without TLS."""
        return None if self.insecure else self.keys / "ca.crt"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the processes in the order of their start."""
        return SUPERLINK, SUPEREXEC, *(site.name for site in self.sites)

    def run_config(self) -> dict[str, Scalar]:
        """Return the config values of a run on these sites: their dataset and their number."""
        return {**self.data_config, "partitioning": "sites", "num-clients": len(self.sites)}

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.folder / "logs" / f"{name}.log"

    def environment(self, home: Path | None = None) -> FlowerEnvironment:
        """Return the environment of Flower's commands, with this federation's or another FLWR_HOME."""
        variables = flower_environment(home or self.home) | {FEDERATION_VARIABLE: self.id}
        return FlowerEnvironment(self.folder, variables)

    def running(self, name: str) -> psutil.Process | None:
        """Return the process of this name if it runs."""
        return next((record.find() for record in self.processes if record.name == name), None)

    def with_process(self, record: ProcessRecord) -> Self:
        """Return this federation with a process that replaces the one of the same name."""
        others = tuple(other for other in self.processes if other.name != record.name)
        return self.model_copy(update={"processes": (*others, record)})

    def site(self, name: str) -> Site:
        """Return the site with this name."""
        return next(site for site in self.sites if site.name == name)

    def with_site(self, name: str, **changes: str | int) -> Self:
        """Return this federation with changed attributes of a site."""
        sites = (site.model_copy(update=changes) if site.name == name else site for site in self.sites)
        return self.model_copy(update={"sites": tuple(sites)})

    def save(self) -> Self:
        """Write ``federation.json`` and return this federation."""
        write_atomically(self.folder / _FILE, self.model_dump_json(indent=2) + "\n")
        return self


def data_config(config: RunConfig) -> dict[str, Scalar]:
    """Return the values of :data:`DATA_KEYS` in a config."""
    values = config.to_run_config()
    return {key: values[key] for key in DATA_KEYS}


def is_federation(folder: Path) -> bool:
    """Return whether a folder holds a federation."""
    return (folder / _FILE).is_file()


def read_federation(folder: Path) -> Federation:
    """Read the federation in a folder, running or not.

    Raises ConfigError if the folder holds no federation or the file cannot be read.
    """
    file = folder / _FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Federation.model_validate(content | {"folder": folder.absolute()})
    except FileNotFoundError:
        hint = f"`fgl federation up {folder}` creates one"
        raise ConfigError(f"there is no federation in '{folder}'; {hint}") from None
    except (OSError, ValueError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigError(f"'{file}' cannot be read as a federation: {reason}") from None
