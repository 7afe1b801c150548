"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fgl_app.files import write_atomically
from fgl_app.metrics.specs import KEY_FIGURES, PRIMARY_METRICS
from fgl_app.metrics.units import format_bytes, format_duration, format_number
from fgl_app.results.runs import Run
from fgl_app.results.tables import NONE, counted, problem_tables, result_tables, total_last

SETUP_PHASE = "setup"
"""The phase in which clients upload once; its uplink bytes are a primary_metric of the report."""

# In this order the columns of a wide page come out about even.
_PICTURES = {
    **{f"{spec.key}.png": f"{spec.curve_title} by round" for spec in PRIMARY_METRICS},
    "label_distribution.png": "Examples of each class that each client holds",
    "traffic.png": "Bytes sent and received by the clients in each phase",
    "corrections.png": "The clients' loss, its improvement, and where FedDDPM+ corrected",
    "synthetic_images.png": "Synthetic images of each class",
    "auxiliary_images.png": "Auxiliary images of each class, sampled from the clients' own models",
    "samples_by_round.png": "Samples from the same noise, a row for each round",
}
_DRAWN_HERE = {*(f"{spec.key}.png" for spec in PRIMARY_METRICS), "traffic.png"}


@dataclass(frozen=True)
class _Number:
    name: str
    value: str
    note: str = ""


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write ``report.html`` from the files of a run, and draw its curve and its traffic anew.

    A run without ``summary.json`` is reported as running, or unfinished when it was killed, with what it
    wrote.

    Parameters
    ----------
    run_dir : Path
        Holds ``config.json``, and as far as the run came ``metrics.jsonl``, ``summary.json`` and the PNGs.
    out : Path or None, default None
        The file to write in place of ``run_dir/report.html``; then nothing is written into ``run_dir``.

    Returns
    -------
    Path
        The report: no script, no reference to any other file.

    Raises
    ------
    FileNotFoundError
        If the folder holds no ``config.json``, so is no run directory.
    """
    from fgl_app.results.pages import REPORT, render

    run = Run.read(run_dir)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out else run_dir
        drawn = draw_pictures(run, folder)
        files = {name: (folder if name in _DRAWN_HERE else run_dir) / name for name in _PICTURES}
        pictures = [
            {"uri": data_uri(file.read_bytes()), "alt": _PICTURES[name]}
            for name, file in files.items()
            if file.is_file() and (name in drawn or name not in _DRAWN_HERE)
        ]
    html = render(
        REPORT,
        title=f"{run.strategy or 'run'} on {run.dataset or 'unknown data'}",
        run=run.name,
        ended=minute(run.ended) if run.ended else "",
        status=run.status,
        error=run.summary.get("error"),
        resumed=[_resumption(after, when) for after, when in run.resumed],
        numbers=_headlines(run),
        pictures=pictures,
        problems=problem_tables(run),
        tables=result_tables(run),
    )
    path = out or run_dir / "report.html"
    write_atomically(path, html)
    return path


def draw_pictures(run: Run, folder: Path) -> set[str]:
    """Draw what a run's numbers show, and return the names of the files.

    Parameters
    ----------
    run : Run
        Its metric by round is drawn when it has two rounds: a single one says no more than its number.
    folder : Path
        Gets the PNGs.
    """
    from fgl_app.results.curves import plot_metric
    from fgl_app.results.plots import plot_traffic

    drawn = set()
    for spec in PRIMARY_METRICS:
        if len(points := run.curve(spec.key)) > 1:
            plot_metric(spec, points, folder / f"{spec.key}.png")
            drawn.add(f"{spec.key}.png")
    if phases := _traffic(run):
        beside = None
        if run.fedavg_bytes and run.strategy != "fedavg":
            beside = (f"FedAvg, {counted(run.num_rounds, 'round')}", run.fedavg_bytes)
        plot_traffic(phases, folder / "traffic.png", beside=beside)
        drawn.add("traffic.png")
    return drawn


def _traffic(run: Run) -> Mapping[str, Mapping[str, int]]:
    ways = {way: run.bytes_by_phase(way) for way in ("uplink", "downlink")}
    phases = total_last([*ways["uplink"], *ways["downlink"]])
    # A run without a summary knows the total alone.
    known = [phase for phase in phases if phase != "total"] or phases
    return {phase: {way: ways[way].get(phase, 0) for way in ways} for phase in known}


def _headlines(run: Run) -> list[_Number]:
    uplink, seconds, clients = run.bytes_by_phase("uplink"), run.seconds, run.num_clients
    numbers = _qualities(run)
    phases = [("The one upload", SETUP_PHASE), ("Uploaded in all", "total")]
    if uplink.get(SETUP_PHASE) == uplink.get("total"):
        phases.pop()
    for name, phase in phases:
        if phase in uplink:
            note = f"{format_bytes(uplink[phase] / clients)} a client" if clients else ""
            numbers.append(_Number(name, format_bytes(uplink[phase]), note))
    if run.fedavg_bytes and run.strategy != "fedavg":
        numbers.append(_fedavg(run, run.fedavg_bytes, uplink.get("total", 0)))
    if "total" in seconds:
        numbers.append(_Number("Time", format_duration(seconds["total"])))
    if clients:
        rejected = len(run.summary.get("rejected_uploads", []))
        failed = len(run.summary.get("failures", []))
        notes = [
            counted(number, what) for number, what in ((rejected, "rejection"), (failed, "failure")) if number
        ]
        numbers.append(_Number("Clients", str(clients), ", ".join(notes)))
    return numbers


def _fedavg(run: Run, would_send: int, sent: int) -> _Number:
    note = f"in {counted(run.num_rounds, 'round')} of the same model"
    if sent and would_send / sent >= 1.05:
        note += f", {format_number(would_send / sent)} times as much"
    return _Number("FedAvg would upload", format_bytes(would_send), note)


def _qualities(run: Run) -> list[_Number]:
    after = f"after round {run.num_rounds}" if run.num_rounds else ""
    figures = [
        _Number(spec.heading, spec.format(run.results[spec.key]), spec.explanation or after)
        for spec in KEY_FIGURES
        if run.results.get(spec.key) is not None
    ]
    return figures or [_Number(PRIMARY_METRICS[0].heading, NONE)]


def _resumption(after: int, when: datetime) -> str:
    where = f"after round {after}" if after else "before the first round was done"
    return f"{where} ({minute(when)})"


def minute(time: datetime) -> str:
    """Return a time as a reader needs it."""
    return f"{time:%Y-%m-%d %H:%M} UTC"


def data_uri(png: bytes) -> str:
    """Return a PNG as the source of an ``img``."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
