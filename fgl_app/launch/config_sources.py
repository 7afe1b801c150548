"""The config of a run from its sources: defaults, presets and files, overrides, or an earlier run."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fgl_app.config import BUILTIN_NAMES, ConfigError, RunConfig, config_keys, parse_config
from fgl_app.results.resume import check_not_running, check_same_config, read_run_config

DEFAULT_CLIENTS = 5


def resolve_config(
    files: Iterable[Path],
    overrides: Sequence[str],
    clients: int | None,
    base_dir: Path,
    now: datetime,
    *,
    base: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Return the config of a run from the defaults, then the files, then the overrides.

    Parameters
    ----------
    files : Iterable[Path]
        TOML files of config keys; later ones win.
    overrides : Sequence[str]
        ``KEY=VALUE`` strings; later ones win.
    clients : int or None
        Number of simulated clients; None for the config's ``num-clients``, else the default.
    base_dir : Path
        Directory for relative paths.
    now : datetime
        Time in the default name of the run.
    base : Mapping[str, Any] or None, default None
        Config values that replace the defaults.

    Returns
    -------
    RunConfig
        The validated config with the number of clients, an absolute output directory and the run's name.

    Raises
    ------
    ConfigError
        Names the key, the rule and the value.
    """
    values = {**(base or {}), **merge_config_sources(files, overrides)}
    requested = values.get("num-clients", 0)
    if clients is not None and requested not in (0, clients):
        raise ConfigError(
            f"--clients {clients} and config key 'num-clients' ({requested}) differ; give only one"
        )
    config = parse_config(values | {"num-clients": clients or requested or DEFAULT_CLIENTS})
    output_dir = base_dir / Path(config.output_dir).expanduser()
    default_name = f"{now.astimezone(UTC):%Y%m%dT%H%M%S}-{config.run_label}"
    name = config.run_name or _unused_name(output_dir, default_name)
    resolved = config.to_run_config()
    for key in ("dataset", "generator", "generator-lora", "classifier", "feature-extractor", "captioner"):
        resolved[key] = absolute_path(base_dir, str(resolved[key]))
    # A shipped vocabulary has a name without suffix.
    if Path(config.vocabulary).suffix:
        resolved["vocabulary"] = str(base_dir / Path(config.vocabulary).expanduser())
    if config.client_state_dir:
        resolved["client-state-dir"] = str(base_dir / Path(config.client_state_dir).expanduser())
    elif not config.resume:
        # Simulated clients write only to the run's folder.
        resolved["client-state-dir"] = str(output_dir / name / "clients")
    return parse_config(resolved | {"output-dir": str(output_dir), "run-name": name})


def load_resume_config(run: Path) -> dict[str, Any]:
    """Return the config values that resume the run in a folder.

    Raises ConfigError if the folder is not a run's, or the run completed or is still running.
    """
    folder = run.expanduser().resolve()
    try:
        values = read_run_config(folder)
        check_not_running(folder)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return values | {"resume": True, "output-dir": str(folder.parent), "run-name": folder.name}


def check_resume_config(before: Mapping[str, Any], config: RunConfig) -> None:
    """Check that a resumed run keeps its config; raises ConfigError with the key that must not change."""
    try:
        check_same_config(before, config.to_run_config())
    except ValueError as error:
        raise ConfigError(str(error)) from error


def merge_config_sources(files: Iterable[Path], overrides: Iterable[str]) -> dict[str, Any]:
    """Return the config values of TOML files and ``KEY=VALUE`` overrides; later ones win."""
    values: dict[str, Any] = {}
    for file in files:
        values |= _read_config(file)
    return values | dict(parse_override(text) for text in overrides)


def _read_config(file: Path) -> dict[str, Any]:
    """Return the content of a TOML file of config keys; raises ConfigError if it cannot be read."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file '{file}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file '{file}' is not valid TOML: {error}") from error


def parse_override(text: str) -> tuple[str, Any]:
    """Return key and value of ``KEY=VALUE``: raw text for string keys, else a TOML scalar."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise ConfigError(f"config values are given as KEY=VALUE, without spaces around '=', got '{text}'")
    if isinstance(config_keys().get(key, ""), str):
        return key, value
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        # parse_config then raises with the rule of the key.
        return key, value
    return key, parsed if isinstance(parsed, bool | int | float) else value


def absolute_path(base_dir: Path, source: str) -> str:
    """Return the absolute path of an existing folder or file; leave built-in names and hub ids unchanged."""
    path = base_dir / Path(source).expanduser()
    return str(path) if source and source not in BUILTIN_NAMES and path.exists() else source


def _unused_name(output_dir: Path, name: str) -> str:
    """Return the name, with a number if runs that started in the same second have it."""
    number, unused = 1, name
    while (output_dir / unused).exists():
        number += 1
        unused = f"{name}-{number}"
    return unused
