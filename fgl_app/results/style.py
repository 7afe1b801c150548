"""The look that all pictures of a run share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Five inches on a phone's screen make one point about one pixel: nothing is set below eight points.
WIDTH = 5.0
DPI = 200
TITLE_HEIGHT = 0.62

INK, MUTED, FAINT = "#1f2933", "#5f6c7b", "#e4e7eb"
# Of the palette of Okabe and Ito, which stays distinct under all common colour blindness.
BLUE, ORANGE = "#0072b2", "#d55e00"

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
def picture(path: Path, height: float, title: str, subtitle: str, *, dpi: float = DPI) -> Iterator[Figure]:
    """Open a titled figure, save it as a PNG on leaving.

    Parameters
    ----------
    path : Path
        The PNG.
    height : float
        Of the whole picture, inches; the title takes the uppermost ``TITLE_HEIGHT``.
    title, subtitle : str
        What one sees, and the finding in one line.
    dpi : float
        Pixels an inch.

    Yields
    ------
    matplotlib.figure.Figure
        Belongs to no window and no global state, so any thread may draw.
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
        figure.savefig(path, dpi=dpi)


def shorten(text: str, limit: int) -> str:
    """Return the text, cut to ``limit`` characters with an ellipsis if it is longer."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"
