"""The tables of a run's report, as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fgl_app.metrics.specs import KEY_FIGURES, METRICS, PRIMARY_METRICS, MetricSpec
from fgl_app.metrics.units import format_bytes, format_duration, format_percent
from fgl_app.results.runs import Run

NONE = "—"
MOST_INCIDENTS = 50
"""Rows of a table of incidents; the rest is in summary.json."""
_OTHER_RESULTS_OMIT = {
    *("status", "error", "strategy", "dataset", "num_clients", "resumed_after_round"),
    *("rejected_uploads", "skipped_images", "failures"),
    *("seconds", "uplink_bytes", "downlink_bytes", "versions", "decisions", "model_bytes"),
    *(spec.key for spec in KEY_FIGURES),
    *(f"{spec.key}_by_domain" for spec in PRIMARY_METRICS),
}
# Every run has its own; they say nothing about what was tried.
PLACES = frozenset({"output-dir", "run-name", "client-state-dir", "resume"})


@dataclass(frozen=True)
class Table:
    """A table as the report's template takes it.

    Attributes
    ----------
    title : str
        Its heading.
    head : Sequence[str]
        Titles of the columns; empty for none.
    rows : Sequence[Sequence[str]]
        The first cell of each names the row.
    kind : str, default ""
        CSS classes: ``numeric``, ``pairs``, ``incidents``, ``long`` (scrolls), ``runs``.
    note : str, default ""
        A line below it.
    marked : frozenset[str], default frozenset()
        Names of rows that stand out.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = ""
    note: str = ""
    marked: frozenset[str] = frozenset()


def problem_tables(run: Run) -> list[Table]:
    """Return the tables of what went wrong; empty when nothing did."""
    tables = [
        _incidents(title, run.summary.get(key, []))
        for title, key in (("Rejected uploads", "rejected_uploads"), ("Failures", "failures"))
    ]
    skipped = [(text,) for text in run.summary.get("skipped_images", [])]
    return _filled(*tables, Table("Skipped images", (), skipped, "incidents long"))


def result_tables(run: Run) -> list[Table]:
    """Return the tables of results, bytes, seconds, versions and config; those without rows are left out."""
    summary = run.summary
    more = [
        (key.replace("_", " "), text(value))
        for key, value in summary.items()
        if key not in _OTHER_RESULTS_OMIT
    ]
    return _filled(
        _round_table(run),
        *(_domain_table(run, spec) for spec in PRIMARY_METRICS),
        _byte_table(run),
        _second_table(run),
        Table("Other results", (), more, "pairs"),
        Table("Versions", (), list(summary.get("versions", {}).items()), "pairs"),
        _config_table(run),
    )


def _round_table(run: Run) -> Table:
    specs = [
        spec
        for spec in METRICS.values()
        if not spec.final_only and any(spec.key in event for event in run.rounds)
    ]
    rows = [
        (str(event["round"]), *(or_dash(event.get(spec.key), spec.format) for spec in specs))
        for event in run.rounds
    ]
    return Table("Round by round", ("round", *(spec.title for spec in specs)), rows, "numeric long")


def _domain_table(run: Run, spec: MetricSpec) -> Table:
    values = run.summary.get(f"{spec.key}_by_domain", {})
    rows = [(name, or_dash(value, spec.format)) for name, value in values.items()]
    return Table(f"{spec.heading} by domain", (), rows, "pairs")


def _byte_table(run: Run) -> Table:
    uplink, downlink = run.bytes_by_phase("uplink"), run.bytes_by_phase("downlink")
    rows = [
        (phase, format_bytes(uplink.get(phase, 0)), format_bytes(downlink.get(phase, 0)))
        for phase in total_last([*uplink, *downlink])
    ]
    title, head = "Bytes by phase", ("phase", "sent by clients", "received")
    if run.fedavg_bytes is None or run.strategy == "fedavg":
        return Table(title, head, rows, "numeric")
    instead = format_bytes(run.fedavg_bytes)
    note = (
        f"FedAvg: {counted(run.num_rounds, 'round')} x {counted(run.num_clients, 'client')} x "
        f"{format_bytes(run.summary['model_bytes'])}, the weights of this run's model as they are serialized "
        "here, each way. Calculated, not measured."
    )
    return Table(title, head, [*rows, ("FedAvg instead", instead, instead)], "numeric", note)


def _second_table(run: Run) -> Table:
    seconds = run.seconds
    total = seconds.get("total", 0)
    rows = [
        (phase, format_duration(seconds[phase]), format_percent(seconds[phase] / total) if total else NONE)
        for phase in total_last(list(seconds))
    ]
    return Table("Seconds by phase", ("phase", "time", "share"), rows, "numeric")


def _config_table(run: Run) -> Table:
    changed = changed_keys(run.config)
    rows = [(key, text(value)) for key, value in run.config.items()]
    title = "Config (bold: not the default)" if changed else "Config"
    return Table(title, (), rows, "pairs", marked=changed)


def changed_keys(config: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys whose value is not the default of the config's method, places left out."""
    from fgl_app.config import ConfigError, parse_config

    try:
        defaults = parse_config({"method": config["method"]}).to_run_config()
    except (ConfigError, KeyError):
        return frozenset()
    changed = {key for key, value in config.items() if value != defaults.get(key, value)}
    return frozenset(changed - PLACES)


def _incidents(title: str, incidents: Sequence[Mapping[str, Any]]) -> Table:
    # A node that fails in every round fails for one reason.
    counts = Counter((_who(incident), str(incident["reason"])) for incident in incidents)
    rows = [
        (who, reason + (f" ({number} times)" if number > 1 else ""))
        for (who, reason), number in counts.most_common(MOST_INCIDENTS)
    ]
    rest = len(counts) - len(rows)
    return Table(title, ("node", "reason"), rows, "incidents long", f"and {rest} more" if rest else "")


def _who(incident: Mapping[str, Any]) -> str:
    parts = [str(incident["node"])]
    if incident.get("site"):
        parts.append(f"site {incident['site']}")
    if incident.get("phase"):
        parts.append(str(incident["phase"]))
    return ", ".join(parts)


def _filled(*tables: Table) -> list[Table]:
    return [table for table in tables if table.rows]


def total_last(phases: Sequence[str]) -> list[str]:
    """Return each phase once, in order, the total at the end."""
    return sorted(dict.fromkeys(phases), key=lambda phase: phase == "total")


def counted(number: int, what: str) -> str:
    """Return a number of things, such as ``"1 round"`` or ``"5 rounds"``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def or_dash(value: float | None, to_text: Callable[[float], str]) -> str:
    """Return a value as text, or a dash for None."""
    return NONE if value is None else to_text(value)


def text(value: object) -> str:
    """Return any JSON value as a line of text."""
    if value is None or value in ("", [], {}):
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(text, value))
    return str(value)
