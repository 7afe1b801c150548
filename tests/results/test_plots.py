import io

import numpy as np
import pytest
from PIL import Image

from fgl_app.metrics.specs import METRICS
from fgl_app.results.curves import Curve, plot_corrections, plot_curves, plot_metric
from fgl_app.results.plots import plot_image_grid, plot_label_distribution, plot_traffic


def pixels(path):
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def has_color(picture, color):
    return bool((np.abs(picture.astype(int) - color).max(axis=-1) <= 2).any())


@pytest.mark.parametrize(("clients", "classes"), [(2, 2), (10, 10), (30, 60)])
def test_label_distribution(tmp_path, clients, classes):
    counts = np.random.default_rng(0).integers(1, 400, (clients, classes))
    counts[::2, ::2] = 0
    plot_label_distribution(counts, [f"class {i}" for i in range(classes)], tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape[1] == 1000
    assert 400 < picture.shape[0] < 2600
    assert has_color(picture, [0x08, 0x30, 0x6B]), "the largest count has the darkest blue"
    assert has_color(picture, [0xF1, 0xF3, 0xF5]), "no examples is grey"


def test_label_distribution_darkens_the_larger_count(tmp_path):
    plot_label_distribution(np.array([[400, 0], [0, 25]]), ["cat", "dog"], tmp_path / "a.png")
    dark = np.abs(pixels(tmp_path / "a.png").astype(int) - [0x08, 0x30, 0x6B]).max(axis=-1) <= 2
    rows, columns = np.nonzero(dark)
    # Client 0 is the upper row, class 0 the left column.
    assert np.median(columns) < 1000 / 2
    assert np.median(rows) < dark.shape[0] / 2


def test_label_distribution_needs_one_name_per_class(tmp_path):
    with pytest.raises(ValueError, match="class_names must have 3 names, got 2"):
        plot_label_distribution(np.ones((2, 3), dtype=int), ["a", "b"], tmp_path / "a.png")


def test_image_grid_shows_small_images_pixel_for_pixel(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    plot_image_grid(image, np.array([0]), ["noise"], tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    enlarged = image[0].repeat(12, axis=0).repeat(12, axis=1)  # 8 pixels become 96
    windows = np.lib.stride_tricks.sliding_window_view(picture, (96, 96, 3))[:, :, 0]
    starts = np.argwhere((windows[:, :, 0, 0] == enlarged[0, 0]).all(axis=-1))
    assert any((windows[top, left] == enlarged).all() for top, left in starts)


def test_image_grid_has_one_row_per_class(tmp_path):
    shades = np.array([40, 80, 120], dtype=np.uint8)
    labels = np.repeat([0, 1, 2], [5, 5, 2])
    images = np.broadcast_to(shades[labels][:, None, None], (12, 32, 32)).copy()
    plot_image_grid(images, labels, ["a", "b", "c", "absent"], tmp_path / "a.png", per_class=4)
    picture = pixels(tmp_path / "a.png")
    areas = [int((picture == shade).all(axis=-1).sum()) / 96**2 for shade in shades]
    # Text is antialiased through a few pixels of any shade.
    assert areas == pytest.approx([4, 4, 2], abs=0.02)
    tops = [np.nonzero((picture == shade).all(axis=-1).sum(axis=1) > 90)[0].min() for shade in shades]
    assert tops == sorted(tops)


def test_image_grid_shows_at_most_twenty_classes_and_shrinks_photos(tmp_path):
    images = np.full((100, 256, 256, 3), 90, dtype=np.uint8)
    plot_image_grid(images, np.arange(100), [f"class {i}" for i in range(100)], tmp_path / "a.png")
    shown = (pixels(tmp_path / "a.png") == 90).all(axis=-1).sum() / 96**2
    assert shown == pytest.approx(20, abs=0.1)


@pytest.mark.parametrize("points", [[(i, 0.9 - 0.5 / i) for i in range(1, 51)], [(3, 0.0), (4, 1.0)]])
def test_accuracy_curve(tmp_path, points):
    plot_metric(METRICS["accuracy"], points, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (620, 1000, 3)
    assert has_color(picture, [0x00, 0x72, 0xB2])


def test_frechet_distance_curve(tmp_path):
    plot_metric(METRICS["frechet_distance"], [(2, 80.0), (3, 12.0), (4, 5.3)], tmp_path / "a.png")
    assert has_color(pixels(tmp_path / "a.png"), [0x00, 0x72, 0xB2])


@pytest.mark.parametrize("corrected", [[], [5]])
def test_corrections_are_marked(tmp_path, corrected):
    rows = [
        {"round": i, "loss": 1 / i, "improvement": 0.5 / i if i > 3 else None, "corrected": i in corrected}
        for i in range(2, 9)
    ]
    plot_corrections(rows, 0.08, tmp_path / "a.png")
    assert has_color(pixels(tmp_path / "a.png"), [0xD5, 0x5E, 0x00]) == bool(corrected)


@pytest.mark.parametrize("points", [[], [(1, 0.9)]])
def test_a_curve_needs_two_rounds(tmp_path, points):
    with pytest.raises(ValueError, match=f"at least two rounds, got {len(points)}"):
        plot_metric(METRICS["accuracy"], points, tmp_path / "a.png")


def test_runs_have_their_own_colours_and_a_single_point_is_visible(tmp_path):
    for x in ("round", "uplink_bytes"):
        file = io.BytesIO()
        curves = [Curve("first", 0, [(1000, 0.2), (2000, 0.8)]), Curve("second", 2, [(1000, 0.5)])]
        plot_curves(METRICS["accuracy"], curves, x, file)
        picture = pixels(file)
        assert has_color(picture, [0x00, 0x72, 0xB2])
        assert has_color(picture, [0x00, 0x9E, 0x73])
        assert not has_color(picture, [0xD5, 0x5E, 0x00])


def test_traffic_has_a_logarithmic_scale(tmp_path):
    lengths = []
    for size in (10**3, 10**6, 10**9):
        phases = {"setup": {"uplink": size, "downlink": 0}, "train": {"uplink": 10**3, "downlink": 10**9}}
        plot_traffic(phases, tmp_path / "a.png")
        picture = pixels(tmp_path / "a.png").astype(int)
        upper = picture[: picture.shape[0] // 2]
        blue = np.nonzero((np.abs(upper - [0x00, 0x72, 0xB2]).max(axis=-1) <= 2).any(axis=0))[0]
        lengths.append(blue.max() - blue.min())
    assert lengths[0] > 20
    # On a logarithmic scale a factor of a thousand has the same length everywhere.
    assert lengths[1] - lengths[0] == pytest.approx(lengths[2] - lengths[1], abs=3)


def test_traffic_without_any_bytes_is_drawn(tmp_path):
    plot_traffic({"setup": {"uplink": 0, "downlink": 0}}, tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").min() < 128


def test_traffic_has_a_row_for_another_method(tmp_path):
    phases = {"setup": {"uplink": 1000, "downlink": 1000}}
    plot_traffic(phases, tmp_path / "a.png")
    plot_traffic(phases, tmp_path / "b.png", reference=("FedAvg, 9 rounds", 10**6))
    alone, both = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert both.shape[0] == alone.shape[0] + 120  # a row of 0.6 inches at 200 pixels an inch
