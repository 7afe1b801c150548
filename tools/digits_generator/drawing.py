"""Draw clouds of pen points as 28x28 digits: ink within 20x20 pixels, centred by mass, padded to 32x32."""

import torch
from torch import Tensor

SIZE = 32
INK_BOX = 20.0


def draw(clouds: Tensor, generator: torch.Generator) -> Tensor:
    """Draw each cloud with a round pen of random width and pressure.

    Parameters
    ----------
    clouds : Tensor
        Pen points (x, y) of shape (N, P, 2), dense enough for their discs to overlap.
    generator : torch.Generator
        Source of every random choice.

    Returns
    -------
    Tensor
        Bright ink on a dark ground, uint8 of shape (N, 1, 32, 32).
    """
    count = len(clouds)
    width = torch.exp(0.93 + 0.25 * torch.randn(count, 1, generator=generator)).clamp(1.3, 4.4)
    extent = (clouds.amax(dim=1) - clouds.amin(dim=1)).amax(dim=1)[:, None, None]
    points = clouds * ((INK_BOX - width[:, :, None]) / extent.clamp_min(1e-6))
    points = points - points.mean(dim=1, keepdim=True) + (SIZE - 1) / 2

    direction = torch.randn(count, 2, 1, generator=generator) / INK_BOX
    pressure = 1 + 0.22 * torch.sin((points @ direction).squeeze(2) * 3 + width)
    radius = width / 2 * pressure
    softness = 0.9 + 0.6 * torch.rand(count, 1, generator=generator)

    axis = torch.arange(SIZE, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=2).view(1, -1, 2)
    reach = (torch.cdist(grid.expand(count, -1, -1), points) - radius[:, None, :]).amin(dim=2)
    ink = (0.5 - reach / softness).clamp(0, 1)
    return (ink * 255).round().to(torch.uint8).view(count, 1, SIZE, SIZE)
