"""Measure the pen strokes of digit images and describe them in words.

A client captions a private digit with them, such as ``"thin strokes, slanted right, narrow"``. The embedded
generator was trained on renders with captions of this module, so words mean the same on both sides.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

WIDTH_EDGES = (1.5, 1.85, 2.2, 2.55, 2.95, 3.45)
WIDTH_WORDS = tuple(
    f"{width} strokes"
    for width in ("hairline", "very thin", "thin", "medium", "thick", "very thick", "heavy")
)
SLANT_EDGES = (-22.0, -14.0, -7.0, -2.0, 3.0, 8.0, 14.0, 21.0, 29.0)
SLANT_WORDS = (
    "extremely slanted left",
    "strongly slanted left",
    "slanted left",
    "slightly slanted left",
    "upright",
    "slightly slanted right",
    "slanted right",
    "clearly slanted right",
    "strongly slanted right",
    "extremely slanted right",
)
ASPECT_EDGES = (0.35, 0.5, 0.65, 0.8, 0.95)
ASPECT_WORDS = ("skinny", "narrow", "slim", "regular", "wide", "broad")

_EPSILON = 1e-6


@dataclass(frozen=True)
class StrokeMeasures:
    """Stroke measures of N images, each float32 of shape (N,).

    Mean width of the strokes in pixels; slant in degrees, positive when the top leans right; and aspect, the
    ratio of width to height of the ink.
    """

    width: Tensor
    slant: Tensor
    aspect: Tensor


def measure_strokes(images: Tensor) -> StrokeMeasures:
    """Measure stroke width, slant and aspect of bright ink on a dark background.

    The width is twice the area of the ink over the length of its outline (total variation), the slant is the
    shear given by the second moments of the ink, and the extents are sums of the column and row maxima. All
    three use grey levels, so they change smoothly at scales below one pixel. The images are floating point of
    shape (N, 1, H, W) with values in [0, 1]; all measures of an image without ink are 0.

    Raises
    ------
    ValueError
        If the shape, dtype or range of the images differs.
    """
    _check_images(images)
    ink = images.detach().float().squeeze(1)
    area = ink.sum(dim=(1, 2)).clamp_min(_EPSILON)

    padded = torch.nn.functional.pad(ink, (1, 1, 1, 1))
    down = padded[:, 1:, :-1] - padded[:, :-1, :-1]
    right = padded[:, :-1, 1:] - padded[:, :-1, :-1]
    outline = (down.square() + right.square()).sqrt().sum(dim=(1, 2)).clamp_min(_EPSILON)

    y = torch.arange(ink.shape[1], dtype=torch.float32, device=ink.device)[None, :, None]
    x = torch.arange(ink.shape[2], dtype=torch.float32, device=ink.device)[None, None, :]
    dy = y - ((ink * y).sum(dim=(1, 2)) / area)[:, None, None]
    dx = x - ((ink * x).sum(dim=(1, 2)) / area)[:, None, None]
    shear = -(ink * dx * dy).sum(dim=(1, 2)) / (ink * dy.square()).sum(dim=(1, 2)).clamp_min(_EPSILON)

    across = ink.amax(dim=1).sum(dim=1)
    along = ink.amax(dim=2).sum(dim=1).clamp_min(_EPSILON)
    return StrokeMeasures(
        width=2 * ink.sum(dim=(1, 2)) / outline, slant=torch.rad2deg(torch.atan(shear)), aspect=across / along
    )


def stroke_captions(measures: StrokeMeasures) -> list[str]:
    """Return one caption per image, such as ``"thin strokes, slanted right, narrow"``.

    The words are in the embedded generator's vocabulary. The measures are those of 28x28 digits (padding does
    not matter).
    """
    widths = _words(measures.width, WIDTH_EDGES, WIDTH_WORDS)
    slants = _words(measures.slant, SLANT_EDGES, SLANT_WORDS)
    aspects = _words(measures.aspect, ASPECT_EDGES, ASPECT_WORDS)
    return [", ".join(parts) for parts in zip(widths, slants, aspects, strict=True)]


def _words(values: Tensor, edges: tuple[float, ...], words: tuple[str, ...]) -> list[str]:
    bins = torch.bucketize(values.float().cpu(), torch.tensor(edges), right=True)
    return [words[index] for index in bins.tolist()]


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.shape[1] != 1:
        raise ValueError(f"images must have the shape (N, 1, H, W), but got {tuple(images.shape)}.")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point with values in [0, 1], but got {images.dtype}.")
    if images.numel() and not (images.min() >= 0 and images.max() <= 1):
        low, high = images.min().item(), images.max().item()
        raise ValueError(f"images must have values in [0, 1], but got values in [{low:.4g}, {high:.4g}].")
