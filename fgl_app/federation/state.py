"""What is known of a federation: its folder, and ``federation.json`` in it."""

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
"""What the SuperLink says of a site that takes part."""
MARK = "FGL_FEDERATION"
"""Environment variable by which the processes of a federation are known; its value is the federation's id."""

DATA_KEYS = (
    "dataset",
    "dataset-config",
    "image-size",
    "image-column",
    "label-column",
    "class-subset",
    "partitioning",
    "dirichlet-alpha",
    "classes-per-client",
    "seed",
)
"""Config keys that decide which images a site holds."""

_FILE = "federation.json"
# Start times are told from the machine's time of boot, which moves by a second when its clock is set.
_SAME_START_SECONDS = 2.0


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Site(_Frozen):
    """A site and its SuperNode.

    Attributes
    ----------
    name : str
        Also that of its folder, its keys and its process.
    number : int
        Its partition, from 0.
    data : str
        Folder of its images, relative to the federation's.
    port : int
        Where its SuperNode listens for its own ClientApps.
    node_id : str
        By which Flower knows it; empty as long as it has never been registered.
    """

    name: str
    number: int
    data: str
    port: int
    node_id: str = ""


class ProcessRecord(_Frozen):
    """A process that was started.

    Attributes
    ----------
    name : str
        "superlink", "superexec" or a site's.
    pid : int
        Its number, which the system may give to another process after its end.
    create_time : float
        When it was started, seconds since 1970: tells the two apart.
    """

    name: str
    pid: int
    create_time: float

    def find(self) -> psutil.Process | None:
        """Return the process, if it still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.create_time) < _SAME_START_SECONDS
        except psutil.Error:
            return None
        return process if same and is_alive(process) else None


class Federation(_Frozen):
    """A federation on this machine.

    Attributes
    ----------
    version : int
        Of the file's form.
    id : str
        Told from others by it, whatever its folder is called.
    insecure : bool
        Whether it is without TLS and keys.
    address : str
        ``HOST:PORT`` of the SuperLink.
    sites : tuple[Site, ...]
        In the order of their numbers.
    processes : tuple[ProcessRecord, ...]
        Those started last under each name.
    data_config : dict[str, Scalar]
        The config keys of :data:`DATA_KEYS`.
    folder : Path
        Absolute; not in the file, so that the folder can be moved.
    """

    version: Literal[1] = 1
    id: str
    insecure: bool
    address: str
    sites: tuple[Site, ...]
    processes: tuple[ProcessRecord, ...] = ()
    data_config: dict[str, Scalar]
    folder: Path = Field(exclude=True)

    @property
    def port(self) -> int:
        """Port of the SuperLink."""
        return int(self.address.rpartition(":")[2])

    @property
    def home(self) -> Path:
        """FLWR_HOME for commands that speak to the SuperLink: its connection is named ``fgl``."""
        return self.folder / "home"

    @property
    def keys(self) -> Path:
        """Folder of keys and certificates."""
        return self.folder / "keys"

    @property
    def authority(self) -> Path | None:
        """Certificate by which the SuperLink's is checked; None without TLS."""
        return None if self.insecure else self.keys / "ca.crt"

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its processes, in the order in which they are started."""
        return SUPERLINK, SUPEREXEC, *(site.name for site in self.sites)

    def run_config(self) -> dict[str, Scalar]:
        """Return the config values of a run on these sites: the data they were made of, and how many."""
        return {**self.data_config, "partitioning": "sites", "num-clients": len(self.sites)}

    def log(self, name: str) -> Path:
        """Return the log file of a process."""
        return self.folder / "logs" / f"{name}.log"

    def environment(self, home: Path | None = None) -> FlowerEnvironment:
        """Return where Flower's commands of this federation run, given another FLWR_HOME than its own."""
        return FlowerEnvironment(self.folder, flower_environment(home or self.home) | {MARK: self.id})

    def running(self, name: str) -> psutil.Process | None:
        """Return the process of a name, if it runs."""
        return next((record.find() for record in self.processes if record.name == name), None)

    def with_process(self, record: ProcessRecord) -> Self:
        """Return this federation with a process in place of the earlier one of its name."""
        others = tuple(known for known in self.processes if known.name != record.name)
        return self.model_copy(update={"processes": (*others, record)})

    def site(self, name: str) -> Site:
        """Return the site of a name."""
        return next(site for site in self.sites if site.name == name)

    def with_site(self, name: str, **changes: str | int) -> Self:
        """Return this federation with attributes of a site changed."""
        sites = (site.model_copy(update=changes) if site.name == name else site for site in self.sites)
        return self.model_copy(update={"sites": tuple(sites)})

    def save(self) -> Self:
        """Write ``federation.json`` and return this federation."""
        write_atomically(self.folder / _FILE, self.model_dump_json(indent=2) + "\n")
        return self


def data_config(config: RunConfig) -> dict[str, Scalar]:
    """Return those keys of a config that decide which images a site holds."""
    values = config.to_run_config()
    return {key: values[key] for key in DATA_KEYS}


def is_federation(folder: Path) -> bool:
    """Return whether a folder holds a federation."""
    return (folder / _FILE).is_file()


def read_federation(folder: Path) -> Federation:
    """Read the federation in a folder.

    Parameters
    ----------
    folder : Path
        The folder that was given to ``fgl federation up``.

    Returns
    -------
    Federation
        As its file has it; what of it still runs is not asked here.

    Raises
    ------
    ConfigError
        When there is none, or its file cannot be read.
    """
    file = folder / _FILE
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return Federation.model_validate(content | {"folder": folder.absolute()})
    except FileNotFoundError:
        raise ConfigError(
            f"there is no federation in '{folder}'; `fgl federation up {folder}` makes one"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ConfigError(f"'{file}' cannot be read as a federation: {reason}") from None
