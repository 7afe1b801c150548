"""Text for bytes, durations, times and other numbers, for logs, plots and reports."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime


def format_bytes(n: float) -> str:
    """Return a number of bytes, at least 0, in decimal units.

    Three or four digits and a unit, such as ``"512 B"``, ``"1.5 KB"`` or ``"44.7 MB"``.
    """
    if n < 1000:
        return f"{n:.0f} B"
    value = float(n)
    for unit in ("KB", "MB", "GB"):
        value /= 1000
        # 999.96 would round to "1000.0" of the smaller unit.
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def format_range(values: Collection[int]) -> str:
    """Return the minimum and maximum, such as ``"3 to 1,200"``, or one number when they are equal."""
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def format_duration(s: float) -> str:
    """Return a duration in seconds, at least 0, in one or two units.

    Such as ``"0.42 s"``, ``"12.3 s"``, ``"3 min 5 s"`` or ``"2 h 14 min"``.
    """
    if s < 0.995:
        return f"{s:.2f} s"
    if s < 59.95:
        return f"{s:.1f} s"
    seconds = round(s)
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    minutes = round(s / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def format_percent(fraction: float) -> str:
    """Return a fraction between 0 and 1 as a percentage with one decimal, such as ``"87.4 %"``."""
    return f"{100 * fraction:.1f} %"


def format_number(value: float) -> str:
    """Return a positive number with three significant digits, such as ``"5.36"`` or ``"124"``."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def format_time(time: datetime) -> str:
    """Return a UTC time to the minute, such as ``"2026-11-21 10:15 UTC"``."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
