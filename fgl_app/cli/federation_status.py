"""The status of a federation as a table."""

from __future__ import annotations

from typing import NamedTuple

from rich.table import Table
from rich.text import Text

from fgl_app.cli.console import plain_console
from fgl_app.federation.lifecycle import node_statuses
from fgl_app.federation.state import ONLINE, SUPERLINK, Federation
from fgl_app.launch.flower import LaunchError


class Row(NamedTuple):
    """A process of a federation.

    ``node`` is the status of a site's node at the SuperLink, such as "online" or "registered"; empty if the
    SuperLink does not answer or does not have the node. None for a process that is not a site.
    """

    name: str
    pid: int | None  # None if the process does not run.
    node: str | None

    @property
    def is_ok(self) -> bool:
        """Whether the process runs and, if it is a site, is online."""
        return self.pid is not None and self.node in (None, ONLINE)


def read_status(federation: Federation) -> list[Row]:
    """Return a row for each process."""
    statuses: dict[str, str] = {}
    if federation.running(SUPERLINK):
        try:
            statuses = node_statuses(federation)
        except LaunchError:
            # The SuperLink is starting or stopping; the other columns are still valid.
            statuses = {}
    nodes = {site.name: statuses.get(site.node_id, "") for site in federation.sites}
    processes = {name: federation.running(name) for name in federation.names}
    return [Row(name, found.pid if found else None, nodes.get(name)) for name, found in processes.items()]


def print_status(federation: Federation, rows: list[Row]) -> None:
    """Print the folder and address of a federation, and the rows of :func:`read_status` as a table."""
    console = plain_console()
    security = "without TLS and keys" if federation.insecure else "with TLS and keys"
    title = f"federation in {federation.folder}, on {federation.address}, {security}"
    console.print(title, markup=False, soft_wrap=True)
    table = Table("process", "", "pid", "node status", "log", box=None, pad_edge=False)
    for row in rows:
        state = Text("not running", "bold red") if row.pid is None else Text("running", "green")
        node = "" if row.node is None else row.node or "unknown"
        style = "" if row.node in (None, ONLINE) else "yellow"
        pid = "" if row.pid is None else str(row.pid)
        log = federation.log(row.name).relative_to(federation.folder)
        table.add_row(row.name, state, pid, Text(node, style), str(log))
    console.print(table)
