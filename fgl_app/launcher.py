"""Run a Flower app to its true end: Flower's own commands, in surroundings that are known.

Every run gets a SuperLink of its own on a free port of the loopback interface, in a temporary directory,
and takes it down again. So neither the directory in which the user stands nor a SuperLink left over from
an earlier run decides which code and which environment variables a run sees.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from fgl_app.launch_plan import Scalar, to_toml

START_SECONDS = 120.0
END_SECONDS = 5.0

_CONNECTION = "fgl"
# Ray's sockets have some 70 characters below its directory, and the path of a socket about 100 in all.
_LONGEST_TEMPORARY_ROOT = 20


class LaunchError(RuntimeError):
    """Flower could not be started, or was lost on the way."""


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
    with _workplace() as place, _superlink(place, logs / "superlink.log"):
        config_file = place.folder / "run.toml"
        config_file.write_text(to_toml(run_config), encoding="utf-8")
        options = ("--federation-config", federation, "--run-config", str(config_file))
        started = _flwr(place, "run", str(app(place.folder / "app")), _CONNECTION, *options)
        run_id = str(started["run-id"])
        _follow(place, run_id, logs / "flower.log", show)
        return _wait_for_end(place, run_id)


@dataclass(frozen=True)
class _Place:
    """A temporary directory, and the environment in which Flower's commands run there."""

    folder: Path
    port: int
    env: dict[str, str]


@contextmanager
def _workplace() -> Iterator[_Place]:
    root = tempfile.gettempdir()
    folder = Path(
        tempfile.mkdtemp(prefix="fgl-", dir=root if len(root) <= _LONGEST_TEMPORARY_ROOT else "/tmp")
    )
    try:
        home = folder / "home"
        home.mkdir()
        port = _free_port()
        connection = f'[superlink.{_CONNECTION}]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (home / "config.toml").write_text(connection, encoding="utf-8")
        yield _Place(folder, port, _environment(home, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(home: Path, folder: Path) -> dict[str, str]:
    env = dict(os.environ)
    env["FLWR_HOME"] = str(home)
    # Flower starts its parts by name, and they must come from this installation.
    env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env.get("PATH", os.defpath)])
    # A proxy cannot reach the loopback interface of this machine.
    for name in ("no_proxy", "NO_PROXY"):
        env[name] = ",".join(filter(None, [env.get(name), "127.0.0.1", "localhost"]))
    # Each line of the log shall arrive when it is written.
    env["PYTHONUNBUFFERED"] = "1"
    defaults = {
        # Threads that wait must not keep the other clients from the CPUs.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        # Makes Ray listen on the loopback interface alone, on any system; by default it listens on all.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_TMPDIR": str(folder),
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    return defaults | env


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(place: _Place, command: str, *arguments: str, stdout: int) -> subprocess.Popen[str]:
    path = shutil.which(command, path=place.env["PATH"])
    if path is None:
        raise LaunchError(f"Flower's command '{command}' is missing; is flwr[simulation] installed?")
    return subprocess.Popen(
        [path, *arguments],
        cwd=place.folder,
        env=place.env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        # Ctrl-C reaches the launcher alone, which then ends the others in order.
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
    )


@contextmanager
def _superlink(place: _Place, log: Path) -> Iterator[None]:
    arguments = ["--insecure", "--simulation", "--host", "127.0.0.1", "--port", str(place.port)]
    # The packages of this installation are used, not others fetched for each run.
    arguments.append("--disable-runtime-dependency-installation")
    with log.open("w", encoding="utf-8") as file:
        process = _start(place, "flower-superlink", *arguments, stdout=file.fileno())
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _healthy(place.port):
            if process.poll() is not None:
                raise LaunchError(f"Flower's SuperLink did not start (exit code {process.returncode})")
            if time.monotonic() > deadline:
                raise LaunchError(f"Flower's SuperLink did not answer within {START_SECONDS:.0f} s")
            time.sleep(0.2)
        yield
    finally:
        _end_all(process, place.env["FLWR_HOME"])


def _healthy(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _flwr(place: _Place, *arguments: str) -> dict[str, Any]:
    process = _start(place, "flwr", *arguments, "--format", "json", stdout=subprocess.PIPE)
    text, _ = process.communicate()
    try:
        answer: dict[str, Any] = json.loads(text[text.index("{") :])
    except ValueError:
        answer = {"error-message": text}
    # The exit code is 0 in either case.
    if not answer.get("success"):
        raise LaunchError(f"`flwr {arguments[0]}` failed: {' '.join(answer['error-message'].split())}")
    return answer


def _follow(place: _Place, run_id: str, log: Path, show: Callable[[str], None]) -> None:
    process = _start(place, "flwr", "log", run_id, _CONNECTION, "--stream", stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process, log.open("w", encoding="utf-8", buffering=1) as file:
        try:
            for line in process.stdout:
                file.write(line)
                show(line.rstrip("\n"))
        finally:
            # Had showing failed, this command would go on until the run ends.
            process.kill()


def _wait_for_end(place: _Place, run_id: str) -> Outcome:
    """Ask until the run has ended: its log may end a moment before it, or be lost."""
    while True:
        run = _flwr(place, "ls", _CONNECTION, "--run-id", run_id)["runs"][0]
        if run["status"].startswith("finished"):
            details = run["status-details"]
            return Outcome(run["status"], "" if details == "N/A" else details)
        time.sleep(2)


def _end_all(superlink: subprocess.Popen[str], home: str) -> None:
    """End the SuperLink and every process that was started for this FLWR_HOME."""
    # A second Ctrl-C must not leave half of them behind.
    with _without_interrupts():
        processes = _family(home)
        superlink.terminate()
        psutil.wait_procs(processes, timeout=END_SECONDS)
        # Those seen at first are not found again by a home that nobody alive knows any more.
        left = {*processes, *_family(home)}
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        superlink.wait()
        # A killed process is there a moment longer.
        psutil.wait_procs(left, timeout=END_SECONDS)


def _family(home: str) -> list[psutil.Process]:
    """Return the processes that have this FLWR_HOME, and those of the sessions these are in.

    Flower detaches its parts into sessions of their own, so one process group does not hold them all.
    Ray's workers overwrite their environment and may have lost their parent, but stay in their session.
    """
    everyone = list(psutil.process_iter())
    sessions = set()
    for process in everyone:
        with suppress(psutil.Error, ProcessLookupError):
            if process.environ().get("FLWR_HOME") == home:
                sessions.add(os.getsid(process.pid))
    # The launcher's own session is the user's: it holds more than what the launcher started.
    return [process for process in everyone if _session(process.pid) in sessions - {os.getsid(0)}]


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except OSError:
        return None


@contextmanager
def _without_interrupts() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
