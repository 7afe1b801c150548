"""Digits as clouds of pen points: strokes from allographs, and random deformation."""

import math

import torch
from torch import Tensor

from tools.digits_generator.allographs import ALLOGRAPHS

POINTS = 128
_SAMPLES_A_SEGMENT = 12
_BOX = (0.80, 1.0)


def write_digits(digit: int, count: int, generator: torch.Generator) -> Tensor:
    """Write one digit `count` times with random allographs and jittered control points.

    Returns
    -------
    Tensor
        Pen points (x, y) in a box of height 1, float32 of shape (count, `POINTS`, 2), evenly spaced.
    """
    weights = torch.tensor([float(weight) for weight, _ in ALLOGRAPHS[digit]])
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    clouds = torch.empty(count, POINTS, 2)
    for index, (_, text) in enumerate(ALLOGRAPHS[digit]):
        rows = torch.nonzero(chosen == index).squeeze(1)
        if len(rows):
            clouds[rows] = _trace(text, len(rows), generator)
    return clouds * torch.tensor(_BOX)


def _trace(text: str, count: int, generator: torch.Generator) -> Tensor:
    strokes = [
        torch.tensor([float(v) for v in stroke.split()]).view(-1, 2) / 100 for stroke in text.split("|")
    ]
    jitter = 0.01 + 0.045 * torch.rand(count, 1, 1, generator=generator)
    lines, steps = [], []
    for stroke in strokes:
        noise = _smooth(torch.randn(count, len(stroke) + 2, 2, generator=generator))
        corner = (stroke[1:] == stroke[:-1]).all(dim=1)
        for index in torch.nonzero(corner).flatten().tolist():
            noise[:, index + 1] = noise[:, index]
        lifted = 0.6 * torch.randn(count, 1, 2, generator=generator) if len(strokes) > 1 else 0.0
        line = _spline_matrix(len(stroke)) @ (stroke + jitter * (noise + lifted))
        step = (line[:, 1:] - line[:, :-1]).norm(dim=2)
        lines.append(line)
        steps.append(torch.cat([torch.zeros(count, 1), step], dim=1))
    return _resample(torch.cat(lines, dim=1), torch.cat(steps, dim=1))


def _smooth(noise: Tensor) -> Tensor:
    """Correlate the noise of neighbouring control points; the variance does not change."""
    return (noise[:, :-2] + 2 * noise[:, 1:-1] + noise[:, 2:]) / math.sqrt(6)


def _spline_matrix(points: int) -> Tensor:
    """Return the Catmull-Rom spline through `points` control points as a (samples, points) matrix."""
    t = torch.linspace(0, points - 1, (points - 1) * _SAMPLES_A_SEGMENT + 1)
    segment = t.floor().clamp(max=points - 2).long()
    u = t - segment
    basis = torch.stack(
        [-u + 2 * u**2 - u**3, 2 - 5 * u**2 + 3 * u**3, u + 4 * u**2 - 3 * u**3, -(u**2) + u**3], dim=1
    )
    matrix = torch.zeros(len(t), points)
    for offset in range(4):
        column = (segment + offset - 1).clamp(0, points - 1)
        matrix.scatter_add_(1, column[:, None], basis[:, offset : offset + 1] / 2)
    return matrix


def _resample(line: Tensor, steps: Tensor) -> Tensor:
    travelled = steps.cumsum(dim=1)
    wanted = torch.linspace(0, 1, POINTS) * travelled[:, -1:]
    index = torch.searchsorted(travelled, wanted.contiguous()).clamp(max=line.shape[1] - 1)
    return line.gather(1, index[:, :, None].expand(-1, -1, 2))


def shape_digits(clouds: Tensor, generator: torch.Generator, slant: float, warp: float) -> Tensor:
    """Change the proportions of each cloud, then stretch, slant, rotate and smoothly warp it.

    Parameters
    ----------
    clouds : Tensor
        Pen points of shape (N, P, 2) in a box of height about 1.
    generator : torch.Generator
        Source of every random choice.
    slant : float
        Standard deviation of the slant in degrees; its mean is half of that, to the right.
    warp : float
        Typical displacement of the smooth warp, as a share of the height.
    """
    count = len(clouds)

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    low, high = clouds.amin(dim=1, keepdim=True), clouds.amax(dim=1, keepdim=True)
    extent = (high - low).clamp_min(1e-6)
    bent = low + extent * ((clouds - low) / extent) ** torch.exp(0.22 * normal(1, 2))
    centred = bent - bent.mean(dim=1, keepdim=True)
    frequency = 2 * math.pi * (0.3 + 0.9 * torch.rand(count, 3, 2, generator=generator))
    phase = 2 * math.pi * torch.rand(count, 1, 3, generator=generator)
    waves = torch.sin(centred @ (frequency * normal(3, 2).sign()).transpose(1, 2) + phase)
    warped = centred + warp * waves @ normal(3, 2)

    shear = torch.tan(torch.deg2rad((0.5 * slant + slant * normal(1)).clamp(-35, 50)))
    turn = torch.deg2rad(5 * normal(1))
    stretch = torch.exp(0.05 + 0.20 * normal(1))
    x, y = warped[:, :, 0] * stretch, warped[:, :, 1]
    x = x - shear * y
    return torch.stack([x * turn.cos() - y * turn.sin(), x * turn.sin() + y * turn.cos()], dim=2)
