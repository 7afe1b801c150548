"""How a federation is, as a table."""

from __future__ import annotations

from typing import NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fgl_app.federation.lifecycle import node_statuses
from fgl_app.federation.state import ONLINE, SUPERLINK, Federation
from fgl_app.launch.flower import LaunchError


class Row(NamedTuple):
    """A process of a federation.

    Attributes
    ----------
    name : str
        Its name.
    pid : int or None
        None when it does not run.
    node : str or None
        What the SuperLink says of a site, such as "online" or "registered"; empty when it cannot be asked
        or does not know the site. None for what is not a site.
    """

    name: str
    pid: int | None
    node: str | None

    @property
    def is_ok(self) -> bool:
        """Whether it runs and, when it is a site, is online."""
        return self.pid is not None and self.node in (None, ONLINE)


def observe(federation: Federation) -> list[Row]:
    """Return how each process is."""
    nodes: dict[str, str] = {}
    if federation.running(SUPERLINK):
        try:
            nodes = node_statuses(federation)
        except LaunchError:
            # It is about to start or to end, and its row says the rest.
            nodes = {}
    said = {site.name: nodes.get(site.node_id, "") for site in federation.sites}
    processes = {name: federation.running(name) for name in federation.names}
    return [
        Row(name, process.pid if process else None, said.get(name)) for name, process in processes.items()
    ]


def print_report(federation: Federation, rows: list[Row]) -> None:
    """Print where the federation is, and a table of what :func:`observe` returned."""
    console = Console(highlight=False, emoji=False)
    guard = "without TLS and keys" if federation.insecure else "with TLS and keys"
    title = f"federation in {federation.folder}, on {federation.address}, {guard}"
    console.print(title, markup=False, soft_wrap=True)
    table = Table("process", "", "pid", "the SuperLink says", "log", box=None, pad_edge=False)
    for row in rows:
        runs = Text("not running", "bold red") if row.pid is None else Text("running", "green")
        said = "" if row.node is None else row.node or "unknown"
        style = "" if row.node in (None, ONLINE) else "yellow"
        pid = "" if row.pid is None else str(row.pid)
        log = federation.log(row.name).relative_to(federation.folder)
        table.add_row(row.name, runs, pid, Text(said, style), str(log))
    console.print(table)
