"""Whole shares of a whole number."""

from __future__ import annotations

from collections.abc import Sequence


def apportion(counts: Sequence[int], total: int) -> list[int]:
    """Share ``total`` in proportion to counts, in whole numbers that add up to it.

    Parameters
    ----------
    counts : Sequence[int]
        Non-negative, not all zero unless ``total`` is.
    total : int
        What is shared out.

    Returns
    -------
    list[int]
        A share for each count (largest remainder; the earlier one wins a tie).
    """
    # Whole numbers throughout: a float quota of large counts could be off by one.
    everything = sum(counts)
    if not everything:
        return [0 for _ in counts]
    scaled = [count * total for count in counts]
    shares = [value // everything for value in scaled]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-(scaled[i] % everything), i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
