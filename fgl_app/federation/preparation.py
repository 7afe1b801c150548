"""What a federation has on disk before anything of it runs: keys, the connection, each site's images."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from fgl_app.config import parse_config
from fgl_app.federation.state import Federation
from fgl_app.files import write_atomically
from fgl_app.launch.app_bundle import to_toml
from fgl_app.launch.flower import CONNECTION, LaunchError

# Beside this module in any installation; Flower's app bundle lacks it, but no app makes keys.
KEYS_SCRIPT = Path(__file__).with_name("make_keys.sh")


def prepare_federation(federation: Federation, say: Callable[[str], None]) -> Federation:
    """Make what is missing of a federation's keys, connection and data; what is there stays as it is.

    Parameters
    ----------
    federation : Federation
        The plan.
    say : Callable[[str], None]
        Gets lines for the user.

    Returns
    -------
    Federation
        As ``federation.json`` has it; sites with new keys are not registered.

    Raises
    ------
    ValueError
        When the data cannot be loaded or split like this.
    LaunchError
        When the keys cannot be made.
    """
    # First what the user's input can make fail.
    _save_data(federation, say)
    # Private keys and images: not for the repository that it may lie in.
    write_atomically(federation.folder / ".gitignore", "*\n")
    if not federation.insecure:
        federation = _make_keys(federation, say)
    write_connection(federation)
    for folder in (federation.folder / "logs", *(state_folder(federation, s.name) for s in federation.sites)):
        folder.mkdir(parents=True, exist_ok=True)
    return federation.save()


def state_folder(federation: Federation, site: str) -> Path:
    """Return where a site's ClientApps keep what they need from round to round."""
    return federation.folder / site / "state"


def write_connection(federation: Federation) -> None:
    """Write how ``flwr`` reaches the SuperLink, for those who have the federation's FLWR_HOME."""
    trust = {"root-certificates": str(federation.authority)} if federation.authority else {"insecure": True}
    connection = to_toml({"address": federation.address, **trust})
    federation.home.mkdir(parents=True, exist_ok=True)
    write_atomically(
        federation.home / "config.toml",
        f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n{connection}',
    )


def _save_data(federation: Federation, say: Callable[[str], None]) -> None:
    missing = [s for s in federation.sites if not (federation.folder / s.data / "train.parquet").is_file()]
    if not missing:
        return
    # Torch and the data libraries take seconds to import.
    from fgl_app.data.partitions import load_client_data
    from fgl_app.data.saving import save_images

    # The classes have the data set's own names: a vocabulary in the config of a run gives them others.
    config = parse_config(federation.data_config)
    # A run looks for its columns in the sites' data as in its own.
    columns = config.image_column or "image", config.label_column or "label"
    for site in missing:
        data, dataset = load_client_data(config, site.number, len(federation.sites))
        say(f"{site.name}: {len(data)} images of {config.dataset}")
        save_images(data, dataset.class_names, federation.folder / site.data, columns)


def _make_keys(federation: Federation, say: Callable[[str], None]) -> Federation:
    host = federation.address.rpartition(":")[0]
    sites = [site.name for site in federation.sites if not (federation.keys / f"{site.name}.pub").exists()]
    wanted: list[tuple[str, Sequence[str]]] = []
    if not (federation.keys / "ca.crt").exists():
        wanted.append(("authority", ()))
    if not (federation.keys / "server.crt").exists():
        wanted.append(("server", (host, "localhost")))
    if sites:
        wanted.append(("site", sites))
    for what, names in wanted:
        _run_script(federation.keys, what, *names)
    if wanted:
        say(f"keys and certificates: {federation.keys}")
    for name in sites:
        federation = federation.with_site(name, node_id="")
    return federation


def _run_script(folder: Path, *arguments: str) -> None:
    command = ["sh", str(KEYS_SCRIPT), str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LaunchError(f"the keys cannot be made: {done.stderr.strip().removeprefix('Error: ')}")
