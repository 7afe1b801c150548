"""The curves of a run over its rounds, each one PNG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgl_app.results.style import BLUE, MUTED, ORANGE, picture
from fgl_app.results.units import human_number, human_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CURVES: dict[str, tuple[str, Callable[[float], str]]] = {
    "accuracy": ("Accuracy of the global model", human_percent),
    "frechet_distance": ("Frechet distance of the global model's samples", human_number),
}


def plot_metric(name: str, points: Sequence[tuple[int, float]], path: Path) -> None:
    """Draw a metric by round.

    Parameters
    ----------
    name : str
        "accuracy" (0..1, higher is better) or "frechet_distance" (lower is better, logarithmic axis).
    points : Sequence[tuple[int, float]]
        Round and value, at least one, rounds ascending.
    path : Path
        The PNG to write.

    Raises
    ------
    ValueError
        If there are no points.
    """
    if not points:
        raise ValueError("points must hold at least one round, got none")
    title, human = _CURVES[name]
    rounds, values = zip(*points, strict=True)
    with picture(path, 3.1, title, f"{human(values[-1])} after round {rounds[-1]}") as figure:
        axes = figure.subplots()
        marker = "o" if len(points) <= 20 else None
        axes.plot(rounds, values, color=BLUE, linewidth=2, marker=marker, markersize=5, clip_on=False)
        axes.plot(rounds[-1], values[-1], "o", color=BLUE, markersize=8, clip_on=False, zorder=3)
        if name == "accuracy":
            _scale_fractions(axes, values)
        else:
            _scale_distances(axes, values)
        _number_rounds(axes, rounds)
        if len(points) == 1:
            axes.annotate(human(values[0]), points[0], (10, 0), textcoords="offset points", va="center")


def plot_corrections(decisions: Sequence[Mapping[str, Any]], threshold: float, path: Path) -> None:
    """Draw FedDDPM+'s view: the clients' loss, its relative improvement, and where it corrected.

    Parameters
    ----------
    decisions : Sequence[Mapping[str, Any]]
        For each round "round", "loss", "improvement" (None where there is none) and "corrected".
    threshold : float
        Improvement a round below which learning counts as slow.
    path : Path
        The PNG to write.
    """
    from matplotlib.ticker import PercentFormatter

    corrected = [row["round"] for row in decisions if row["corrected"]]
    when = ", ".join(str(number) for number in corrected)
    subtitle = f"corrected after round {when}" if corrected else "learning never became slow: no correction"
    with picture(path, 4.6, "When to correct", subtitle) as figure:
        upper, lower = figure.subplots(2, sharex=True)
        for axes, name in ((upper, "loss"), (lower, "improvement")):
            points = [(row["round"], row[name]) for row in decisions if row[name] is not None]
            if points:
                axes.plot(*zip(*points, strict=True), "o-", color=BLUE, linewidth=2, markersize=5)
            for number in corrected:
                axes.axvline(number, color=ORANGE, linewidth=2, zorder=0)
            axes.grid(axis="y")
        upper.set_ylabel("clients' loss")
        lower.set_ylabel("improvement a round")
        lower.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        lower.axhline(threshold, color=MUTED, linewidth=1, linestyle="--")
        _number_rounds(lower, [row["round"] for row in decisions])


def _scale_fractions(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import PercentFormatter

    low = 0.0 if len(values) == 1 else max(0.0, math.floor(10 * min(values) - 0.5) / 10)
    axes.set_ylim(low, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.grid(axis="y")


def _scale_distances(axes: Axes, values: Sequence[float]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator

    axes.set_yscale("log")
    low, high = max(1e-3, 0.8 * min(values)), 1.25 * max(1e-3, *values)
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.grid(axis="y")


def _number_rounds(axes: Axes, rounds: Sequence[int]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, steps=[1, 2, 5, 10]))
    axes.margins(x=0.015)
    if len(rounds) == 1:
        axes.set_xticks(rounds)
    axes.set_xlabel("round")
