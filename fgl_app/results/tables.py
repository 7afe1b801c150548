"""The tables of a run's report, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fgl_app.metrics.specs import KEY_FIGURES, METRICS, PRIMARY_METRICS, MetricSpec
from fgl_app.metrics.units import format_bytes, format_duration, format_percent
from fgl_app.results.runs import Run, total_last

MISSING = "—"
MAX_INCIDENTS = 50
"""Rows of an incident table; summary.json has all incidents."""
_NOT_OTHER_RESULTS = {
    *("status", "error", "strategy", "dataset", "num_clients", "resumed_after_round"),
    *("rejected_uploads", "skipped_images", "failures"),
    *("seconds", "uplink_bytes", "downlink_bytes", "versions", "decisions", "model_bytes"),
    *(spec.key for spec in KEY_FIGURES),
    *(f"{spec.key}_by_domain" for spec in PRIMARY_METRICS),
}
# They differ between any two runs and do not describe the experiment.
LOCATION_KEYS = frozenset({"output-dir", "run-name", "client-state-dir", "resume"})


@dataclass(frozen=True)
class Row:
    """A table row: header cell, other cells, CSS class, and indices of the cells with the best value."""

    name: str
    cells: Sequence[str]
    style: Literal["", "total", "reference", "changed"] = ""
    best: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Table:
    """A table for the page templates."""

    title: str
    head: Sequence[str]  # Column titles; empty for none.
    rows: Sequence[Row]
    kind: str = ""  # CSS classes: numeric, pairs, incidents, long (scrolls), runs.
    note: str = ""  # Line below the table.
    colors: Sequence[str] = ()  # Colour of each column's legend mark.


def problem_tables(run: Run) -> list[Table]:
    """Return the tables of rejected uploads, failures and skipped images, without empty ones."""
    return _without_empty(
        _incident_table("Rejected uploads", run.summary.get("rejected_uploads", [])),
        _incident_table("Failures", run.summary.get("failures", [])),
        Table(
            "Skipped images", (), [Row(image, ()) for image in run.summary.get("skipped_images", [])], "long"
        ),
    )


def result_tables(run: Run) -> list[Table]:
    """Return the tables of results, bytes, seconds, versions and config, without empty ones."""
    summary = run.summary
    other = {key.replace("_", " "): text(summary[key]) for key in summary if key not in _NOT_OTHER_RESULTS}
    return _without_empty(
        _round_table(run),
        *(_domain_table(run, spec) for spec in PRIMARY_METRICS),
        _byte_table(run),
        _second_table(run),
        _pair_table("Other results", other),
        _pair_table("Versions", summary.get("versions", {})),
        _config_table(run),
    )


def _round_table(run: Run) -> Table:
    logged = {key for event in run.rounds for key in event}
    specs = [spec for spec in METRICS.values() if spec.key in logged and not spec.final_only]
    rows = [
        Row(str(event["round"]), [or_missing(event.get(spec.key), spec.format) for spec in specs])
        for event in run.rounds
    ]
    return Table("Round by round", ("round", *(spec.title for spec in specs)), rows, "numeric long")


def _domain_table(run: Run, spec: MetricSpec) -> Table:
    values = run.summary.get(f"{spec.key}_by_domain", {})
    return _pair_table(
        f"{spec.heading} by domain", {name: or_missing(value, spec.format) for name, value in values.items()}
    )


def _byte_table(run: Run) -> Table:
    rows = [
        _phase_row(phase, format_bytes(counts["uplink"]), format_bytes(counts["downlink"]))
        for phase, counts in run.traffic.items()
    ]
    note = ""
    if run.fedavg_bytes:
        fedavg = format_bytes(run.fedavg_bytes)
        rows.append(Row("FedAvg (calculated)", (fedavg, fedavg), "reference"))
        note = (
            f"FedAvg: {count(run.num_rounds, 'round')} x {count(run.num_clients, 'client')} x "
            f"{format_bytes(run.summary['model_bytes'])}, the serialized weights of this run's model, in "
            "each direction. Calculated, not measured."
        )
    return Table("Bytes by phase", ("phase", "sent by clients", "received"), rows, "numeric", note)


def _second_table(run: Run) -> Table:
    seconds = run.seconds
    total = seconds.get("total", 0)
    rows = [
        _phase_row(
            phase,
            format_duration(seconds[phase]),
            format_percent(seconds[phase] / total) if total else MISSING,
        )
        for phase in total_last(seconds)
    ]
    return Table("Seconds by phase", ("phase", "time", "share"), rows, "numeric")


def _phase_row(phase: str, *cells: str) -> Row:
    return Row(phase, cells, "total" if phase == "total" else "")


def _config_table(run: Run) -> Table:
    changed = changed_keys(run.config)
    rows = [
        Row(key, (text(value),), "changed" if key in changed else "") for key, value in run.config.items()
    ]
    return Table("Config (bold: changed from the default)" if changed else "Config", (), rows, "pairs")


def changed_keys(config: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys whose value is not the default of the config's method, without locations."""
    from fgl_app.config import ConfigError, parse_config

    try:
        defaults = parse_config({"method": config["method"]}).to_run_config()
    except (ConfigError, KeyError):
        return frozenset()
    return frozenset(key for key in config if config[key] != defaults.get(key, config[key])) - LOCATION_KEYS


def _incident_table(title: str, incidents: Sequence[Mapping[str, Any]]) -> Table:
    # A node that fails in every round usually fails for the same reason.
    counts = Counter((_origin(incident), str(incident["reason"])) for incident in incidents)
    rows = [
        Row(origin, (reason + (f" ({number} times)" if number > 1 else ""),))
        for (origin, reason), number in counts.most_common(MAX_INCIDENTS)
    ]
    rest = len(counts) - len(rows)
    return Table(title, ("node", "reason"), rows, "incidents long", f"and {rest} more" if rest else "")


def _origin(incident: Mapping[str, Any]) -> str:
    parts = [str(incident["node"])]
    if incident.get("site"):
        parts.append(f"site {incident['site']}")
    if incident.get("phase"):
        parts.append(str(incident["phase"]))
    return ", ".join(parts)


def _pair_table(title: str, values: Mapping[str, str]) -> Table:
    return Table(title, (), [Row(name, (value,)) for name, value in values.items()], "pairs")


def _without_empty(*tables: Table) -> list[Table]:
    return [table for table in tables if table.rows]


def count(number: int, noun: str) -> str:
    """Return a number with its noun, such as ``"1 round"`` or ``"5 rounds"``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def or_missing(value: float | None, to_text: Callable[[float], str]) -> str:
    """Return a value as text, or a dash for None."""
    return MISSING if value is None else to_text(value)


def text(value: object) -> str:
    """Return any JSON value as one line of text."""
    if value is None or value in ("", [], {}):
        return MISSING
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(text, value))
    return str(value)
