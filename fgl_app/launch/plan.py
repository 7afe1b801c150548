"""What `fgl run` is to run: the config from its sources, the app's files, the shares of the machine."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from fgl_app.config import BUILTIN_NAMES, ConfigError, RunConfig, config_keys, parse_config
from fgl_app.results.resume import check_not_running, check_same_config, read_run_config

Scalar = str | int | float
DEFAULT_CLIENTS = 5

_PACKAGE = Path(__file__).resolve().parents[1]
_PYPROJECT = """\
[project]
name = "fgl-app"
version = {version}
description = "Generative federated learning on Flower"
license = "Apache-2.0"

[tool.flwr.app]
publisher = "fgl"

[tool.flwr.app.components]
serverapp = "fgl_app.server_app:app"
clientapp = "fgl_app.client_app:app"

[tool.flwr.app.config]
"""


def resolve_config(
    files: Iterable[Path],
    overrides: Sequence[str],
    clients: int | None,
    here: Path,
    now: datetime,
    *,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Put a run's config together: defaults, then the files, then the overrides.

    Parameters
    ----------
    files : Iterable[Path]
        TOML files of config keys; later ones win.
    overrides : Sequence[str]
        ``KEY=VALUE`` each; later ones win.
    clients : int or None
        Clients to be simulated; None leaves it to the config's ``num-clients``, else to the default.
    here : Path
        Directory that a relative ``output-dir`` is relative to.
    now : datetime
        For the run's name when the config has none.
    base : Mapping[str, Any] or None, default None
        Config values that stand for the defaults.

    Returns
    -------
    RunConfig
        Validated, with the number of clients, an absolute output directory and the run's name.

    Raises
    ------
    ConfigError
        One sentence on what is wrong.
    """
    values = {**(base or {}), **merge_config_sources(files, overrides)}
    asked = values.get("num-clients", 0)
    if clients is not None and asked not in (0, clients):
        raise ConfigError(f"--clients {clients} and config key 'num-clients' ({asked}) disagree; give one")
    config = parse_config(values | {"num-clients": clients or asked or DEFAULT_CLIENTS})
    output_dir = here / Path(config.output_dir).expanduser()
    name = config.run_name or _free_name(
        output_dir, f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{config.run_label}"
    )
    places = {
        "output-dir": str(output_dir),
        "run-name": name,
        "dataset": absolute_path(here, config.dataset),
        "generator": absolute_path(here, config.generator),
        "generator-lora": absolute_path(here, config.generator_lora),
        "classifier": absolute_path(here, config.classifier),
        "feature-extractor": absolute_path(here, config.feature_extractor),
        "captioner": absolute_path(here, config.captioner),
        "vocabulary": _file(here, config.vocabulary),
        # Simulated clients leave nothing outside the run's folder.
        "client-state-dir": str(here / Path(config.client_state_dir).expanduser())
        if config.client_state_dir
        else ("" if config.resume else str(output_dir / name / "clients")),
    }
    return parse_config(config.to_run_config() | places)


def load_resume_config(run: Path) -> dict[str, Any]:
    """Return the config values with which the run of a folder goes on.

    Raises
    ------
    ConfigError
        When the folder is no run's, or the run completed or still goes on.
    """
    folder = run.expanduser().resolve()
    try:
        values = read_run_config(folder)
        check_not_running(folder)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return values | {"resume": True, "output-dir": str(folder.parent), "run-name": folder.name}


def check_resume_config(before: Mapping[str, Any], config: RunConfig) -> None:
    """Check that a run goes on as it began.

    Raises
    ------
    ConfigError
        Names the key that may not change.
    """
    try:
        check_same_config(before, config.to_run_config())
    except ValueError as error:
        raise ConfigError(str(error)) from error


def merge_config_sources(files: Iterable[Path], overrides: Iterable[str]) -> dict[str, Any]:
    """Return the config values that TOML files and ``KEY=VALUE`` overrides give; later ones win."""
    values: dict[str, Any] = {}
    for file in files:
        values |= read_config(file)
    return values | dict(parse_override(text) for text in overrides)


def _file(here: Path, name: str) -> str:
    """Name a file by its absolute path; a bare name is one that is shipped."""
    return str(here / Path(name).expanduser()) if Path(name).suffix else name


def absolute_path(here: Path, source: str) -> str:
    """Name a folder or file by its absolute path, since the run happens elsewhere; keep a hub id."""
    place = here / Path(source).expanduser()
    return str(place) if source and source not in BUILTIN_NAMES and place.exists() else source


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``KEY=VALUE``: the value of a string key is taken as it stands, any other as a TOML scalar."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError(f"config values are given as KEY=VALUE, without spaces around '=', got '{text}'")
    if isinstance(config_keys().get(key, ""), str):
        return key, value
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        # The config names the rule for the key better than the TOML reader could.
        return key, value
    return key, parsed if isinstance(parsed, bool | int | float) else value


def read_config(file: Path) -> dict[str, Any]:
    """Read a TOML file of config keys; what is wrong with it is a :class:`ConfigError`."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file '{file}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file '{file}' is not valid TOML: {error}") from error


def stage_app(folder: Path) -> Path:
    """Lay out this package as a Flower app: the installed code with a ``pyproject.toml`` beside it.

    The repository itself is not handed to Flower: an installed wheel has none, and Flower reads through
    the whole directory it is given.

    Parameters
    ----------
    folder : Path
        New folder for the app.

    Returns
    -------
    Path
        The folder.
    """
    for source in _PACKAGE.rglob("*.py"):
        target = folder / _PACKAGE.name / source.relative_to(_PACKAGE)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    text = _PYPROJECT.format(version=json.dumps(metadata.version("fgl-app")))
    (folder / "pyproject.toml").write_text(text + to_toml(config_keys()), encoding="utf-8")
    return folder


def to_toml(values: Mapping[str, Scalar]) -> str:
    """Write scalars as TOML lines; a JSON string is a TOML string but for the DEL character."""
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())
    return "".join(lines).replace("\x7f", "\\u007f")


@dataclass(frozen=True)
class Machine:
    """What this process may use of its machine.

    Attributes
    ----------
    cpus, gpus : int
        CPUs and NVIDIA GPUs.
    """

    cpus: int
    gpus: int

    @classmethod
    def detect(cls) -> Machine:
        """Look at the machine."""
        usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        return cls(usable or 1, _count_gpus())


def federation_config(clients: int, machine: Machine, gpus_per_client: float | None) -> str:
    """Return Flower's federation config: how many clients there are and what each may use.

    Parameters
    ----------
    clients : int
        Simulated clients (SuperNodes).
    machine : Machine
        Its CPUs are shared out evenly in whole CPUs; as many clients run at a time as find one.
    gpus_per_client : float or None
        Share of a GPU that a client takes; None lets those that run at a time share the GPUs evenly.

    Returns
    -------
    str
        For ``flwr run --federation-config``.
    """
    each = max(1, machine.cpus // clients)
    together = min(clients, machine.cpus)
    if gpus_per_client is None:
        # Rounded down: shares that add up to more than a GPU would keep one client waiting.
        share = 1 / math.ceil(together / machine.gpus) if machine.gpus else 0.0
        gpus_per_client = math.floor(share * 10_000) / 10_000
    # Flower starts a client process for all CPUs that Ray has, however few clients there are.
    values = {
        "num-supernodes": clients,
        "client-resources-num-cpus": each,
        "client-resources-num-gpus": gpus_per_client,
        "init-args-num-cpus": each * together,
    }
    return " ".join(f"{key}={value}" for key, value in values.items())


def _count_gpus() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    if shutil.which("nvidia-smi") is None:
        return 0
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def _free_name(output_dir: Path, name: str) -> str:
    """Return the name, with a number when runs of the same second have taken it."""
    number, free = 1, name
    while (output_dir / free).exists():
        number += 1
        free = f"{name}-{number}"
    return free
