"""Start the SuperNodes of a federation and wait until they have joined."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable

from fgl_app.federation.preparation import state_folder
from fgl_app.federation.process import StartedProcess, start_process, tls_options
from fgl_app.federation.state import Federation, Site
from fgl_app.launch.flower import LaunchError, free_ports, is_free

# The SuperLink counts a SuperNode as online for 60 s after its last message.
JOIN_SECONDS = 180.0
RETRY_SECONDS = 5.0

_NODE_ID = re.compile(r"SuperNode ID: (\d+)")
# Rejection by the SuperLink while it counts an earlier SuperNode with the same key as online.
_NOT_ACTIVATED = "Failed to activate SuperNode"


def start_supernodes(federation: Federation, notify: Callable[[str], None]) -> Federation:
    """Start the SuperNodes that do not run, and wait until each has joined.

    The SuperLink runs and has the sites' keys; ``notify`` receives lines for the user. The returned
    federation has the new processes, and new ports where another program uses a port. Raises LaunchError if
    a SuperNode does not join.
    """
    stopped = [site.name for site in federation.sites if not federation.running(site.name)]
    federation, joining = _start_all(federation, stopped)
    deadline = time.monotonic() + JOIN_SECONDS
    notified: set[str] = set()
    while joining:
        time.sleep(0.2)
        rejected = []
        for name, started in list(joining.items()):
            # Polled before the output is read, so that the output is complete.
            ended, late = started.process.poll() is not None, time.monotonic() > deadline
            output = started.output()
            if found := _NODE_ID.findall(output):
                del joining[name]
                notify(f"{name}: joined")
                federation = federation.with_site(name, node_id=found[-1]).save()
            elif late or (ended and _NOT_ACTIVATED not in output):
                raise LaunchError(f"the SuperNode of {name} did not join{started.log_tail()}")
            elif ended:
                rejected.append(name)
        for name in rejected:
            if name not in notified:
                notify(f"{name}: the SuperLink still counts the previous process as online; trying again")
        notified.update(rejected)
        if rejected:
            time.sleep(RETRY_SECONDS)
            federation, restarted = _start_all(federation, rejected)
            joining |= restarted
    return federation


def node_config(federation: Federation, site: Site) -> str:
    """Return the ``--node-config`` of a site's SuperNode."""
    values = {
        "partition-id": site.number,
        "num-partitions": len(federation.sites),
        "site-name": site.name,
        "data-path": str(federation.folder / site.data),
        "state-path": str(state_folder(federation, site.name)),
    }
    return " ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())


def _start_all(federation: Federation, names: Iterable[str]) -> tuple[Federation, dict[str, StartedProcess]]:
    started = {}
    for name in names:
        federation, started[name] = _start(federation, name)
    return federation, started


def _start(federation: Federation, name: str) -> tuple[Federation, StartedProcess]:
    if not is_free(federation.site(name).port):
        [port] = free_ports(1)
        federation = federation.with_site(name, port=port)
    site = federation.site(name)
    arguments = ["--superlink", federation.address, "--port", str(site.port), *tls_options(federation)]
    if not federation.insecure:
        arguments += ["--auth-supernode-private-key", str(federation.keys / name)]
    arguments += ["--node-config", node_config(federation, site)]
    # Each SuperNode has its own FLWR_HOME: if two unpack the same app into one home at the same time, the
    # second runs an incomplete app.
    environment = federation.environment(federation.folder / name / "home")
    return start_process(federation, name, environment, "flower-supernode", *arguments)
