"""A comparison of several runs: one self-contained HTML file."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fgl_app.files import write_atomically
from fgl_app.metrics.specs import KEY_FIGURES, PRIMARY_METRICS
from fgl_app.metrics.units import format_bytes, format_duration, format_time
from fgl_app.results.curves import Curve, plot_curves, run_color
from fgl_app.results.runs import Run, total_last
from fgl_app.results.tables import LOCATION_KEYS, MISSING, Row, Table, count, or_missing, text

_FEDAVG_NOTE = (
    "FedAvg: rounds x clients x the serialized weights of the run's model, in each direction. Calculated, "
    "not measured."
)


def write_comparison(folders: Sequence[Path], out: Path) -> Path:
    """Write a page that compares runs: results, curves, bytes, seconds and config differences.

    The folders are in display order. The page has no scripts and no references to other files; its path is
    returned. Raises FileNotFoundError if a folder is not a run directory.
    """
    from fgl_app.results.pages import COMPARISON, render

    runs = [Run.read(folder) for folder in folders]
    labels = _labels(runs)
    colors = ["", *map(run_color, range(len(runs)))]
    sections = (
        ("Results", _result_rows(runs), _FEDAVG_NOTE if any(run.fedavg_bytes for run in runs) else ""),
        ("Bytes by phase", _byte_rows(runs), ""),
        ("Seconds by phase", _phase_rows([run.seconds for run in runs], format_duration), ""),
        ("Differences between the configs", _difference_rows(runs), ""),
    )
    html = render(
        COMPARISON,
        title=f"{count(len(runs), 'run')} compared",
        created=format_time(datetime.now(UTC)),
        pictures=_pictures(runs, labels),
        tables=[
            Table(title, ("", *labels), rows, "runs", note, colors) for title, rows, note in sections if rows
        ],
    )
    write_atomically(out, html)
    return out


def _labels(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs]
    return [f"{run.path.parent.name}/{run.name}" if names.count(run.name) > 1 else run.name for run in runs]


def _result_rows(runs: Sequence[Run]) -> list[Row]:
    sent, received = (
        [run.bytes_by_phase(direction).get("total") for run in runs] for direction in ("uplink", "downlink")
    )
    rows = [
        Row("status", [run.status for run in runs]),
        Row("strategy", [run.strategy or MISSING for run in runs]),
        Row("dataset", [run.dataset or MISSING for run in runs]),
        Row("clients", [str(run.num_clients or MISSING) for run in runs]),
        Row("rounds", [str(run.num_rounds or MISSING) for run in runs]),
        *(
            _value_row(
                spec.title,
                [run.results.get(spec.key) for run in runs],
                spec.format,
                best=max if spec.higher_is_better else min,
            )
            for spec in KEY_FIGURES
        ),
        _value_row("total sent by clients", sent, format_bytes),
        _value_row("total received", received, format_bytes),
        _value_row("FedAvg (calculated)", [run.fedavg_bytes for run in runs], format_bytes),
        _value_row("time", [run.seconds.get("total") for run in runs], format_duration),
        Row("resumed", [", ".join(f"after round {n}" for n, _ in run.resumed) or MISSING for run in runs]),
    ]
    return [row for row in rows if set(row.cells) != {MISSING}]


def _value_row(
    name: str,
    values: Sequence[float | None],
    to_text: Callable[[float], str],
    *,
    best: Callable[[list[float]], float] | None = None,
) -> Row:
    """Return a row of numbers; marks the values that equal the best one."""
    known = [value for value in values if value is not None]
    top = best(known) if best and len(known) > 1 else None
    return Row(
        name,
        [or_missing(value, to_text) for value in values],
        best=frozenset(i for i, value in enumerate(values) if value is not None and value == top),
    )


def _byte_rows(runs: Sequence[Run]) -> list[Row]:
    by_direction = {
        "sent": [run.bytes_by_phase("uplink") for run in runs],
        "received": [run.bytes_by_phase("downlink") for run in runs],
    }
    return [
        Row(f"{row.name}, {direction}", row.cells)
        for direction, by_phase in by_direction.items()
        for row in _phase_rows(by_phase, format_bytes)
    ]


def _phase_rows(by_phase: Sequence[Mapping[str, float]], to_text: Callable[[float], str]) -> list[Row]:
    phases = total_last(phase for values in by_phase for phase in values)
    return [_value_row(phase, [values.get(phase) for values in by_phase], to_text) for phase in phases]


def _difference_rows(runs: Sequence[Run]) -> list[Row]:
    keys = dict.fromkeys(key for run in runs for key in run.config if key not in LOCATION_KEYS)
    versions = [run.summary.get("versions", {}) for run in runs]
    rows = [Row(key, [text(run.config.get(key)) for run in runs]) for key in keys]
    rows += [
        Row(f"version of {name}", [text(installed.get(name)) for installed in versions])
        for name in dict.fromkeys(name for installed in versions for name in installed)
    ]
    return [row for row in rows if len(set(row.cells)) > 1] or [Row("none", [MISSING] * len(runs))]


def _pictures(runs: Sequence[Run], labels: Sequence[str]) -> list[dict[str, str]]:
    from fgl_app.results.pages import embed_png

    pictures = []
    for spec in PRIMARY_METRICS:
        for x in ("round", "uplink_bytes"):
            curves = [
                Curve(label, number, points)
                for number, (label, run) in enumerate(zip(labels, runs, strict=True))
                if (points := run.curve(spec.key, x))
            ]
            # Single points add something to their numbers only when several are set against bytes.
            if any(len(curve.points) > 1 for curve in curves) or (x == "uplink_bytes" and len(curves) > 1):
                file = io.BytesIO()
                plot_curves(spec, curves, x, file)
                caption = f"{spec.heading} of each run by {'round' if x == 'round' else 'bytes sent'}"
                pictures.append(embed_png(file.getvalue(), caption))
    return pictures
