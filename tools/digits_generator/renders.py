"""The public training set: captioned renders of digits."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from fgl_app.algorithms.strokes import measure_strokes, stroke_captions
from tools.digits_generator.drawing import draw
from tools.digits_generator.fonts import Font, digit_skeletons
from tools.digits_generator.handwriting import shape_digits, write_digits
from tools.digits_generator.recipe import Recipe

LABELS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_CHUNK = 500


@dataclass(frozen=True)
class Renders:
    """Images (uint8, (N, 1, 32, 32)), their labels (int64, (N,)) and stroke captions."""

    images: Tensor
    labels: Tensor
    captions: list[str]


def make_renders(fonts: list[Font], recipe: Recipe) -> Renders:
    """Render ``recipe.renders`` digits, an equal number of each, from procedural strokes and from fonts."""
    generator = torch.Generator().manual_seed(recipe.seed)
    handwritten = torch.stack([digit_skeletons(font) for font in fonts if not font.printed])
    printed = torch.stack([digit_skeletons(font) for font in fonts if font.printed])
    images, captions = [], []
    for start in range(0, recipe.renders, 10 * _CHUNK):
        for digit in range(10):
            glyphs = torch.cat(
                [
                    _choose(handwritten[:, digit], recipe.font_share, generator),
                    _choose(printed[:, digit], recipe.printed_share, generator),
                ]
            )
            clouds = _digit_clouds(digit, glyphs, generator)
            ink = draw(clouds, generator)
            images.append(ink)
            captions.extend(stroke_captions(measure_strokes(ink.float() / 255)))
        if start % (100 * _CHUNK) == 0:
            print(f"renders: {start + 10 * _CHUNK}/{recipe.renders}", flush=True)
    labels = torch.arange(10).repeat_interleave(_CHUNK).repeat(len(images) // 10)
    return Renders(torch.cat(images), labels, captions)


def _choose(glyphs: Tensor, share: float, generator: torch.Generator) -> Tensor:
    return glyphs[torch.randint(len(glyphs), (round(_CHUNK * share),), generator=generator)]


def _digit_clouds(digit: int, glyphs: Tensor, generator: torch.Generator) -> Tensor:
    written = write_digits(digit, _CHUNK - len(glyphs), generator)
    return torch.cat(
        [
            shape_digits(glyphs, generator, slant=11.0, warp=0.024),
            shape_digits(written, generator, slant=12.0, warp=0.018),
        ]
    )


def degrade(images: Tensor, generator: torch.Generator) -> Tensor:
    """Degrade images by low resolution, noise or blur: the meaning of "low quality, low resolution".

    Parameters
    ----------
    images : Tensor
        float32 in [0, 1] of shape (N, 1, H, W).
    generator : torch.Generator
        Source of every random choice.
    """
    size = images.shape[-1]
    small = functional.interpolate(images, size=size // 4, mode="area")
    coarse = functional.interpolate(small, size=size, mode="nearest")
    blurred = functional.avg_pool2d(images, 5, stride=1, padding=2)
    noisy = images + 0.3 * torch.randn(images.shape, generator=generator)
    kind = torch.randint(3, (len(images), 1, 1, 1), generator=generator)
    return torch.where(kind == 0, coarse, torch.where(kind == 1, blurred, noisy)).clamp(0, 1)


def save_contact_sheet(images: Tensor, path: Path, columns: int = 30) -> None:
    """Save images (uint8, (N, 1, H, W)) as one PNG, row by row."""
    from PIL import Image

    rows = len(images) // columns
    grid = images[: rows * columns, 0].view(rows, columns, *images.shape[2:])
    sheet = grid.permute(0, 2, 1, 3).reshape(rows * images.shape[2], columns * images.shape[3])
    Image.fromarray(sheet.numpy()).save(path)
