"""`fgl report` and `fgl list`: the results of finished and running runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgl_app.cli.options import BAD_INPUT

if TYPE_CHECKING:
    from fgl_app.results.runs import Run

REPORT_HELP = """
Write the report of a run, or one page that compares several runs.

For one run, report.html is written from the run's files, also while the run is still running or after it \
died. For several runs, the page has their results, curves, bytes, seconds and config differences. The path \
of the page is printed.

[bold]Examples:[/bold]

  fgl report outputs/latest

  fgl report outputs/first outputs/second --out comparison.html
"""
COMPARISON = "comparison.html"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of runs.")],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"Output file. \\[default: RUN/report.html; for several runs {COMPARISON}]",
        ),
    ] = None,
) -> None:
    """Write the page; the help text is REPORT_HELP."""
    from fgl_app.cli.console import print_error
    from fgl_app.results.comparison import write_comparison
    from fgl_app.results.report import write_report

    try:
        if len(runs) == 1:
            page = write_report(runs[0].expanduser(), out)
        else:
            page = write_comparison(_started(run.expanduser() for run in runs), out or Path(COMPARISON))
    except OSError as error:
        # Errors about a run have no errno; a system error comes from the write.
        print_error(f"the page cannot be written: {error.strerror}" if error.errno else str(error))
        raise typer.Exit(BAD_INPUT) from None
    print(page.absolute())


def _started(runs: Iterable[Path]) -> list[Path]:
    """Return the runs that started; a pattern such as outputs/* also matches runs that ended before."""
    from fgl_app.cli.console import print_error

    started = []
    for run in runs:
        if run.is_dir() and not (run / "config.json").exists():
            print_error(f"{run} is skipped: it has no config.json, so no run started there", label="Note")
        else:
            started.append(run)
    return started


def list_runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[DIR]", help="The folder with one folder per run.")
    ] = Path("outputs"),
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON list with bytes and seconds as numbers.")
    ] = False,
) -> None:
    """List the runs in a folder, newest last, including failed and unfinished runs."""
    from fgl_app.cli.console import print_error
    from fgl_app.results.runs import find_runs

    try:
        runs = find_runs(folder.expanduser())
    except OSError as error:
        print_error(f"the runs in '{folder}' cannot be listed: {error.strerror}")
        raise typer.Exit(BAD_INPUT) from None
    if as_json:
        print(json.dumps([_row(run) for run in runs], indent=2, ensure_ascii=False))
    elif runs:
        _print_table([_row(run) for run in runs])
    else:
        print_error(f"no runs in {folder}", label="Note")


def _row(run: Run) -> dict[str, Any]:
    metric, value = run.primary_metric or (None, None)
    return {
        "name": run.name,
        "status": run.status,
        "strategy": run.strategy or None,
        "dataset": run.dataset or None,
        "num_clients": run.num_clients or None,
        "rounds": run.num_rounds,
        "metric": metric,
        "value": value,
        "uplink_bytes": run.bytes_by_phase("uplink").get("total"),
        "downlink_bytes": run.bytes_by_phase("downlink").get("total"),
        "seconds": run.seconds.get("total"),
        "started": run.started.isoformat(timespec="seconds"),
    }


def _print_table(rows: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table
    from rich.text import Text

    from fgl_app.cli.console import plain_console
    from fgl_app.metrics.units import format_bytes, format_duration

    table = Table(box=None, pad_edge=False)
    columns: list[tuple[str, Callable[[dict[str, Any]], object]]] = [
        ("run", lambda row: row["name"]),
        ("status", lambda row: Text(row["status"], style=_STYLES.get(row["status"], ""))),
        ("strategy", lambda row: row["strategy"]),
        ("dataset", lambda row: row["dataset"]),
        ("clients", lambda row: row["num_clients"]),
        ("rounds", lambda row: row["rounds"]),
        ("result", _result),
        ("sent", lambda row: _format(row["uplink_bytes"], format_bytes)),
        ("received", lambda row: _format(row["downlink_bytes"], format_bytes)),
        ("time", lambda row: _format(row["seconds"], format_duration)),
    ]
    for title, _ in columns:
        numbers = title in ("clients", "rounds", "sent", "received", "time")
        table.add_column(title, justify="right" if numbers else "left", no_wrap=True)
    for row in rows:
        cells = [cell(row) for _, cell in columns]
        table.add_row(
            *(cell if isinstance(cell, Text) else Text("—" if cell is None else str(cell)) for cell in cells)
        )
    # Lines are not wrapped, so that names can be copied.
    plain_console(width=10_000).print(table)


_STYLES = {"completed": "green", "failed": "red", "unfinished": "yellow", "running": "cyan"}


def _format(value: float | None, to_text: Callable[[float], str]) -> str | None:
    return None if value is None else to_text(value)


def _result(row: dict[str, Any]) -> str | None:
    from fgl_app.metrics.specs import format_metrics

    return None if row["metric"] is None else format_metrics({row["metric"]: row["value"]})
