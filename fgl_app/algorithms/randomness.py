"""Seeded randomness: every use has its own stream, named by what it is for."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def seeded_generator(purpose: str, *entropy: int) -> torch.Generator:
    """Return a random stream of its own.

    Parameters
    ----------
    purpose : str
        What it is for; two purposes never share a stream.
    *entropy : int
        Seed, round, client, image ... non-negative.

    Returns
    -------
    torch.Generator
        On the CPU, the same for the same arguments.
    """
    # NumPy pads entropy with zeros, so without its length (0,) and (0, 0) would be one stream.
    words = [zlib.crc32(purpose.encode()), len(entropy), *entropy]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0]) % 2**63)
