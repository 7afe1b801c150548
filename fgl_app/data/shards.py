"""A synthetic set on disk: shards of parquet, a manifest that says what they are of, a data set card.

A shard is there whole or not at all, so whoever finds the folder knows what is missing.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from fgl_app.algorithms.types import LabeledImages
from fgl_app.data.saving import encode_images
from fgl_app.data.sources import match_channels, resize_images
from fgl_app.files import write_atomically

SHARD_SIZE = 256
"""Images of a shard: what a death costs at most, for each worker."""
MANIFEST = "manifest.json"
READ_AT_A_TIME = 64
CARD = """---
configs:
- config_name: default
  data_files: train-*.parquet
---
Images synthesized from text embeddings. `prompt` is the row of an image's embedding, `number` counts the
images of that prompt; `{manifest}` says what they were made with.
"""


def num_shards(images: int) -> int:
    """Return how many shards a set of so many images has."""
    return math.ceil(images / SHARD_SIZE)


def claim_folder(out: Path, manifest: Mapping[str, Any]) -> Path:
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
            if json.loads(file.read_text(encoding="utf-8")) == manifest:
                return folder
            continue
        folder.mkdir(parents=True, exist_ok=True)
        if any(not entry.name.startswith(".") and entry.name != "README.md" for entry in folder.iterdir()):
            raise FileExistsError(f"folder {folder} must be new, empty or a synthetic set")
        write_atomically(folder / "README.md", CARD.format(manifest=MANIFEST))
        write_atomically(file, json.dumps(manifest, indent=2) + "\n")
        return folder
    raise AssertionError("the numbers never end")


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
    pixels = torch.stack([_pixels(picture["bytes"]) for picture in rows["image"]])
    return LabeledImages(pixels, torch.tensor(rows["label"]))


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
    files = [pq.ParquetFile(file) for file in sorted(folder.glob("train-*.parquet"))]
    rows = pa.concat_tables([file.read(["label", "prompt", "number"]) for file in files]).to_pydict()
    order = np.lexsort((rows["number"], rows["prompt"]))
    places = torch.from_numpy(np.argsort(order))
    with tempfile.TemporaryFile(dir=folder) as store:
        shape = (len(order), channels, image_size, image_size)
        images = torch.from_numpy(np.memmap(store, np.uint8, "w+", shape=shape))
    pictures = (batch for file in files for batch in file.iter_batches(READ_AT_A_TIME, columns=["image"]))
    done = 0
    for batch in pictures:
        pixels = torch.stack([_pixels(picture["bytes"]) for picture in batch["image"].to_pylist()])
        read = LabeledImages(pixels, torch.zeros(len(pixels), dtype=torch.int64))
        resized = match_channels(resize_images(read, image_size), channels)
        images[places[done : done + len(read)]] = resized.images
        done += len(read)
    return LabeledImages(images, torch.tensor(rows["label"])[torch.from_numpy(order)])


def _pixels(png: bytes) -> Tensor:
    with Image.open(io.BytesIO(png)) as image:
        pixels = np.array(image)
    return torch.from_numpy(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _file(folder: Path, number: int, total: int) -> Path:
    return folder / f"train-{number:05d}-of-{total:05d}.parquet"
