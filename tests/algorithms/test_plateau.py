"""Detection of a plateau in the loss."""

import pytest

from fgl_app.algorithms.plateau import is_plateau, relative_improvement


def test_the_improvement_is_the_smoothed_fall_per_round():
    # Without smoothing, over two rounds: (4 - 2) / (2 * 4).
    assert relative_improvement([9, 4, 3, 2], window=2, smoothing=0.0) == pytest.approx(0.25)
    # Smoothed by one half: 8, then 6, then 4; over one round (6 - 4) / 6.
    assert relative_improvement([8, 4, 2], window=1, smoothing=0.5) == pytest.approx(1 / 3)


def test_too_few_losses_give_no_improvement():
    assert relative_improvement([], window=1, smoothing=0.0) is None
    assert relative_improvement([1, 1], window=2, smoothing=0.0) is None
    assert not is_plateau([1, 1], window=2, smoothing=0.0, threshold=1.0)


def test_a_plateau_is_an_improvement_below_the_threshold():
    losses = [1.0, 0.9, 0.89, 0.885]
    assert is_plateau(losses, window=1, smoothing=0.0, threshold=0.01)
    assert not is_plateau(losses[:2], window=1, smoothing=0.0, threshold=0.01)
