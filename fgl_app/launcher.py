"""Run a Flower app to its true end: Flower's own commands, in surroundings that are known.

Every run gets a SuperLink of its own on a free port of the loopback interface, in a temporary directory,
and takes it down again. So neither the directory in which the user stands nor a SuperLink left over from
an earlier run decides which code and which environment variables a run sees.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from fgl_app.launch_plan import Scalar, to_toml
from fgl_app.process_family import end_family
from fgl_app.processes import (
    CONNECTION,
    Surroundings,
    flower_environment,
    flwr,
    free_ports,
    start,
    wait_until_healthy,
)

# Ray's sockets have some 70 characters below its directory, and the path of a socket about 100 in all.
_LONGEST_TEMPORARY_ROOT = 20


@dataclass(frozen=True)
class Outcome:
    """How a run ended, by Flower's account.

    Attributes
    ----------
    status : str
        Such as ``"finished:completed"``.
    details : str
        Flower's reason when it failed; may be empty.
    """

    status: str
    details: str

    @property
    def completed(self) -> bool:
        """Whether Flower says that the app ended without an error."""
        return self.status == "finished:completed"


def launch(
    app: Callable[[Path], Path],
    run_config: Mapping[str, Scalar],
    federation: str,
    logs: Path,
    show: Callable[[str], None],
) -> Outcome:
    """Run a Flower app in simulation and wait for its end.

    Parameters
    ----------
    app : Callable[[Path], Path]
        Given a folder that does not exist yet, returns the app's directory;
        :func:`fgl_app.launch_plan.stage_app` is one.
    run_config : Mapping[str, Scalar]
        Values that override the app's defaults.
    federation : str
        From :func:`fgl_app.launch_plan.federation_config`.
    logs : Path
        Existing folder for ``flower.log`` (the run's whole log) and ``superlink.log``.
    show : Callable[[str], None]
        Gets each line of the run's log as it comes.

    Returns
    -------
    Outcome
        Also for a run that failed.

    Raises
    ------
    LaunchError
        If Flower does not start, refuses the run, or its SuperLink ends before the run does.
    """
    with _workplace() as (place, port), _superlink(place, port, logs / "superlink.log"):
        config_file = place.folder / "run.toml"
        config_file.write_text(to_toml(run_config), encoding="utf-8")
        options = ("--federation-config", federation, "--run-config", str(config_file))
        started = flwr(place, "run", str(app(place.folder / "app")), CONNECTION, *options)
        run_id = str(started["run-id"])
        _follow(place, run_id, logs / "flower.log", show)
        return _wait_for_end(place, run_id)


@contextmanager
def _workplace() -> Iterator[tuple[Surroundings, int]]:
    """Yield a temporary directory with an environment for Flower there, and a free port."""
    root = tempfile.gettempdir()
    folder = Path(
        tempfile.mkdtemp(prefix="fgl-", dir=root if len(root) <= _LONGEST_TEMPORARY_ROOT else "/tmp")
    )
    try:
        home = folder / "home"
        home.mkdir()
        [port] = free_ports(1)
        connection = f'[superlink.{CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "config.toml").write_text(connection, encoding="utf-8")
        yield Surroundings(folder, {"RAY_TMPDIR": str(folder)} | flower_environment(home)), port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _superlink(place: Surroundings, port: int, log: Path) -> Iterator[None]:
    arguments = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    # The packages of this installation are used, not others fetched for each run.
    arguments.append("--disable-runtime-dependency-installation")
    with log.open("w", encoding="utf-8") as file:
        process = start(place, "flower-superlink", *arguments, stdout=file.fileno())
    try:
        wait_until_healthy(process, port)
        yield
    finally:
        leaders = [psutil.Process(process.pid)] if process.poll() is None else []
        end_family("FLWR_HOME", place.env["FLWR_HOME"], leaders)
        process.wait()


def _follow(place: Surroundings, run_id: str, log: Path, show: Callable[[str], None]) -> None:
    process = start(place, "flwr", "log", run_id, CONNECTION, "--stream", stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, log.open("w", encoding="utf-8", buffering=1) as file:
        try:
            for line in process.stdout:
                file.write(line)
                show(line.rstrip("\n"))
        finally:
            # Had showing failed, this command would go on until the run ends.
            process.kill()


def _wait_for_end(place: Surroundings, run_id: str) -> Outcome:
    """Ask until the run has ended: its log may end a moment before it, or be lost."""
    while True:
        run = flwr(place, "ls", CONNECTION, "--run-id", run_id)["runs"][0]
        if run["status"].startswith("finished"):
            details = run["status-details"]
            return Outcome(run["status"], "" if details == "N/A" else details)
        time.sleep(2)
