"""Flower's commands as processes: their environment and their output."""

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
"""Name of the connection to the SuperLink in the ``config.toml`` of an FLWR_HOME."""


class LaunchError(RuntimeError):
    """Flower did not start, rejected a command, or ended before the run."""


@dataclass(frozen=True)
class FlowerEnvironment:
    """Working directory and all environment variables of Flower's commands."""

    folder: Path  # Holds no package that a command could import by mistake.
    env: Mapping[str, str]


def flower_environment(home: Path) -> dict[str, str]:
    """Return the environment variables of this process, adapted for Flower's commands with this FLWR_HOME."""
    env = os.environ | {"FLWR_HOME": str(home)}
    # Flower's simulation would connect to this cluster and fail; `ray-address` is the key for clusters.
    env.pop("RAY_ADDRESS", None)
    # Flower starts its other commands from PATH; they must come from this installation.
    env["PATH"] = os.pathsep.join([sysconfig.get_path("scripts"), env.get("PATH", os.defpath)])
    # Connections to the loopback interface must not use a proxy.
    for name in ("no_proxy", "NO_PROXY"):
        env[name] = ",".join(filter(None, [env.get(name), "127.0.0.1", "localhost"]))
    # Log lines must arrive as they are written.
    env["PYTHONUNBUFFERED"] = "1"
    defaults = {
        # Waiting threads must not take CPU time from other clients.
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": "0",
        # With this, Ray listens only on the loopback interface instead of all.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    return defaults | env


def free_ports(number: int) -> list[int]:
    """Return different unused ports of the loopback interface."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def is_free(port: int) -> bool:
    """Return whether a server can listen on a port of the loopback interface."""
    with socket.socket() as probe:
        # As servers do, ignore connections that were just closed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def start(
    environment: FlowerEnvironment, command: str, *arguments: str, stdout: int
) -> subprocess.Popen[str]:
    """Start one of Flower's commands as the leader of a new session.

    ``stdout`` is a file descriptor, or ``subprocess.PIPE``, for stdout and stderr. Raises LaunchError if the
    command is not installed.
    """
    path = shutil.which(command, path=environment.env["PATH"])
    if path is None:
        raise LaunchError(f"Flower's command '{command}' is missing; is flwr[simulation] installed?")
    return subprocess.Popen(
        [path, *arguments],
        cwd=environment.folder,
        env=environment.env,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        # Ctrl-C reaches only this process, which then ends the others in order.
        start_new_session=True,
        encoding="utf-8",
        errors="replace",
    )


def flwr(environment: FlowerEnvironment, *arguments: str) -> dict[str, Any]:
    """Run a ``flwr`` command and return its JSON output; raises LaunchError with the reason if it fails."""
    process = start(environment, "flwr", *arguments, "--format", "json", stdout=subprocess.PIPE)
    text, _ = process.communicate()
    try:
        answer: dict[str, Any] = json.loads(text[text.index("{") :])
    except ValueError:
        answer = {"error-message": text}
    # The exit code is also 0 if the command fails.
    if not answer.get("success"):
        raise LaunchError(f"`flwr {arguments[0]}` failed: {' '.join(answer['error-message'].split())}")
    return answer


def wait_until_healthy(process: subprocess.Popen[str], port: int, authority: Path | None = None) -> None:
    """Wait until a SuperLink answers on the loopback interface.

    ``authority`` is the certificate of the authority that signed the SuperLink's certificate; None without
    TLS. Raises LaunchError if the SuperLink ends or does not answer in time.
    """
    deadline = time.monotonic() + START_SECONDS
    while not is_healthy(port, authority):
        if process.poll() is not None:
            raise LaunchError(f"Flower's SuperLink did not start (exit code {process.returncode})")
        if time.monotonic() > deadline:
            raise LaunchError(f"Flower's SuperLink did not answer within {START_SECONDS:.0f} s")
        time.sleep(0.2)


def is_healthy(port: int, authority: Path | None = None) -> bool:
    """Return whether a SuperLink answers; same parameters as :func:`wait_until_healthy`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    if authority:
        context = ssl.create_default_context(cafile=authority)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=context)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
