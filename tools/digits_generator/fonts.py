"""Download of the pinned fonts, and conversion of their digits into pen points."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import freetype
import numpy as np
import torch
from skimage.morphology import skeletonize
from torch import Tensor

from tools.digits_generator.handwriting import POINTS

PACKAGE_JSON = Path(__file__).with_name("package.json")
_GLYPH_PIXELS = 96


@dataclass(frozen=True)
class Font:
    """A font package: name, version, licence, and whether it is printed or handwritten."""

    name: str
    version: str
    licence: str
    printed: bool
    file: Path


def install_fonts(work_dir: Path) -> list[Font]:
    """Install the packages of ``package.json`` with npm and return them in a fixed order."""
    folder = work_dir / "fonts"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(PACKAGE_JSON, folder / "package.json")
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=folder, check=True)
    manifest = json.loads(PACKAGE_JSON.read_text())
    fonts = []
    for package in sorted(manifest["dependencies"]):
        name = package.removeprefix("@fontsource/")
        root = folder / "node_modules" / package
        about = json.loads((root / "package.json").read_text())
        file = root / "files" / f"{name}-latin-400-normal.woff"
        fonts.append(Font(name, about["version"], about["license"], name in manifest["printed"], file))
    return fonts


def digit_skeletons(font: Font) -> Tensor:
    """Return skeletons of the ten digits: pen points in a box of height 1, float32 (10, `POINTS`, 2)."""
    face = freetype.Face(str(font.file))
    face.set_pixel_sizes(0, _GLYPH_PIXELS)
    return torch.stack([_skeleton(face, str(digit)) for digit in range(10)])


def _skeleton(face: freetype.Face, character: str) -> Tensor:
    face.load_char(character, freetype.FT_LOAD_RENDER | freetype.FT_LOAD_NO_HINTING)
    bitmap = face.glyph.bitmap
    pixels = np.array(bitmap.buffer, dtype=np.uint8).reshape(bitmap.rows, bitmap.pitch)[:, : bitmap.width]
    y, x = np.nonzero(skeletonize(np.pad(pixels > 127, 2)))
    points = np.stack([x, y], axis=1).astype(np.float32)
    points -= points.min(axis=0)
    return torch.from_numpy(_spread(points) / points[:, 1].max())


def _spread(points: np.ndarray) -> np.ndarray:
    """Return `POINTS` points that cover the skeleton evenly (farthest point sampling)."""
    distance = np.full(len(points), np.inf)
    chosen = [0]
    for _ in range(POINTS - 1):
        distance = np.minimum(distance, ((points - points[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(distance.argmax()))
    return points[chosen]
