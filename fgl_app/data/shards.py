"""A synthetic set on disk: shards of parquet, and a manifest that says what they were made with.

A shard is there whole or not at all, so whoever finds the folder knows what is missing.
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
"""Images of a shard: a death costs those that are not written yet, one or two shards of each worker."""
MANIFEST = ".manifest.json"
"""Hidden, so that ``datasets`` sees nothing but the shards."""
READ_AT_A_TIME = 64


def open_or_create_set(out: Path, manifest: Mapping[str, Any]) -> Path:
    """Return the folder of the set that a manifest describes, with what is there of it already.

    Parameters
    ----------
    out : Path
        The folder, if it is new or holds this very set; else "out-2", "out-3" and so on are tried: sets that
        differ in anything never mix.
    manifest : Mapping[str, Any]
        JSON values.

    Raises
    ------
    OSError
        When the folder cannot be made, or holds something else.
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
            raise OSError(f"folder {folder} cannot be made: {error.strerror}") from error
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise FileExistsError(f"folder {folder} must be new, empty or a synthetic set")
        write_atomically(file, json.dumps(manifest, indent=2) + "\n")
        return folder
    raise AssertionError("the numbers never end")


def _read_manifest(file: Path) -> object:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FileExistsError(f"{file} is no manifest of a synthetic set: {error}") from error


def missing_shards(folder: Path, total: int) -> list[int]:
    """Return the numbers of the shards that are not there yet."""
    return [number for number in range(total) if not _file(folder, number, total).is_file()]


def encode_shard(
    images: LabeledImages, planned: Sequence[tuple[int, int]], class_names: Sequence[str]
) -> bytes:
    """Return a shard's file: images, labels, and the prompt and number of each."""
    prompts, numbers = zip(*planned, strict=True)
    return encode_images(images, class_names, {"prompt": prompts, "number": numbers})


def decode_shard(content: bytes) -> LabeledImages:
    """Return the images of a shard's file."""
    rows = pq.read_table(io.BytesIO(content), columns=["image", "label"]).to_pydict()
    return LabeledImages(_pixels(rows["image"]), torch.tensor(rows["label"]))


def write_shard(folder: Path, number: int, total: int, content: bytes) -> None:
    """Put a shard's file in its place."""
    write_atomically(_file(folder, number, total), content)


def read_shards(folder: Path, image_size: int, channels: int) -> LabeledImages:
    """Read a whole set for training.

    Parameters
    ----------
    folder : Path
        A finished set.
    image_size : int
        Side of the returned images, pixels.
    channels : int
        Their channels: 1 or 3.

    Returns
    -------
    LabeledImages
        Ordered by prompt and number. The pixels lie in an unnamed file beside the set, mapped into memory:
        the system keeps of them what fits and reads the rest as it is asked for.
    """
    files = sorted(folder.glob("train-*.parquet"))
    tables = [pq.read_table(file, columns=["label", "prompt", "number"]) for file in files]
    rows = pa.concat_tables(tables).to_pydict()
    order = np.lexsort((rows["number"], rows["prompt"]))
    places = torch.from_numpy(np.argsort(order))
    with tempfile.TemporaryFile(dir=folder) as store:
        shape = (len(order), channels, image_size, image_size)
        store.truncate(math.prod(shape))
        if hasattr(os, "posix_fallocate"):
            # A full disk is told here, rather than by the system's signal at some later access.
            os.posix_fallocate(store.fileno(), 0, math.prod(shape))
        images = torch.from_numpy(np.memmap(store, np.uint8, "r+", shape=shape))
    done = 0
    for batch in _pictures(files):
        pixels = _pixels(batch["image"].to_pylist())
        read = LabeledImages(pixels, torch.zeros(len(pixels), dtype=torch.int64))
        resized = match_channels(resize_images(read, image_size), channels)
        images[places[done : done + len(read)]] = resized.images
        done += len(read)
    return LabeledImages(images, torch.tensor(rows["label"])[torch.from_numpy(order)])


def _pictures(files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    for path in files:
        with pq.ParquetFile(path) as file:
            yield from file.iter_batches(READ_AT_A_TIME, columns=["image"])


def _pixels(pictures: Sequence[Mapping[str, bytes]]) -> Tensor:
    return torch.stack([_decode(picture["bytes"]) for picture in pictures])


def _decode(png: bytes) -> Tensor:
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _file(folder: Path, number: int, total: int) -> Path:
    return folder / f"train-{number:05d}-of-{total:05d}.parquet"
