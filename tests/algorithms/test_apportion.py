"""Shares in proportion to counts."""

import pytest

from fgl_app.algorithms.apportion import apportion


@pytest.mark.parametrize(
    ("counts", "total", "shares"),
    [
        ([1, 1, 1], 10, [4, 3, 3]),
        ([400, 100, 0], 10, [8, 2, 0]),
        ([5], 7, [7]),
        # 1.25, 1.25 and 2.5 images: the last image goes to the largest remainder.
        ([1, 1, 2], 5, [1, 1, 3]),
        ([3, 3], 0, [0, 0]),
        ([0, 0], 5, [0, 0]),
    ],
)
def test_shares_follow_the_counts_and_add_up(counts, total, shares):
    assert apportion(counts, total) == shares
