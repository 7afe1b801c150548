"""Run a Flower app with Flower's own commands in a controlled environment, and wait for its end.

Each simulation has its own SuperLink, on a free port of the loopback interface and in a temporary directory,
so that the user's directory and earlier SuperLinks have no effect on its code and environment variables.
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

# Ray's socket paths add about 70 characters to its directory; a socket path has at most about 100.
_LONGEST_TEMPORARY_ROOT = 20
POLL_SECONDS = 2.0
OUTAGE_SECONDS = 600.0
"""How long a SuperLink may be unreachable before a run fails."""


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended according to Flower."""

    status: str  # Such as "finished:completed".
    details: str  # Reason for a failure; can be empty.

    @property
    def completed(self) -> bool:
        """Whether the app ended without an error."""
        return self.status == "finished:completed"


def simulate(
    stage: Callable[[Path], Path],
    run_config: Mapping[str, Scalar],
    federation: str,
    logs: Path,
    show: Callable[[str], None],
) -> RunOutcome:
    """Run a Flower app in simulation and wait for its end.

    Parameters
    ----------
    stage : Callable[[Path], Path]
        Writes the app to a new folder and returns the app's directory, as
        :func:`fgl_app.launch.app_bundle.stage_app` does.
    run_config : Mapping[str, Scalar]
        Values that override the app's defaults.
    federation : str
        Return value of :func:`fgl_app.launch.resources.federation_config`.
    logs : Path
        Existing folder for ``flower.log``, the full log of the run, and ``superlink.log``.
    show : Callable[[str], None]
        Receives each line of the run's log.

    Returns
    -------
    RunOutcome
        Also for a run that failed.

    Raises
    ------
    LaunchError
        When Flower does not start or rejects the run, or the SuperLink ends before the run.
    """
    with (
        _temporary_environment() as (environment, port),
        _superlink(environment, port, logs / "superlink.log"),
    ):
        run_id = _start_run(environment, stage, run_config, "--federation-config", federation)
        return _follow_to_end(environment, run_id, logs / "flower.log", show)


def run_on(
    home: Path,
    stage: Callable[[Path], Path],
    run_config: Mapping[str, Scalar],
    logs: Path,
    show: Callable[[str], None],
) -> RunOutcome:
    """Run a Flower app on a running SuperLink and wait for its end.

    The SuperLink may be unreachable for up to :data:`OUTAGE_SECONDS` during the run.

    ``home`` is an FLWR_HOME with the connection "fgl" to the SuperLink; the other parameters and the return
    value are those of :func:`simulate`, without ``superlink.log``. Raises LaunchError if the SuperLink cannot
    be reached or rejects the run.
    """
    with tempfile.TemporaryDirectory(prefix="fgl-") as folder:
        environment = FlowerEnvironment(Path(folder), flower_environment(home))
        run_id = _start_run(environment, stage, run_config)
        try:
            return _follow_to_end(environment, run_id, logs / "flower.log", show, OUTAGE_SECONDS)
        except KeyboardInterrupt:
            with suppress(LaunchError):
                flwr(environment, "stop", run_id, CONNECTION)
            raise


def _start_run(
    environment: FlowerEnvironment,
    stage: Callable[[Path], Path],
    run_config: Mapping[str, Scalar],
    *options: str,
) -> str:
    """Start a run with ``flwr run`` and return its id."""
    config_file = environment.folder / "run.toml"
    config_file.write_text(to_toml(run_config), encoding="utf-8")
    app = str(stage(environment.folder / "app"))
    answer = flwr(environment, "run", app, CONNECTION, *options, "--run-config", str(config_file))
    return str(answer["run-id"])


@contextmanager
def _temporary_environment() -> Iterator[tuple[FlowerEnvironment, int]]:
    """Yield an environment for Flower's commands in a temporary directory, and a free port."""
    root = tempfile.gettempdir()
    root = root if len(root) <= _LONGEST_TEMPORARY_ROOT else "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="fgl-", dir=root))
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
def _superlink(environment: FlowerEnvironment, port: int, log: Path) -> Iterator[None]:
    arguments = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(port)]
    # Use the packages of this installation instead of installing others for each run.
    arguments.append("--disable-runtime-dependency-installation")
    with log.open("a", encoding="utf-8") as file:
        process = start(environment, "flower-superlink", *arguments, stdout=file.fileno())
    try:
        wait_until_healthy(process, port)
        yield
    finally:
        superlink = [psutil.Process(process.pid)] if process.poll() is None else []
        terminate_process_group("FLWR_HOME", environment.env["FLWR_HOME"], superlink)
        process.wait()


def _follow_to_end(
    environment: FlowerEnvironment,
    run_id: str,
    log: Path,
    show: Callable[[str], None],
    outage_seconds: float = 0.0,
) -> RunOutcome:
    """Show the log of a run until it ends; the SuperLink may be unreachable for ``outage_seconds``."""
    shown, last_answer = 0, time.monotonic()
    while True:
        shown = _follow(environment, run_id, log, show, shown)
        try:
            run = flwr(environment, "ls", CONNECTION, "--run-id", run_id)["runs"][0]
            last_answer = time.monotonic()
        except LaunchError:
            if time.monotonic() - last_answer > outage_seconds:
                raise
        else:
            if run["status"].startswith("finished"):
                details = run["status-details"]
                return RunOutcome(run["status"], "" if details == "N/A" else details)
        # The log can end shortly before the run, or break off.
        time.sleep(POLL_SECONDS)


def _follow(
    environment: FlowerEnvironment, run_id: str, log: Path, show: Callable[[str], None], shown: int
) -> int:
    """Show the lines of a run's log after the first ``shown``, and return the number of lines."""
    process = start(environment, "flwr", "log", run_id, CONNECTION, "--stream", stdout=subprocess.PIPE)
    assert process.stdout is not None
    number = 0
    with process, log.open("a", encoding="utf-8", buffering=1) as file:
        try:
            for number, line in enumerate(process.stdout, 1):
                if number > shown:
                    file.write(line)
                    show(line.rstrip("\n"))
        finally:
            # If `show` raises, the command would otherwise run until the end of the run.
            process.kill()
    return max(number, shown)
