"""The report of a run: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fgl_app.files import write_atomically
from fgl_app.results.report_template import CSS, HTML
from fgl_app.results.units import human_bytes, human_number, human_percent, human_seconds

SETUP_PHASE = "setup"
"""The phase in which clients upload once; its uplink bytes are a headline of the report."""

_PICTURES = {
    "accuracy.png": "Accuracy of the global model by round",
    "frechet_distance.png": "Frechet distance of the global model's samples by round",
    "samples_by_round.png": "Samples from the same noise, a row for each round",
    "corrections.png": "The clients' loss, its improvement, and where FedDDPM+ corrected",
    "label_distribution.png": "Examples of each class that each client holds",
    "synthetic_images.png": "Synthetic images of each class",
    "auxiliary_images.png": "Auxiliary images of each class, sampled from the clients' own models",
    "traffic.png": "Bytes sent and received by the clients in each phase",
}
_OTHER_RESULTS_OMIT = {
    *("status", "error", "strategy", "dataset", "num_clients"),
    *("rejected_uploads", "skipped_images", "failures"),
    *("seconds", "uplink_bytes", "downlink_bytes", "versions", "decisions", "accuracy_by_domain"),
    *("accuracy", "frechet_distance", "label_agreement", "downstream_accuracy"),
}
_NONE = "—"


@dataclass(frozen=True)
class _Number:
    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class _Table:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = ""
    """CSS class: ``numeric``, ``pairs``, ``incidents``, ``long`` (scrolls)."""


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` from the files of a run.

    A run without ``summary.json`` (still running, or killed) is reported as unfinished, with what it wrote.

    Parameters
    ----------
    run_dir : Path
        Holds ``config.json``, and as far as the run came ``metrics.jsonl``, ``summary.json`` and the PNGs.

    Returns
    -------
    Path
        The report: no script, no reference to any other file.

    Raises
    ------
    FileNotFoundError
        If the folder holds no ``config.json``, so is no run directory.
    """
    # Imported late: whoever only writes a run directory does not need jinja2.
    from jinja2 import Environment, StrictUndefined

    if not (run_dir / "config.json").is_file():
        raise FileNotFoundError(f"{run_dir} is no run directory: it holds no config.json")
    config = _read_json(run_dir / "config.json")
    summary = _read_json(run_dir / "summary.json")
    events = _read_events(run_dir / "metrics.jsonl")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    html = environment.from_string(HTML).render(
        css=CSS,
        title=f"{summary.get('strategy', config.get('method', 'run'))} on "
        f"{summary.get('dataset', config.get('dataset', 'unknown data'))}",
        run=run_dir.resolve().name,
        ended=_minute(events[-1]["time"]) if events else "",
        status=summary.get("status", "unfinished"),
        error=summary.get("error"),
        numbers=_headlines(summary),
        pictures=[
            {"uri": _data_uri(run_dir / name), "alt": alt}
            for name, alt in _PICTURES.items()
            if (run_dir / name).is_file()
        ],
        problems=_filled(
            _Table(
                "Rejected uploads", ("node", "reason"), _incidents(summary, "rejected_uploads"), "incidents"
            ),
            _Table("Failures", ("node", "reason"), _incidents(summary, "failures"), "incidents"),
            _Table(
                "Skipped images", (), [(text,) for text in summary.get("skipped_images", [])], "incidents"
            ),
        ),
        tables=_filled(*_tables(config, summary, events)),
    )
    path = run_dir / "report.html"
    write_atomically(path, html)
    return path


def _headlines(summary: Mapping[str, Any]) -> list[_Number]:
    clients = summary.get("num_clients") or 0
    uplink, seconds = summary.get("uplink_bytes", {}), summary.get("seconds", {})
    numbers = _qualities(summary)
    for name, phase in (("The one upload", SETUP_PHASE), ("Uploaded in all", "total")):
        if phase in uplink:
            note = f"{human_bytes(uplink[phase] / clients)} a client" if clients else ""
            numbers.append(_Number(name, human_bytes(uplink[phase]), note))
    if "total" in seconds:
        numbers.append(_Number("Time", human_seconds(seconds["total"])))
    if clients:
        rejected = len(summary.get("rejected_uploads", []))
        numbers.append(_Number("Clients", str(clients), f"{rejected} rejected" if rejected else ""))
    return numbers


def _qualities(summary: Mapping[str, Any]) -> list[_Number]:
    rounds = summary.get("rounds")
    note = f"after round {rounds}" if rounds else ""
    if "frechet_distance" not in summary:
        accuracy = summary.get("accuracy")
        return [_Number("Accuracy", _percent(accuracy), note if accuracy is not None else "")]
    numbers = [_Number("Frechet distance", human_number(summary["frechet_distance"]), note)]
    for key, name, meaning in (
        ("label_agreement", "Label agreement", "samples that look like their class"),
        ("downstream_accuracy", "Downstream accuracy", "a classifier trained on samples"),
    ):
        if key in summary:
            numbers.append(_Number(name, _percent(summary[key]), meaning))
    return numbers


def _tables(
    config: Mapping[str, Any], summary: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> list[_Table]:
    rounds = [event for event in events if event.get("event") == "round"]
    columns = [key for key in _ROUND_COLUMNS if any(key in event for event in rounds)]
    head = ("round", *(_ROUND_COLUMNS[key][0] for key in columns))
    rows = [
        (str(event["round"]), *(_ROUND_COLUMNS[key][1](event.get(key)) for key in columns))
        for event in rounds
    ]
    by_domain = [(name, _percent(value)) for name, value in summary.get("accuracy_by_domain", {}).items()]
    more = [(key, _text(value)) for key, value in summary.items() if key not in _OTHER_RESULTS_OMIT]
    return [
        _Table("Round by round", head, rows, "numeric long"),
        _Table("Accuracy by domain", (), by_domain, "pairs"),
        _Table("Bytes by phase", ("phase", "sent by clients", "received"), _byte_rows(summary), "numeric"),
        _Table("Seconds by phase", ("phase", "time", "share"), _second_rows(summary), "numeric"),
        _Table("Other results", (), more, "pairs"),
        _Table("Versions", (), list(summary.get("versions", {}).items()), "pairs"),
        _Table("Config", (), [(key, _text(value)) for key, value in config.items()], "pairs"),
    ]


def _filled(*tables: _Table) -> list[_Table]:
    return [table for table in tables if table.rows]


def _incidents(summary: Mapping[str, Any], key: str) -> list[tuple[str, str]]:
    return [(str(incident["node"]), str(incident["reason"])) for incident in summary.get(key, [])]


def _byte_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    uplink, downlink = summary.get("uplink_bytes", {}), summary.get("downlink_bytes", {})
    return [
        (phase, human_bytes(uplink.get(phase, 0)), human_bytes(downlink.get(phase, 0)))
        for phase in _total_last([*uplink, *downlink])
    ]


def _second_rows(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    seconds = summary.get("seconds", {})
    total = seconds.get("total", 0)
    return [
        (phase, human_seconds(seconds[phase]), human_percent(seconds[phase] / total) if total else _NONE)
        for phase in _total_last(list(seconds))
    ]


def _total_last(phases: Sequence[str]) -> list[str]:
    return sorted(dict.fromkeys(phases), key=lambda phase: phase == "total")


def _percent(fraction: float | None) -> str:
    return _NONE if fraction is None else human_percent(fraction)


def _loss(loss: float | None) -> str:
    return _NONE if loss is None else f"{loss:.4f}"


def _distance(value: float | None) -> str:
    return _NONE if value is None else human_number(value)


_ROUND_COLUMNS: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "accuracy": ("accuracy", _percent),
    "loss": ("loss", _loss),
    "frechet_distance": ("Frechet distance", _distance),
    "precision": ("precision", _percent),
    "recall": ("recall", _percent),
    "label_agreement": ("label agreement", _percent),
}


def _text(value: object) -> str:
    if value is None or value == "":
        return _NONE
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _minute(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M UTC")


def _read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return values


def _read_events(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
