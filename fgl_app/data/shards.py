"""A synthetic set on disk: parquet shards, and a manifest of all that determines the images.

Shards are written atomically, so the missing ones are known from the names of the files.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from fgl_app.algorithms.images import match_channels, resize_images
from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.saving import encode_images
from fgl_app.files import write_atomically

SHARD_SIZE = 256
"""Images per shard: an interruption loses unwritten images, one or two shards of each worker."""
MANIFEST = ".manifest.json"
"""Hidden: ``datasets`` reads the shards only."""
READ_BATCH_SIZE = 64


def open_or_create_set(out: Path, manifest: Mapping[str, Any]) -> Path:
    """Return the folder of the set with this manifest; create it if it does not exist.

    The folder is ``out`` if it is new or contains this set; else "out-2", "out-3" and so on, so that
    different sets are never mixed. The manifest has JSON values of all that determines the images.

    Raises
    ------
    OSError
        If the folder cannot be created, or contains other files.
    """
    for number in itertools.count(1):
        folder = out if number == 1 else out.with_name(f"{out.name}-{number}")
        file = folder / MANIFEST
        if file.is_file():
            if _read_manifest(file) == manifest:
                return folder
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OSError(f"folder {folder} cannot be created: {error.strerror}") from error
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise FileExistsError(f"folder {folder} must be new, empty or a synthetic set")
        write_atomically(file, json.dumps(manifest, indent=2) + "\n")
        return folder
    raise AssertionError("unreachable: the loop has no end")


def _read_manifest(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileExistsError(f"{file} is not the manifest of a synthetic set: {error}") from error


def missing_shards(folder: Path, total: int) -> list[int]:
    """Return the numbers of the missing shards."""
    return [number for number in range(total) if not _shard_path(folder, number, total).is_file()]


def encode_shard(
    images: LabeledImages, planned: Sequence[tuple[int, int]], class_names: Sequence[str]
) -> bytes:
    """Return the content of a shard: images, labels, and the prompt and number of each image."""
    prompts, numbers = zip(*planned, strict=True)
    return encode_images(images, class_names, {"prompt": prompts, "number": numbers})


def decode_shard(content: bytes) -> LabeledImages:
    """Return the images in the content of a shard."""
    rows = pq.read_table(io.BytesIO(content), columns=["image", "label"]).to_pydict()
    return LabeledImages(_decode_images(rows["image"]), torch.tensor(rows["label"]))


def write_shard(folder: Path, number: int, total: int, content: bytes) -> None:
    """Write the content of a shard to its file."""
    write_atomically(_shard_path(folder, number, total), content)


def read_shards(folder: Path, image_size: int, channels: int) -> LabeledImages:
    """Read a complete set for training, ordered by prompt and number.

    The images get a side of ``image_size`` pixels and 1 or 3 channels. They are memory-mapped from an unnamed
    temporary file in the folder, so the set may be larger than the memory.
    """
    files = sorted(folder.glob("train-*.parquet"))
    tables = [pq.read_table(file, columns=["label", "prompt", "number"]) for file in files]
    rows = pa.concat_tables(tables).to_pydict()
    order = np.lexsort((rows["number"], rows["prompt"]))
    positions = torch.from_numpy(np.argsort(order))
    with tempfile.TemporaryFile(dir=folder) as store:
        shape = (len(order), channels, image_size, image_size)
        store.truncate(math.prod(shape))
        if hasattr(os, "posix_fallocate"):
            # A full disk raises OSError here; without it a later access ends the process by a signal.
            os.posix_fallocate(store.fileno(), 0, math.prod(shape))
        images = torch.from_numpy(np.memmap(store, np.uint8, "r+", shape=shape))
    done = 0
    for batch in _iter_batches(files):
        pixels = _decode_images(batch["image"].to_pylist())
        stored = LabeledImages(pixels, torch.zeros(len(pixels), dtype=torch.int64))
        resized = match_channels(resize_images(stored, image_size), channels)
        images[positions[done : done + len(resized)]] = resized.images
        done += len(resized)
    return LabeledImages(images, torch.tensor(rows["label"])[torch.from_numpy(order)])


def _iter_batches(files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(READ_BATCH_SIZE, columns=["image"])


def _decode_images(images: Sequence[Mapping[str, bytes]]) -> Tensor:
    return torch.stack([_decode_png(image["bytes"]) for image in images])


def _decode_png(png: bytes) -> Tensor:
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _shard_path(folder: Path, number: int, total: int) -> Path:
    return folder / f"train-{number:05d}-of-{total:05d}.parquet"
