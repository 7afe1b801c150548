"""Flower's commands as processes: their surroundings and their answers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sysconfig
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 120.0
CONNECTION = "fgl"
"""Name of the SuperLink's connection in the ``config.toml`` of an FLWR_HOME."""


class LaunchError(RuntimeError):
    """Flower could not be started, or was lost on the way."""


@dataclass(frozen=True)
class FlowerEnvironment:
    """Where Flower's commands run.

    Attributes
    ----------
    folder : Path
        Their working directory; it holds no package that they could import by mistake.
    env : Mapping[str, str]
        Their whole environment.
    """

    folder: Path
    env: Mapping[str, str]


def flower_environment(home: Path) -> dict[str, str]:
    """Return this process's environment, made fit for Flower's commands.

    Parameters
    ----------
    home : Path
        Their FLWR_HOME.
    """
    env = dict(os.environ)
    env["FLWR_HOME"] = str(home)
    # Flower's simulation would take that cluster for its own and fail; `ray-address` is what uses one.
    env.pop("RAY_ADDRESS", None)
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
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    return defaults | env


def free_ports(number: int) -> list[int]:
    """Return ports of the loopback interface on which nobody listens, all different."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def is_free(port: int) -> bool:
    """Return whether a port of the loopback interface can be listened on."""
    with socket.socket() as probe:
        # As servers do: connections that have ended a moment ago do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start(where: FlowerEnvironment, command: str, *arguments: str, stdout: int) -> subprocess.Popen[str]:
    """Start one of Flower's commands in a session of its own.

    Parameters
    ----------
    where : FlowerEnvironment
        Where it runs.
    command : str
        Its name.
    *arguments : str
        Its arguments.
    stdout : int
        File descriptor, or ``subprocess.PIPE``, for all it writes.

    Returns
    -------
    subprocess.Popen[str]
        The process, which leads a session of its own.

    Raises
    ------
    LaunchError
        When it is not installed.
    """
    path = shutil.which(command, path=where.env["PATH"])
    if path is None:
        raise LaunchError(f"Flower's command '{command}' is missing; is flwr[simulation] installed?")
    return subprocess.Popen(
        [path, *arguments],
        cwd=where.folder,
        env=where.env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        # Ctrl-C reaches the launcher alone, which then ends the others in order.
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
    )


def flwr(where: FlowerEnvironment, *arguments: str) -> dict[str, Any]:
    """Return what a ``flwr`` command answers.

    Raises
    ------
    LaunchError
        When it did not succeed; says why.
    """
    process = start(where, "flwr", *arguments, "--format", "json", stdout=subprocess.PIPE)
    text, _ = process.communicate()
    try:
        answer: dict[str, Any] = json.loads(text[text.index("{") :])
    except ValueError:
        answer = {"error-message": text}
    # The exit code is 0 in either case.
    if not answer.get("success"):
        raise LaunchError(f"`flwr {arguments[0]}` failed: {' '.join(answer['error-message'].split())}")
    return answer


def wait_until_healthy(process: subprocess.Popen[str], port: int, authority: Path | None = None) -> None:
    """Wait until a SuperLink answers on the loopback interface.

    Parameters
    ----------
    process : subprocess.Popen
        The SuperLink.
    port : int
        Its port.
    authority : Path or None, default None
        Certificate of the authority that signed the SuperLink's; None when it speaks plain text.

    Raises
    ------
    LaunchError
        When it ends instead, or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(port, authority):
        if process.poll() is not None:
            raise LaunchError(f"Flower's SuperLink did not start (exit code {process.returncode})")
        if time.monotonic() > deadline:
            raise LaunchError(f"Flower's SuperLink did not answer within {START_SECONDS:.0f} s")
        time.sleep(0.2)


def is_healthy(port: int, authority: Path | None = None) -> bool:
    """Return whether a SuperLink answers; the parameters are those of :func:`wait_until_healthy`."""
    connection = (
        http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=5, context=ssl.create_default_context(cafile=authority)
        )
        if authority
        else http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    )
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
