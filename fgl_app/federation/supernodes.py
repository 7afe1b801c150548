"""The SuperNodes of a federation: starting them until they have joined."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable

from fgl_app.federation.preparation import state_folder
from fgl_app.federation.process import StartedProcess, start_process, tls_options
from fgl_app.federation.state import Federation, Site
from fgl_app.launch.flower import LaunchError, free_ports, is_free

# The SuperLink counts a SuperNode as online for 60 s after its last sign of life.
JOIN_SECONDS = 180.0
RETRY_SECONDS = 5.0

_NODE_ID = re.compile(r"SuperNode ID: (\d+)")
# How the SuperLink refuses a SuperNode while it counts an earlier one with the same key as online.
_NOT_ACTIVATED = "Failed to activate SuperNode"


def start_supernodes(federation: Federation, say: Callable[[str], None]) -> Federation:
    """Start the SuperNodes that do not run, until each has joined.

    Parameters
    ----------
    federation : Federation
        Its SuperLink runs and knows the keys.
    say : Callable[[str], None]
        Gets lines for the user.

    Returns
    -------
    Federation
        With the processes that were started, and ports in place of those that others have taken.

    Raises
    ------
    LaunchError
        When one does not join.
    """
    absent = [site.name for site in federation.sites if not federation.running(site.name)]
    federation, joining = _start_all(federation, absent)
    deadline = time.monotonic() + JOIN_SECONDS
    told: set[str] = set()
    while joining:
        time.sleep(0.2)
        refused = []
        for name, started in list(joining.items()):
            # Asked before the output is read, so that nothing it wrote is missed.
            ended, late = started.process.poll() is not None, time.monotonic() > deadline
            output = started.output()
            if found := _NODE_ID.findall(output):
                del joining[name]
                say(f"{name}: joined")
                federation = federation.with_site(name, node_id=found[-1]).save()
            elif late or (ended and _NOT_ACTIVATED not in output):
                raise LaunchError(f"the SuperNode of {name} did not join{started.log_tail()}")
            elif ended:
                refused.append(name)
        for name in refused:
            if name not in told:
                say(f"{name}: the SuperLink still counts the old one; trying again")
        told.update(refused)
        if refused:
            time.sleep(RETRY_SECONDS)
            federation, again = _start_all(federation, refused)
            joining |= again
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
    # A home of its own, as on a machine of its own: of two processes that unpack the same app into one
    # home at the same time, the second one runs what the first has unpacked so far.
    where = federation.environment(federation.folder / name / "home")
    return start_process(federation, name, where, "flower-supernode", *arguments)
