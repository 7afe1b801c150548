"""Curves of a run over its rounds, one PNG each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from fgl_app.metrics.specs import MetricSpec
from fgl_app.results.style import BLUE, MUTED, ORANGE, PALETTE, picture, scale_bytes, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_metric(spec: MetricSpec, points: Sequence[tuple[int, float]], path: Path) -> None:
    """Draw one run's metric by ascending round; raises ValueError if there are fewer than two points."""
    if len(points) < 2:
        raise ValueError(f"points must hold at least two rounds, got {len(points)}")
    rounds, values = zip(*points, strict=True)
    subtitle = f"{spec.format(values[-1])} after round {rounds[-1]}"
    with picture(path, 3.1, spec.curve_title, subtitle) as figure:
        axes = figure.subplots()
        _draw_curve(axes, Curve("", 0, points))
        axes.plot(rounds[-1], values[-1], "o", color=BLUE, markersize=8, clip_on=False, zorder=3)
        _scale_values(axes, spec, values)
        _number_rounds(axes)


@dataclass(frozen=True)
class Curve:
    """A metric of one of several runs."""

    label: str
    number: int  # Index of the run, from 0; selects the colour.
    points: Sequence[tuple[float, float]]  # x and value. A single point gets a horizontal line.


def run_color(number: int) -> str:
    """Return the colour of the run with this index, from 0."""
    return PALETTE[number % len(PALETTE)]


def plot_curves(spec: MetricSpec, curves: Sequence[Curve], x: str, file: IO[bytes]) -> None:
    """Draw a metric of several runs in one PNG.

    There is at least one curve, each with at least one point. ``x`` is "round" or "uplink_bytes"; bytes are
    on a logarithmic scale.
    """
    subtitle = "by round" if x == "round" else "by bytes sent by the clients"
    rows = math.ceil(len(curves) / 2)
    with picture(file, 3.4 + 0.2 * rows, spec.curve_title, subtitle) as figure:
        axes = figure.subplots()
        for curve in curves:
            _draw_curve(axes, curve)
        _scale_values(axes, spec, [value for curve in curves for _, value in curve.points])
        if x == "round":
            _number_rounds(axes)
        else:
            sizes = [size for curve in curves for size, _ in curve.points]
            scale_bytes(axes, 0.45 * min(sizes), 2.2 * max(sizes))
        axes.set_xmargin(0.04)
        figure.legend(loc="outside lower left", ncols=2, frameon=False, fontsize=8.5, handlelength=1.6)


def _draw_curve(axes: Axes, curve: Curve) -> None:
    xs, ys = zip(*curve.points, strict=True)
    # Dashes distinguish the runs after the last colour.
    style = "-" if curve.number < len(PALETTE) else "--"
    color = run_color(curve.number)
    if len(xs) == 1:
        axes.axhline(ys[0], color=color, linewidth=1, linestyle=":", zorder=0)
    axes.plot(
        *(xs, ys, style),
        color=color,
        linewidth=2,
        marker="o",
        markersize=4 if 1 < len(xs) <= 20 else 7 if len(xs) == 1 else 0,
        label=shorten(curve.label, 30),
        clip_on=False,
    )


def plot_corrections(decisions: Sequence[Mapping[str, Any]], threshold: float, path: Path) -> None:
    """Draw the decisions of FedDDPM+: the clients' loss, its relative improvement and the corrections.

    Each round has "round", "loss", "improvement" (None when unknown) and "corrected". The threshold is the
    relative improvement per round below which the loss counts as a plateau.
    """
    from matplotlib.ticker import PercentFormatter

    corrected = [row["round"] for row in decisions if row["corrected"]]
    subtitle = "no correction: the loss reached no plateau"
    if corrected:
        subtitle = f"corrected after round {', '.join(map(str, corrected))}"
    with picture(path, 4.6, "Corrections", subtitle) as figure:
        upper, lower = figure.subplots(2, sharex=True)
        for axes, name in ((upper, "loss"), (lower, "improvement")):
            points = [(row["round"], row[name]) for row in decisions if row[name] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=BLUE, linewidth=2, markersize=5)
            for number in corrected:
                axes.axvline(number, color=ORANGE, linewidth=2, zorder=0)
            axes.grid(axis="y")
        upper.set_ylabel("clients' loss")
        lower.set_ylabel("improvement per round")
        lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        lower.axhline(threshold, color=MUTED, linewidth=1, linestyle="--")
        _number_rounds(lower)


def _scale_values(axes: Axes, spec: MetricSpec, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, PercentFormatter

    axes.grid(axis="y")
    if spec.scale == "fraction":
        axes.set_ylim(max(0.0, math.floor(10 * min(values) - 0.5) / 10), 1)
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        return
    axes.set_yscale("log")
    axes.set_ylim(max(1e-3, 0.8 * min(values)), 1.25 * max(1e-3, *values))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()


def _number_rounds(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.margins(x=0.015)
    axes.set_xlabel("round")
