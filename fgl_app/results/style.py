"""Size, colours and axes shared by all pictures of a run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from fgl_app.metrics.units import format_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# At five inches on a phone one point is about one pixel, so no text is smaller than eight points.
WIDTH = 5.0
DPI = 200
TITLE_HEIGHT = 0.62

INK, MUTED, FAINT = "#1f2933", "#5f6c7b", "#e4e7eb"
# From the palette of Okabe and Ito, which is distinct under all common forms of colour blindness.
BLUE, ORANGE = "#0072b2", "#d55e00"
PALETTE = (BLUE, ORANGE, "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@contextmanager
def picture(
    path: Path | IO[bytes], height: float, title: str, subtitle: str, *, dpi: float = DPI
) -> Iterator[Figure]:
    """Create a figure with a title, and save it as a PNG on exit.

    The height is in inches; the title takes the top ``TITLE_HEIGHT``. The subtitle has the main finding in
    one line. The figure is outside pyplot's global state, so any thread can draw.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with mpl.rc_context(_RC):
        below_title = ConstrainedLayoutEngine(rect=(0.01, 0.01, 0.97, 1 - TITLE_HEIGHT / height - 0.01))
        figure = Figure(figsize=(WIDTH, height), dpi=dpi, layout=below_title, facecolor="white")
        figure.text(0.1 / WIDTH, 1 - 0.1 / height, title, va="top", fontsize=12, weight="bold")
        figure.text(0.1 / WIDTH, 1 - 0.35 / height, subtitle, va="top", fontsize=9.5, color=MUTED)
        yield figure
        figure.savefig(path, dpi=dpi, format="png")


def scale_bytes(axes: Axes, low: float, high: float) -> None:
    """Scale the horizontal axis logarithmically in bytes, from ``low`` to ``high``."""
    for steps in ((1,), (1, 10, 100), (1, 2, 5, 10, 20, 50, 100, 200, 500)):
        ticks = [1000.0**power * step for power in range(5) for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) > 1:
            break
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(ticks, [format_bytes(tick).replace(".0", "") for tick in ticks])
    axes.set_xlabel("logarithmic scale")
    axes.minorticks_off()


def shorten(text: str, limit: int) -> str:
    """Return the text, with an ellipsis if it is longer than ``limit`` characters."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
