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


def read_config(file: Path) -> dict[str, Any]:
    """Read a TOML file of config keys; what is wrong with it is a :class:`ConfigError`."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config file '{file}' cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file '{file}' is not valid TOML: {error}") from error


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


def absolute_path(here: Path, source: str) -> str:
    """Name a folder or file by its absolute path, since the run happens elsewhere; keep a hub id."""
    place = here / Path(source).expanduser()
    return str(place) if source and source not in BUILTIN_NAMES and place.exists() else source


def _file(here: Path, name: str) -> str:
    """Name a file by its absolute path; a bare name is one that is shipped."""
    return str(here / Path(name).expanduser()) if Path(name).suffix else name


def _free_name(output_dir: Path, name: str) -> str:
    """Return the name, with a number when runs of the same second have taken it."""
    number, free = 1, name
    while (output_dir / free).exists():
        number += 1
        free = f"{name}-{number}"
    return free
