"""The processes of a federation: starting what does not run, ending what does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from fgl_app.federation.preparation import write_connection
from fgl_app.federation.process import start_process, tls_options
from fgl_app.federation.state import MARK, ONLINE, SUPEREXEC, SUPERLINK, Federation, Site
from fgl_app.federation.supernodes import JOIN_SECONDS, start_supernodes
from fgl_app.launch.flower import CONNECTION, LaunchError, flwr, free_ports, is_free, wait_until_healthy
from fgl_app.launch.process_group import process_group, terminate_process_group

Say = Callable[[str], None]

# A SuperNode that is killed before it has told the SuperLink that it leaves cannot come back for a minute.
LEAVE_SECONDS = 15.0


def start_federation(federation: Federation, say: Say) -> Federation:
    """Start what does not run of a federation, and wait until every site is online.

    Parameters
    ----------
    federation : Federation
        With its keys, data and connection on disk.
    say : Callable[[str], None]
        Gets lines for the user.

    Returns
    -------
    Federation
        As it is now, and as ``federation.json`` has it.

    Raises
    ------
    LaunchError
        When a process does not start or a site does not come online. What runs by then goes on.
    """
    federation = _start_superlink(federation, say)
    federation = _register(federation, say)
    if not federation.running(SUPEREXEC):
        where = federation.environment()
        arguments = ("--runtime-api-address", federation.address, *tls_options(federation))
        federation, _ = start_process(federation, SUPEREXEC, where, "flower-superexec", *arguments)
        say("SuperExec started")
    federation = start_supernodes(federation, say)
    _wait_until_online(federation)
    return federation


def stop_federation(federation: Federation) -> Federation:
    """End every process of a federation, and only those.

    Parameters
    ----------
    federation : Federation
        May be down already.

    Returns
    -------
    Federation
        Without processes, and as ``federation.json`` has it.
    """
    nodes = [process for site in federation.sites if (process := federation.running(site.name))]
    others = [[process] for name in (SUPEREXEC, SUPERLINK) if (process := federation.running(name))]
    groups = (nodes, *others, process_group(MARK, federation.id))
    terminate_process_group(MARK, federation.id, *groups, seconds=LEAVE_SECONDS)
    return federation.model_copy(update={"processes": ()}).save()


def node_statuses(federation: Federation) -> dict[str, str]:
    """Return what the SuperLink says of each node id, such as "online".

    Raises
    ------
    LaunchError
        When it does not answer.
    """
    nodes: list[dict[str, Any]] = flwr(federation.environment(), "supernode", "list", CONNECTION)["nodes"]
    return {node["node-id"]: node["status"] for node in nodes}


def _start_superlink(federation: Federation, say: Say) -> Federation:
    if federation.running(SUPERLINK):
        return federation
    if not is_free(federation.port):
        federation = _move(federation, say)
    arguments = ["--host", "127.0.0.1", "--port", str(federation.port), "--isolation", "process"]
    arguments += ["--database", str(federation.folder / "superlink.db")]
    # The packages of this installation are used, not others fetched for each run.
    arguments.append("--disable-runtime-dependency-installation")
    if federation.insecure:
        arguments.append("--insecure")
    else:
        for option, file in (("ca-cert", "ca.crt"), ("cert", "server.crt"), ("key", "server.key")):
            arguments += [f"--ssl-{option}file", str(federation.keys / file)]
        arguments.append("--enable-supernode-auth")
    where = federation.environment()
    federation, started = start_process(federation, SUPERLINK, where, "flower-superlink", *arguments)
    try:
        wait_until_healthy(started.process, federation.port, federation.authority)
    except LaunchError as error:
        raise LaunchError(f"{error}{started.log_tail()}") from None
    say(f"SuperLink started on {federation.address}")
    return federation


def _move(federation: Federation, say: Say) -> Federation:
    """Give the SuperLink another port; whatever speaks to the old one is ended."""
    say(f"port {federation.port} is taken by another program; the SuperLink gets another one")
    federation = stop_federation(federation)
    [port] = free_ports(1)
    federation = federation.model_copy(update={"address": f"127.0.0.1:{port}"}).save()
    write_connection(federation)
    return federation


def _register(federation: Federation, say: Say) -> Federation:
    """Tell the SuperLink the public keys of the sites it does not know; without keys anyone may join."""
    if federation.insecure:
        return federation
    known = node_statuses(federation)
    for site in federation.sites:
        if site.node_id not in known:
            node_id = _register_site(federation, site)
            federation = federation.with_site(site.name, node_id=node_id).save()
            say(f"{site.name}: key registered")
    return federation


def _register_site(federation: Federation, site: Site) -> str:
    key = str(federation.keys / f"{site.name}.pub")
    try:
        answer = flwr(federation.environment(), "supernode", "register", key, CONNECTION, "--name", site.name)
    except LaunchError as error:
        # So it is when the command was interrupted the last time, before it could write the id down.
        if "already in use" in str(error):
            return ""
        raise
    return str(answer["node-id"])


def _wait_until_online(federation: Federation) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    while missing := list(_not_online(federation)):
        if time.monotonic() > deadline:
            logs = " and ".join(str(federation.log(name)) for name in missing)
            raise LaunchError(f"{', '.join(missing)} not online after {JOIN_SECONDS:.0f} s; see {logs}")
        time.sleep(1)
    for name in federation.names:
        if not federation.running(name):
            raise LaunchError(f"{name} has ended again; its log is {federation.log(name)}")


def _not_online(federation: Federation) -> Iterator[str]:
    statuses = node_statuses(federation)
    return (site.name for site in federation.sites if statuses.get(site.node_id) != ONLINE)
