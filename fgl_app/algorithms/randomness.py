"""Seeded random number generators, an independent one for each purpose."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def seeded_generator(purpose: str, *entropy: int) -> torch.Generator:
    """Return the random number generator of a purpose, on the CPU; equal arguments give equal generators.

    Two purposes never share a random stream. ``entropy`` is seed, round, client and so on; non-negative.
    """
    # NumPy pads entropy with zeros: without the length, (0,) and (0, 0) would be the same stream.
    words = [zlib.crc32(purpose.encode()), len(entropy), *entropy]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)
    return torch.Generator("cpu").manual_seed(int(state[0]) % 2**63)
