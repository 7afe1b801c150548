"""Several runs beside each other: one HTML file that needs nothing else."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fgl_app.files import write_atomically
from fgl_app.metrics.specs import KEY_FIGURES, PRIMARY_METRICS
from fgl_app.metrics.units import format_bytes, format_duration
from fgl_app.results.curves import Curve, plot_curves, run_color
from fgl_app.results.report import data_uri, minute
from fgl_app.results.runs import Run
from fgl_app.results.tables import NONE, PLACES, counted, or_dash, text, total_last


@dataclass(frozen=True)
class _Row:
    name: str
    cells: Sequence[str]
    best: frozenset[int] = frozenset()
    """Which cells are the best of the row."""


@dataclass(frozen=True)
class _Table:
    title: str
    rows: Sequence[_Row]
    note: str = ""


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write a page that compares runs: results, curves, bytes, seconds, and what differs in their configs.

    Parameters
    ----------
    folders : Sequence[Path]
        The runs, in the order in which they are shown.
    out : Path
        The HTML file to write.

    Returns
    -------
    Path
        The file: no script, no reference to any other.

    Raises
    ------
    FileNotFoundError
        If one of the folders is no run directory.
    """
    from fgl_app.results.pages import COMPARISON, render

    runs = [Run.read(folder) for folder in folders]
    labels = _labels(runs)
    tables = [_results(runs), _by_phase("Bytes", runs), _by_phase("Seconds", runs), _differences(runs)]
    html = render(
        COMPARISON,
        title=f"{counted(len(runs), 'run')} compared",
        made=minute(datetime.now(UTC)),
        runs=[{"label": label, "color": run_color(number)} for number, label in enumerate(labels)],
        pictures=_pictures(runs, labels),
        tables=[table for table in tables if table.rows],
    )
    write_atomically(out, html)
    return out


def _labels(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs]
    # Runs of one name from different folders are told apart by these.
    return [f"{run.path.parent.name}/{run.name}" if names.count(run.name) > 1 else run.name for run in runs]


def _results(runs: Sequence[Run]) -> _Table:
    rows = [
        _Row("status", [run.status for run in runs]),
        _Row("strategy", [run.strategy or NONE for run in runs]),
        _Row("data set", [run.dataset or NONE for run in runs]),
        _Row("clients", [str(run.num_clients or NONE) for run in runs]),
        _Row("rounds", [str(run.num_rounds or NONE) for run in runs]),
        *(
            _quantity(
                spec.title,
                [run.results.get(spec.key) for run in runs],
                spec.format,
                max if spec.higher_is_better else min,
            )
            for spec in KEY_FIGURES
        ),
        *(
            _quantity(f"{word} in all", [run.bytes_by_phase(way).get("total") for run in runs], format_bytes)
            for word, way in (("sent by clients", "uplink"), ("received", "downlink"))
        ),
        _quantity("as many rounds of FedAvg", [run.fedavg_bytes for run in runs], format_bytes),
        _quantity("time", [run.seconds.get("total") for run in runs], format_duration),
        _Row("resumed", [", ".join(f"after round {n}" for n, _ in run.resumed) or NONE for run in runs]),
    ]
    note = ""
    if any(run.fedavg_bytes for run in runs):
        note = (
            "As many rounds of FedAvg: rounds x clients x the weights of the run's model as they are "
            "serialized here, each way. Calculated, not measured."
        )
    return _Table("Results", [row for row in rows if set(row.cells) != {NONE}], note)


def _quantity(
    name: str,
    values: Sequence[float | None],
    form: Callable[[float], str],
    best: Callable[[list[float]], float] | None = None,
) -> _Row:
    """Return a row of numbers; with ``best`` those that are as good as the best are marked."""
    known = [value for value in values if value is not None]
    top = best(known) if best and len(known) > 1 else None
    return _Row(
        name,
        [or_dash(value, form) for value in values],
        frozenset(i for i, value in enumerate(values) if value is not None and value == top),
    )


def _by_phase(what: str, runs: Sequence[Run]) -> _Table:
    if what == "Seconds":
        return _Table("Seconds by phase", _phase_rows([run.seconds for run in runs], format_duration))
    rows: list[_Row] = []
    for word, way in (("sent", "uplink"), ("received", "downlink")):
        each = [run.bytes_by_phase(way) for run in runs]
        rows += [_Row(f"{row.name}, {word}", row.cells) for row in _phase_rows(each, format_bytes)]
    return _Table("Bytes by phase", rows)


def _phase_rows(each: Sequence[dict[str, Any]], form: Callable[[float], str]) -> list[_Row]:
    phases = total_last([phase for one in each for phase in one])
    return [_quantity(phase, [one.get(phase) for one in each], form) for phase in phases]


def _differences(runs: Sequence[Run]) -> _Table:
    keys = dict.fromkeys(key for run in runs for key in run.config if key not in PLACES)
    rows = [_Row(key, [text(run.config.get(key)) for run in runs]) for key in keys]
    versions = dict.fromkeys(name for run in runs for name in run.summary.get("versions", {}))
    rows += [
        _Row(f"version of {name}", [text(run.summary.get("versions", {}).get(name)) for run in runs])
        for name in versions
    ]
    different = [row for row in rows if len(set(row.cells)) > 1]
    return _Table("What differs in the configs", different or [_Row("nothing", [NONE] * len(runs))])


def _pictures(runs: Sequence[Run], labels: Sequence[str]) -> list[dict[str, str]]:
    pictures = []
    for spec in PRIMARY_METRICS:
        by_round = [Curve(label, number, run.curve(spec.key)) for number, (label, run) in _each(runs, labels)]
        by_bytes = [
            Curve(label, number, _sent(run, spec.key)) for number, (label, run) in _each(runs, labels)
        ]
        for axis, curves in (("round", by_round), ("bytes", by_bytes)):
            drawn = [curve for curve in curves if curve.points]
            # A single point says no more than its number, and several by round say nothing of each other.
            if any(len(curve.points) > 1 for curve in drawn) or (axis == "bytes" and len(drawn) > 1):
                file = io.BytesIO()
                plot_curves(spec, drawn, axis, file)
                alt = f"{spec.title} of each run by {axis}"
                pictures.append({"uri": data_uri(file.getvalue()), "alt": alt})
    return pictures


def _each(runs: Sequence[Run], labels: Sequence[str]) -> list[tuple[int, tuple[str, Run]]]:
    return list(enumerate(zip(labels, runs, strict=True)))


def _sent(run: Run, metric: str) -> list[tuple[float, float]]:
    """Return a metric by the bytes that clients had sent; a logarithmic axis has no place for none."""
    return [
        (row["uplink_bytes"], row[metric])
        for row in run.rounds
        if row.get(metric) is not None and row.get("uplink_bytes")
    ]
