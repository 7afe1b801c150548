"""Pictures of a run's data, images and traffic, one PNG each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fgl_app.metrics.units import format_bytes
from fgl_app.results.style import (
    BLUE,
    FAINT,
    INK,
    MUTED,
    ORANGE,
    TITLE_HEIGHT,
    WIDTH,
    picture,
    scale_bytes,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh

_POINTS_PER_INCH = 72
_DIRECTION_STYLES = {"sent": ("-", "^", BLUE), "received": ("-", "v", ORANGE), "each way": (":", "o", MUTED)}


def plot_label_distribution(counts: npt.NDArray[np.integer], class_names: Sequence[str], path: Path) -> None:
    """Draw the label distribution: one row per client, one column per class, darker for more examples.

    ``counts`` has shape (clients, classes). Raises ValueError if the number of names is not the number of
    classes.
    """
    num_clients, num_classes = counts.shape
    if len(class_names) != num_classes:
        raise ValueError(f"class_names must have {num_classes} names, got {len(class_names)}")
    cell = 0.87 * WIDTH / num_classes * _POINTS_PER_INCH
    number_size = min(9.0, cell / (0.75 * len(str(counts.max()))))
    numbered = number_size >= 7
    row = min(0.36, max(0.2 if numbered else 0.12, 5 / num_clients))
    held = float((counts > 0).sum(axis=1).mean())
    subtitle = f"on average, a client holds {held:.1f} of {num_classes} classes"
    names_height = 0.75 + min(0.9, 0.09 * max(map(len, class_names)))
    height = TITLE_HEIGHT + row * num_clients + names_height + (0.0 if numbered else 0.6)
    with picture(path, height, "Label distribution", subtitle) as figure:
        axes = figure.subplots()
        mesh = _draw_cells(axes, counts)
        if numbered:
            _number_cells(axes, counts, number_size)
        else:
            bar = figure.colorbar(mesh, ax=axes, location="bottom", shrink=0.6, aspect=32)
            bar.set_label("examples (grey: none)")
            bar.outline.set_visible(False)
        _name_columns(axes, class_names, cell)
        step = math.ceil(0.16 / row)
        clients = range(0, num_clients, step)
        axes.set_yticks([client + 0.5 for client in clients], [str(client) for client in clients])
        axes.set_ylabel("client")


def _draw_cells(axes: Axes, counts: npt.NDArray[np.integer]) -> QuadMesh:
    from matplotlib.colors import LinearSegmentedColormap, PowerNorm

    blues = LinearSegmentedColormap.from_list("counts", ["#c6dbef", "#4292c6", "#08306b"])
    # The square-root scale keeps small counts visible next to large ones.
    norm = PowerNorm(0.5, vmin=0, vmax=max(1, counts.max()))
    mesh = axes.pcolormesh(
        np.ma.masked_equal(counts, 0),
        cmap=blues,
        norm=norm,
        edgecolors="white",
        linewidth=min(1.0, 10 / max(counts.shape)),
    )
    axes.set_facecolor("#f1f3f5")
    axes.invert_yaxis()
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return mesh


def _number_cells(axes: Axes, counts: npt.NDArray[np.integer], size: float) -> None:
    for (client, label), count in np.ndenumerate(counts):
        if count:
            # On the square-root scale, the middle is a quarter of the maximum.
            color = "white" if 4 * count > counts.max() else INK
            axes.text(
                label + 0.5, client + 0.52, str(count), color=color, fontsize=size, ha="center", va="center"
            )


def _name_columns(axes: Axes, class_names: Sequence[str], cell: float) -> None:
    step = math.ceil(11 / cell)
    names = [shorten(name, 16) for name in class_names[::step]]
    upright = max(map(len, names)) * 6 > cell
    axes.set_xticks(np.arange(0, len(class_names), step) + 0.5, names, rotation=90 if upright else 0)
    axes.set_xlabel("class" if step == 1 else f"class (1 in {step} labelled)")


def plot_image_grid(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    class_names: Sequence[str],
    path: Path,
    *,
    per_class: int = 10,
    title: str = "Synthetic images",
    rows: tuple[str, str] = ("class", "classes"),
) -> None:
    """Draw one row of images per class, evenly spaced over the images of the class.

    Parameters
    ----------
    images : ndarray of uint8, shape (N, H, W) or (N, H, W, 3)
        Grey or RGB images, at least one.
    labels : ndarray of int, shape (N,)
        Class of each image, an index into ``class_names``.
    class_names : Sequence[str]
        All classes; if there are more than 20, 20 evenly spaced classes are shown.
    path : Path
        The PNG to write.
    per_class : int, default 10
        Maximum number of images per row.
    title : str, default "Synthetic images"
        Title of the picture.
    rows : tuple[str, str], default ("class", "classes")
        Noun for a row in the subtitle, singular and plural.
    """
    chosen = np.unique(np.linspace(0, len(class_names) - 1, min(20, len(class_names))).round().astype(int))
    longest_row = int(np.bincount(labels, minlength=len(class_names))[chosen].max())
    columns = max(1, min(per_class, longest_row))
    canvas, row_height = _tile(images, labels, chosen, columns)
    names = [shorten(class_names[label], 16) for label in chosen]
    margin = 0.22 + 0.085 * max(map(len, names))
    # Image pixels map to whole picture pixels and so stay sharp; the resolution sets the size of the text.
    # A short row stays short instead of being enlarged.
    dpi = max(canvas.shape[1] / (WIDTH - margin - 0.1), canvas.shape[1] / columns / 0.7)
    height = TITLE_HEIGHT + canvas.shape[0] / dpi + 0.1
    subtitle = f"{len(images):,} images of {len(class_names)} {rows[len(class_names) != 1]}"
    if len(chosen) < len(class_names):
        subtitle += f", {len(chosen)} shown"
    with picture(path, height, title, subtitle, dpi=dpi) as figure:
        figure.figimage(canvas, xo=round(margin * dpi), yo=round(0.1 * dpi), origin="upper")
        for index, (label, name) in enumerate(zip(chosen, names, strict=True)):
            y = 0.1 + (canvas.shape[0] - (index + 0.5) * row_height) / dpi
            figure.text(0.1 / WIDTH, y / height, name, va="center", fontsize=9.5)
            if not (labels == label).any():
                figure.text((margin + 0.08) / WIDTH, y / height, "none", va="center", color=MUTED)


def _tile(
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.integer],
    chosen: npt.NDArray[np.integer],
    columns: int,
) -> tuple[npt.NDArray[np.uint8], int]:
    gap = 4
    blank = _scaled(np.zeros_like(images[0]))
    row_height, column_width = blank.shape[0] + gap, blank.shape[1] + gap
    canvas = np.full((row_height * len(chosen), column_width * columns, 3), 255, dtype=np.uint8)
    for row, label in enumerate(chosen):
        members = np.flatnonzero(labels == label)
        picked = np.linspace(0, len(members) - 1, min(columns, len(members))).round().astype(int)
        for column, member in enumerate(members[picked]):
            top, left = row * row_height + gap // 2, column * column_width + gap // 2
            tile = _scaled(images[member])
            canvas[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return canvas, row_height


def _scaled(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    picture = Image.fromarray(image).convert("RGB")
    if picture.width > 128:
        size = (96, max(1, round(96 * picture.height / picture.width)))
        return np.asarray(picture.resize(size, Image.Resampling.LANCZOS))
    factor = max(1, round(96 / picture.width))
    return np.asarray(picture).repeat(factor, axis=0).repeat(factor, axis=1)


def plot_traffic(
    by_phase: Mapping[str, Mapping[str, int]], path: Path, *, reference: tuple[str, int] | None = None
) -> None:
    """Draw the bytes that clients sent and received in each phase, on a logarithmic axis.

    Each phase has its ``uplink`` and ``downlink`` bytes, as from ``TrafficLedger.by_phase``. The reference is
    the name of another method and the bytes it would send in each direction.
    """
    sent = sum(phase["uplink"] for phase in by_phase.values())
    received = sum(phase["downlink"] for phase in by_phase.values())
    subtitle = f"clients sent {format_bytes(sent)} and received {format_bytes(received)}"
    names = [*by_phase, *([reference[0]] if reference else [])]
    with picture(path, TITLE_HEIGHT + 0.75 + 0.6 * len(names), "Bytes by phase", subtitle) as figure:
        axes = figure.subplots()
        sizes = [phase[way] for phase in by_phase.values() for way in ("uplink", "downlink") if phase[way]]
        sizes += [reference[1]] if reference else []
        low = 10 ** math.floor(math.log10(min(sizes, default=1000)) - 0.3)
        for row, phase in enumerate(by_phase.values()):
            _draw_bytes(axes, row - 0.17, phase["uplink"], low, "sent")
            _draw_bytes(axes, row + 0.17, phase["downlink"], low, "received")
        if reference:
            _draw_bytes(axes, len(by_phase), reference[1], low, "each way")
        scale_bytes(axes, low, 10 ** (1.6 * math.log10(max(sizes, default=1000) / low)) * low)
        axes.grid(axis="x", color=FAINT)
        axes.spines["left"].set_visible(False)
        axes.set_yticks(range(len(names)), [shorten(name, 18) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0, labelcolor=INK)


def _draw_bytes(axes: Axes, y: float, size: int, low: float, direction: str) -> None:
    line, marker, color = _DIRECTION_STYLES[direction]
    end = max(size, low)
    axes.plot([low, end], [y, y], line, color=color, linewidth=2.5, solid_capstyle="butt")
    if size:
        axes.plot(end, y, marker, color=color, markersize=7)
    text = f"{format_bytes(size)} {direction}"
    axes.annotate(text, (end, y), (8, 0), textcoords="offset points", va="center", fontsize=9)
