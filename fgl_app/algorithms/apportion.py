"""Apportionment: split a whole number in proportion to counts."""

from __future__ import annotations

from collections.abc import Sequence


def apportion(counts: Sequence[int], total: int) -> list[int]:
    """Split ``total`` in proportion to non-negative counts, into whole numbers that add up to it.

    Largest remainder method; the earlier count wins a tie. When all counts are zero, so are the shares.
    """
    # Integers throughout: a float quota of large counts could be off by one.
    count_sum = sum(counts)
    if not count_sum:
        return [0 for _ in counts]
    scaled = [count * total for count in counts]
    shares = [value // count_sum for value in scaled]
    by_remainder = sorted(range(len(counts)), key=lambda i: (-(scaled[i] % count_sum), i))
    for i in by_remainder[: total - sum(shares)]:
        shares[i] += 1
    return shares
