"""Start and stop the processes of a federation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from fgl_app.federation.preparation import write_connection
from fgl_app.federation.process import start_process, tls_options
from fgl_app.federation.state import FEDERATION_VARIABLE, ONLINE, SUPEREXEC, SUPERLINK, Federation, Site
from fgl_app.federation.supernodes import JOIN_SECONDS, start_supernodes
from fgl_app.launch.flower import CONNECTION, LaunchError, flwr, free_ports, is_free, wait_until_healthy
from fgl_app.launch.process_group import process_group, terminate_process_group

Notify = Callable[[str], None]

# A SuperNode that is killed before it has left the SuperLink is rejected for a minute.
LEAVE_SECONDS = 15.0


def start_federation(federation: Federation, notify: Notify) -> Federation:
    """Start the processes of a federation that do not run, and wait until every site is online.

    The federation's keys, data and connection are on disk; ``notify`` receives lines for the user. Raises
    LaunchError if a process does not start or a site does not come online; running processes keep running.
    """
    federation = _start_superlink(federation, notify)
    federation = _register(federation, notify)
    if not federation.running(SUPEREXEC):
        environment = federation.environment()
        arguments = ("--runtime-api-address", federation.address, *tls_options(federation))
        federation, _ = start_process(federation, SUPEREXEC, environment, "flower-superexec", *arguments)
        notify("SuperExec started")
    federation = start_supernodes(federation, notify)
    _wait_until_online(federation)
    return federation


def stop_federation(federation: Federation) -> Federation:
    """Stop all processes of a federation and no others; return the federation without processes."""
    nodes = [process for site in federation.sites if (process := federation.running(site.name))]
    others = [[process] for name in (SUPEREXEC, SUPERLINK) if (process := federation.running(name))]
    stages = (nodes, *others, process_group(FEDERATION_VARIABLE, federation.id))
    terminate_process_group(FEDERATION_VARIABLE, federation.id, *stages, seconds=LEAVE_SECONDS)
    return federation.model_copy(update={"processes": ()}).save()


def node_statuses(federation: Federation) -> dict[str, str]:
    """Return the status at the SuperLink of each node id, such as "online".

    Raises LaunchError if the SuperLink does not answer.
    """
    nodes: list[dict[str, Any]] = flwr(federation.environment(), "supernode", "list", CONNECTION)["nodes"]
    return {node["node-id"]: node["status"] for node in nodes}


def _start_superlink(federation: Federation, notify: Notify) -> Federation:
    if federation.running(SUPERLINK):
        return federation
    if not is_free(federation.port):
        federation = _change_port(federation, notify)
    arguments = ["--host", "127.0.0.1", "--port", str(federation.port), "--isolation", "process"]
    arguments += ["--database", str(federation.folder / "superlink.db")]
    # Use the packages of this installation instead of installing others for each run.
    arguments.append("--disable-runtime-dependency-installation")
    if federation.insecure:
        arguments.append("--insecure")
    else:
        for option, file in (("ca-cert", "ca.crt"), ("cert", "server.crt"), ("key", "server.key")):
            arguments += [f"--ssl-{option}file", str(federation.keys / file)]
        arguments.append("--enable-supernode-auth")
    environment = federation.environment()
    federation, started = start_process(federation, SUPERLINK, environment, "flower-superlink", *arguments)
    try:
        wait_until_healthy(started.process, federation.port, federation.authority)
    except LaunchError as error:
        raise LaunchError(f"{error}{started.log_tail()}") from None
    notify(f"SuperLink started on {federation.address}")
    return federation


def _change_port(federation: Federation, notify: Notify) -> Federation:
    """Give the SuperLink another port, and stop all processes that use the old one."""
    notify(f"another program uses port {federation.port}; the SuperLink gets another port")
    federation = stop_federation(federation)
    [port] = free_ports(1)
    federation = federation.model_copy(update={"address": f"127.0.0.1:{port}"}).save()
    write_connection(federation)
    return federation


def _register(federation: Federation, notify: Notify) -> Federation:
    """Register the public keys of sites that the SuperLink does not have."""
    if federation.insecure:
        return federation
    statuses = node_statuses(federation)
    for site in federation.sites:
        if site.node_id not in statuses:
            node_id = _register_site(federation, site)
            federation = federation.with_site(site.name, node_id=node_id).save()
            notify(f"{site.name}: key registered")
    return federation


def _register_site(federation: Federation, site: Site) -> str:
    key = str(federation.keys / f"{site.name}.pub")
    try:
        answer = flwr(federation.environment(), "supernode", "register", key, CONNECTION, "--name", site.name)
    except LaunchError as error:
        # An earlier call was interrupted after the registration, before it saved the id.
        if "already in use" in str(error):
            return ""
        raise
    return str(answer["node-id"])


def _wait_until_online(federation: Federation) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    while missing := list(_offline_sites(federation)):
        if time.monotonic() > deadline:
            logs = " and ".join(str(federation.log(name)) for name in missing)
            raise LaunchError(f"{', '.join(missing)} not online after {JOIN_SECONDS:.0f} s; see {logs}")
        time.sleep(1)
    for name in federation.names:
        if not federation.running(name):
            raise LaunchError(f"{name} ended after its start; its log is {federation.log(name)}")


def _offline_sites(federation: Federation) -> Iterator[str]:
    statuses = node_statuses(federation)
    return (site.name for site in federation.sites if statuses.get(site.node_id) != ONLINE)
