import pytest
import torch

from fgl_app.metrics.generated_images import fidelity, frechet_distance


def features(rows, width=4, seed=0):
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_a_set_has_distance_zero_from_itself():
    real = features(200)
    same = fidelity(real, real)
    assert same == {"frechet_distance": pytest.approx(0, abs=1e-4), "precision": 1.0, "recall": 1.0}


def test_a_shift_is_its_squared_length_and_a_scale_its_variance():
    real = features(500).double()
    assert frechet_distance(real, real + 2.0) == pytest.approx(4 * 2.0**2, rel=1e-4)
    # tr(S + 9 S - 2 * 3 S) = 4 tr(S), and the means are three times as large.
    expected = 4 * real.T.cov().trace() + (2 * real.mean(0)).square().sum()
    assert frechet_distance(real, 3 * real) == pytest.approx(float(expected), rel=1e-3)


def test_precision_measures_bad_images_and_recall_lost_modes():
    left, right = features(100), features(100, seed=1) + 50
    both = torch.cat([left, right])
    lost_mode = fidelity(both, torch.cat([left, left + 1e-3]))
    assert lost_mode["precision"] == 1.0
    assert lost_mode["recall"] == pytest.approx(0.5, abs=0.02)
    half_bad = fidelity(torch.cat([left, left + 1e-3]), both)
    assert half_bad["precision"] == pytest.approx(0.5, abs=0.02)
    assert half_bad["recall"] == 1.0


def test_features_that_are_not_finite_have_no_distance():
    real = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
    broken = real.clone()
    broken[0, 0] = torch.nan
    with pytest.raises(ValueError, match="returns features that are not finite"):
        frechet_distance(real, broken)
