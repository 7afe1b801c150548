"""Run a Flower app to its true end: Flower's own commands, in surroundings that are known.

Every simulation gets a SuperLink of its own on a free port of the loopback interface, in a temporary
directory, and takes it down again. So neither the directory in which the user stands nor a SuperLink left
over from an earlier run decides which code and which environment variables a run sees.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from fgl_app.launch.app_bundle import Scalar, to_toml
from fgl_app.launch.flower import (
    CONNECTION,
    FlowerEnvironment,
    LaunchError,
    flower_environment,
    flwr,
    free_ports,
    start,
    wait_until_healthy,
)
from fgl_app.launch.process_group import terminate_process_group

# Ray's sockets have some 70 characters below its directory, and the path of a socket about 100 in all.
_LONGEST_TEMPORARY_ROOT = 20
POLL_SECONDS = 2.0
OUTAGE_SECONDS = 600.0
"""How long a SuperLink may be away before a run on it is given up."""


@dataclass(frozen=True)
class RunOutcome:
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


def simulate(
    app: Callable[[Path], Path],
    run_config: Mapping[str, Scalar],
    federation: str,
    logs: Path,
    show: Callable[[str], None],
) -> RunOutcome:
    """Run a Flower app in simulation and wait for its end.

    Parameters
    ----------
    app : Callable[[Path], Path]
        Given a folder that does not exist yet, returns the app's directory;
        :func:`fgl_app.launch.app_bundle.stage_app` is one.
    run_config : Mapping[str, Scalar]
        Values that override the app's defaults.
    federation : str
        From :func:`fgl_app.launch.resources.federation_config`.
    logs : Path
        Existing folder for ``flower.log`` (the run's whole log) and ``superlink.log``.
    show : Callable[[str], None]
        Gets each line of the run's log as it comes.

    Returns
    -------
    RunOutcome
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
        return _follow_to_end(place, str(started["run-id"]), logs / "flower.log", show)


def run_on(
    home: Path,
    app: Callable[[Path], Path],
    run_config: Mapping[str, Scalar],
    logs: Path,
    show: Callable[[str], None],
) -> RunOutcome:
    """Run a Flower app on a SuperLink that is there, and wait for its end.

    Parameters
    ----------
    home : Path
        FLWR_HOME whose connection "fgl" leads to the SuperLink.
    app : Callable[[Path], Path]
        As for :func:`simulate`.
    run_config : Mapping[str, Scalar]
        Values that override the app's defaults.
    logs : Path
        Existing folder for ``flower.log``, the run's whole log.
    show : Callable[[str], None]
        Gets each line of the run's log as it comes.

    Returns
    -------
    RunOutcome
        Also for a run that failed. The SuperLink may be away for some minutes on the way.

    Raises
    ------
    LaunchError
        If the SuperLink cannot be reached, or refuses the run.
    """
    with tempfile.TemporaryDirectory(prefix="fgl-") as folder:
        place = FlowerEnvironment(Path(folder), flower_environment(home))
        config_file = place.folder / "run.toml"
        config_file.write_text(to_toml(run_config), encoding="utf-8")
        options = ("--run-config", str(config_file))
        started = flwr(place, "run", str(app(place.folder / "app")), CONNECTION, *options)
        run_id = str(started["run-id"])
        try:
            return _follow_to_end(place, run_id, logs / "flower.log", show, patience=OUTAGE_SECONDS)
        except KeyboardInterrupt:
            with suppress(LaunchError):
                flwr(place, "stop", run_id, CONNECTION)
            raise


@contextmanager
def _workplace() -> Iterator[tuple[FlowerEnvironment, int]]:
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
        yield FlowerEnvironment(folder, {"RAY_TMPDIR": str(folder)} | flower_environment(home)), port
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _superlink(place: FlowerEnvironment, port: int, log: Path) -> Iterator[None]:
    arguments = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    # The packages of this installation are used, not others fetched for each run.
    arguments.append("--disable-runtime-dependency-installation")
    with log.open("a", encoding="utf-8") as file:
        process = start(place, "flower-superlink", *arguments, stdout=file.fileno())
    try:
        wait_until_healthy(process, port)
        yield
    finally:
        leaders = [psutil.Process(process.pid)] if process.poll() is None else []
        terminate_process_group("FLWR_HOME", place.env["FLWR_HOME"], leaders)
        process.wait()


def _follow_to_end(
    place: FlowerEnvironment, run_id: str, log: Path, show: Callable[[str], None], patience: float = 0.0
) -> RunOutcome:
    """Show a run's log until the run has ended; the SuperLink may be away for ``patience`` seconds."""
    shown, last_heard = 0, time.monotonic()
    while True:
        shown = _follow(place, run_id, log, show, shown)
        try:
            run = flwr(place, "ls", CONNECTION, "--run-id", run_id)["runs"][0]
            last_heard = time.monotonic()
        except LaunchError:
            if time.monotonic() - last_heard > patience:
                raise
        else:
            if run["status"].startswith("finished"):
                details = run["status-details"]
                return RunOutcome(run["status"], "" if details == "N/A" else details)
        # The log may end a moment before the run, or break off.
        time.sleep(POLL_SECONDS)


def _follow(place: FlowerEnvironment, run_id: str, log: Path, show: Callable[[str], None], shown: int) -> int:
    """Show the lines of a run's log after the first ``shown`` ones; return how many there were."""
    process = start(place, "flwr", "log", run_id, CONNECTION, "--stream", stdout=subprocess.PIPE)
    assert process.stdout is not None
    number = 0
    with process, log.open("a", encoding="utf-8", buffering=1) as file:
        try:
            for number, line in enumerate(process.stdout, 1):
                if number > shown:
                    file.write(line)
                    show(line.rstrip("\n"))
        finally:
            # Had showing failed, this command would go on until the run ends.
            process.kill()
    return max(number, shown)
