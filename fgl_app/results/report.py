"""The report of a run: one self-contained HTML file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from fgl_app.files import write_atomically
from fgl_app.metrics.specs import KEY_FIGURES, PRIMARY_METRICS
from fgl_app.metrics.units import format_bytes, format_duration, format_number, format_time
from fgl_app.results.runs import Run
from fgl_app.results.tables import MISSING, count, problem_tables, result_tables

SETUP_PHASE = "setup"
"""Phase of the clients' single upload before the rounds; the report shows its uplink bytes."""

# This order balances the two columns of a wide page.
_PICTURES = {
    **{f"{spec.key}.png": f"{spec.curve_title} by round" for spec in PRIMARY_METRICS},
    "label_distribution.png": "Number of examples per class and client",
    "traffic.png": "Bytes sent and received by the clients in each phase",
    "corrections.png": "The clients' loss, its improvement and the corrections of FedDDPM+",
    "synthetic_images.png": "Synthetic images of each class",
    "auxiliary_images.png": "Auxiliary images of each class, sampled from the clients' own models",
    "samples_by_round.png": "Samples from the same noise, one row per round",
}
_PLOTS = {*(f"{spec.key}.png" for spec in PRIMARY_METRICS), "traffic.png"}
"""Pictures that are drawn from the run's numbers; the others already exist."""


@dataclass(frozen=True)
class _KeyFigure:
    name: str
    value: str
    note: str = ""


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write ``report.html`` from the files of a run, and redraw its curve and its traffic.

    Without ``summary.json`` the run is reported as running or unfinished, with the results so far. The report
    has no scripts and no references to other files, and its path is returned. With ``out``, the report is
    written there and ``run_dir`` stays unchanged. Raises FileNotFoundError without a ``config.json``.
    """
    from fgl_app.results.pages import REPORT, embed_png, render

    run = Run.read(run_dir)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if out else run_dir
        plots = _draw_plots(run, folder)
        files = {name: folder / name if name in plots else run_dir / name for name in _PICTURES}
        pictures = [
            embed_png(file.read_bytes(), _PICTURES[name])
            for name, file in files.items()
            if file.is_file() and (name in plots or name not in _PLOTS)
        ]
    html = render(
        REPORT,
        title=f"{run.strategy or 'run'} on {run.dataset or 'unknown data'}",
        run=run.name,
        ended=format_time(run.ended) if run.ended else "",
        status=run.status,
        error=run.summary.get("error"),
        resumed=[_resumption(after, when) for after, when in run.resumed],
        numbers=_key_figures(run),
        pictures=pictures,
        problems=problem_tables(run),
        tables=result_tables(run),
    )
    path = out or run_dir / "report.html"
    write_atomically(path, html)
    return path


def _draw_plots(run: Run, folder: Path) -> set[str]:
    """Draw a run's curve and traffic into a folder; return the file names."""
    from fgl_app.results.curves import plot_metric
    from fgl_app.results.plots import plot_traffic

    drawn = set()
    for spec in PRIMARY_METRICS:
        # A single point shows nothing more than its number.
        if len(points := run.curve(spec.key)) > 1:
            plot_metric(spec, points, folder / f"{spec.key}.png")
            drawn.add(f"{spec.key}.png")
    if traffic := run.traffic:
        # The total is drawn only when it is all that is known.
        phases = {phase: counts for phase, counts in traffic.items() if phase != "total"} or traffic
        name = f"FedAvg, {count(run.num_rounds, 'round')}"
        reference = (name, run.fedavg_bytes) if run.fedavg_bytes else None
        plot_traffic(phases, folder / "traffic.png", reference=reference)
        drawn.add("traffic.png")
    return drawn


def _key_figures(run: Run) -> list[_KeyFigure]:
    figures = [*_metric_figures(run), *_upload_figures(run)]
    if "total" in run.seconds:
        figures.append(_KeyFigure("Time", format_duration(run.seconds["total"])))
    if run.num_clients:
        incidents = (("rejection", "rejected_uploads"), ("failure", "failures"))
        notes = [count(len(run.summary[key]), noun) for noun, key in incidents if run.summary.get(key)]
        figures.append(_KeyFigure("Clients", str(run.num_clients), ", ".join(notes)))
    return figures


def _metric_figures(run: Run) -> list[_KeyFigure]:
    after = f"after round {run.num_rounds}" if run.num_rounds else ""
    figures = [
        _KeyFigure(spec.heading, spec.format(run.results[spec.key]), spec.explanation or after)
        for spec in KEY_FIGURES
        if run.results.get(spec.key) is not None
    ]
    return figures or [_KeyFigure(PRIMARY_METRICS[0].heading, MISSING)]


def _upload_figures(run: Run) -> list[_KeyFigure]:
    uplink = run.bytes_by_phase("uplink")
    figures: list[_KeyFigure] = []
    for name, phase in (("Setup upload", SETUP_PHASE), ("Total upload", "total")):
        # A total that equals the set-up's bytes would repeat them.
        if phase in uplink and not (figures and uplink[phase] == uplink[SETUP_PHASE]):
            note = f"{format_bytes(uplink[phase] / run.num_clients)} per client" if run.num_clients else ""
            figures.append(_KeyFigure(name, format_bytes(uplink[phase]), note))
    if run.fedavg_bytes:
        note = f"in {count(run.num_rounds, 'round')} of the same model"
        sent = uplink.get("total", 0)
        if sent and run.fedavg_bytes / sent >= 1.05:
            note += f", {format_number(run.fedavg_bytes / sent)} times as much"
        figures.append(_KeyFigure("FedAvg would upload", format_bytes(run.fedavg_bytes), note))
    return figures


def _resumption(after: int, when: datetime) -> str:
    return f"{f'after round {after}' if after else 'before the end of the first round'} ({format_time(when)})"
