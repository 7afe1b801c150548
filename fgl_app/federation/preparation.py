"""The files of a federation before it starts: keys, connection, images of each site."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from fgl_app.config import parse_config
from fgl_app.federation.state import Federation
from fgl_app.files import write_atomically
from fgl_app.launch.app_bundle import to_toml
from fgl_app.launch.flower import CONNECTION, LaunchError

# Part of every installation; missing only in Flower's app bundle, where no keys are made.
KEYS_SCRIPT = Path(__file__).with_name("make_keys.sh")


def prepare_federation(federation: Federation, notify: Callable[[str], None]) -> Federation:
    """Write the missing keys, connection and data of a federation; keep existing files.

    ``notify`` receives lines for the user. In the returned federation, sites with new keys are not
    registered. Raises ValueError if the dataset cannot be loaded or split over the sites, and LaunchError if
    the keys cannot be created.
    """
    # First the step that can fail because of the user's input.
    _save_data(federation, notify)
    # Private keys and images must not get into a repository around the folder.
    write_atomically(federation.folder / ".gitignore", "*\n")
    if not federation.insecure:
        federation = _make_keys(federation, notify)
    write_connection(federation)
    for folder in (federation.folder / "logs", *(state_folder(federation, s.name) for s in federation.sites)):
        folder.mkdir(parents=True, exist_ok=True)
    return federation.save()


def state_folder(federation: Federation, site: str) -> Path:
    """Return the folder for the state of a site's ClientApps."""
    return federation.folder / site / "state"


def write_connection(federation: Federation) -> None:
    """Write the connection to the SuperLink to the federation's FLWR_HOME."""
    authority = federation.authority
    security = {"root-certificates": str(authority)} if authority else {"insecure": True}
    connection = to_toml({"address": federation.address, **security})
    federation.home.mkdir(parents=True, exist_ok=True)
    write_atomically(
        federation.home / "config.toml",
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n{connection}',
    )


def _save_data(federation: Federation, notify: Callable[[str], None]) -> None:
    missing = [s for s in federation.sites if not (federation.folder / s.data / "train.parquet").is_file()]
    if not missing:
        return
    # Torch and the data libraries take seconds to import.
    from fgl_app.data.partitions import load_client_data
    from fgl_app.data.saving import save_images

    # Class names stay those of the dataset: the vocabulary of a run is applied when the data are read.
    config = parse_config(federation.data_config)
    # A run reads the same columns from the sites' data as from its own dataset.
    columns = config.image_column or "image", config.label_column or "label"
    for site in missing:
        data, dataset = load_client_data(config, site.number, len(federation.sites))
        notify(f"{site.name}: {len(data)} images of {config.dataset}")
        save_images(data, dataset.class_names, federation.folder / site.data, columns)


def _make_keys(federation: Federation, notify: Callable[[str], None]) -> Federation:
    host = federation.address.rpartition(":")[0]
    sites = [site.name for site in federation.sites if not (federation.keys / f"{site.name}.pub").exists()]
    missing: list[tuple[str, Sequence[str]]] = []
    if not (federation.keys / "ca.crt").exists():
        missing.append(("authority", ()))
    if not (federation.keys / "server.crt").exists():
        missing.append(("server", (host, "localhost")))
    if sites:
        missing.append(("site", sites))
    for kind, names in missing:
        _run_script(federation.keys, kind, *names)
    if missing:
        notify(f"keys and certificates: {federation.keys}")
    for name in sites:
        federation = federation.with_site(name, node_id="")
    return federation


def _run_script(folder: Path, *arguments: str) -> None:
    command = ["sh", str(KEYS_SCRIPT), str(folder), *arguments]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise LaunchError(f"the keys cannot be created: {result.stderr.strip().removeprefix('Error: ')}")
