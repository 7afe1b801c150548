import io
import json
import logging
import subprocess
import sys
import time
from datetime import datetime, timedelta
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fgl_app.metrics.specs import METRICS
from fgl_app.metrics.units import format_bytes, format_duration
from fgl_app.results.curves import Curve, plot_corrections, plot_curves, plot_metric
from fgl_app.results.plots import plot_image_grid, plot_label_distribution, plot_traffic
from fgl_app.results.run_directory import RunDirectory, versions, write_atomically

DIGITS = [str(digit) for digit in range(10)]


# Units


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (999_949, "999.9 KB"),
        (999_950, "1.0 MB"),  # not "1000.0 KB"
        (44_700_000, "44.7 MB"),
        (1_000_000_000, "1.0 GB"),
        (2.5e12, "2.5 TB"),
    ],
)
def test_human_bytes(size, text):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 s"),
        (0.42, "0.42 s"),
        (0.996, "1.0 s"),
        (12.34, "12.3 s"),
        (59.96, "1 min 0 s"),  # not "60.0 s"
        (185, "3 min 5 s"),
        (3599.6, "1 h 0 min"),  # not "60 min 0 s"
        (8040, "2 h 14 min"),
    ],
)
def test_human_seconds(seconds, text):
    assert format_duration(seconds) == text


# Run directory


def read_events(run):
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_create_writes_the_config_and_points_latest_at_the_newest_run(tmp_path):
    first = RunDirectory.create(tmp_path / "new" / "outputs", "first", {"seed": 1})
    latest = tmp_path / "new" / "outputs" / "latest"
    assert first.path == tmp_path / "new" / "outputs" / "first"
    assert json.loads((latest / "config.json").read_text()) == {"seed": 1}
    RunDirectory.create(tmp_path / "new" / "outputs", "second", {"seed": 2})
    assert latest.is_symlink()
    assert latest.readlink() == Path("second")
    assert sorted(entry.name for entry in latest.parent.iterdir()) == ["first", "latest", "second"]


def test_create_accepts_a_folder_that_holds_only_logs(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "superlink.log").touch()
    assert (RunDirectory.create(tmp_path, "run", {}).path / "config.json").is_file()


def test_create_refuses_a_used_folder_and_leaves_it_and_latest_alone(tmp_path):
    RunDirectory.create(tmp_path, "run", {"seed": 1})
    RunDirectory.create(tmp_path, "other", {})
    with pytest.raises(OSError, match=r"run directory .*run must be new .* it holds config\.json"):
        RunDirectory.create(tmp_path, "run", {"seed": 2})
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 1}
    assert (tmp_path / "latest").readlink() == Path("other")


def test_create_says_what_cannot_be_written(tmp_path):
    (tmp_path / "outputs").write_text("a file")
    with pytest.raises(OSError, match=r"the run directory .*outputs/run cannot be written: "):
        RunDirectory.create(tmp_path / "outputs", "run", {})


def test_a_link_that_cannot_be_made_is_a_log_line_and_no_failure(tmp_path, caplog):
    (tmp_path / "latest").mkdir()
    with caplog.at_level(logging.INFO, logger="fgl"):
        run = RunDirectory.create(tmp_path, "run", {})
    assert "no link" in caplog.text
    assert run.path.is_dir()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "run"]


def test_log_appends_one_json_line_at_once_with_time_and_elapsed(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    run.log({"event": "round", "round": 1, "accuracy": 0.5, "loss": float("nan")})
    assert len(read_events(run)) == 1
    run.log({"event": "note", "text": "two\nlines, ünïcode"})
    first, second = read_events(run)
    assert first["accuracy"] == 0.5
    assert first["loss"] is None
    assert second["text"] == "two\nlines, ünïcode"
    assert datetime.fromisoformat(first["time"]).utcoffset() == timedelta(0)
    assert 0 <= first["elapsed"] <= second["elapsed"]


def test_repeated_phases_add_up_and_each_is_logged(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    for name in ("train", "evaluate", "train"):
        with run.phase(name):
            time.sleep(0.02)
    events = read_events(run)
    assert [event["phase"] for event in events] == ["train", "evaluate", "train"]
    assert list(run.seconds) == ["total", "train", "evaluate"]
    # Each number is rounded to a millisecond.
    assert run.seconds["train"] == pytest.approx(events[0]["seconds"] + events[2]["seconds"], abs=0.0021)
    assert run.seconds["train"] >= 0.04
    assert run.seconds["total"] >= run.seconds["train"] + run.seconds["evaluate"] - 0.0021


def test_a_phase_that_raises_is_measured_logged_and_raises(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    with pytest.raises(RuntimeError, match="no images"), run.phase("synthesis"):
        raise RuntimeError("no images")
    assert read_events(run)[0]["error"] == "RuntimeError: no images"
    assert "synthesis" in run.seconds


def test_summary_is_ordered_strict_json_and_replaces_the_old_one(tmp_path):
    run = RunDirectory.create(tmp_path, "run", {})
    run.write_summary({"status": "failed"})
    run.write_summary(
        {"versions": {}, "zeta": 1, "alpha": 2, "recall": 1.0, "loss": float("inf"), "status": "completed"}
    )
    text = (run.path / "summary.json").read_text()
    assert list(json.loads(text)) == ["status", "loss", "recall", "alpha", "zeta", "versions"]
    assert json.loads(text)["loss"] is None
    assert sorted(entry.name for entry in run.path.glob("[!.]*")) == ["config.json", "summary.json"]


def test_a_write_that_fails_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "summary.json"
    write_atomically(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_atomically(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_versions_are_those_installed_and_nothing_is_imported():
    assert versions()["python"] == sys.version.split()[0]
    assert versions()["flwr"] == metadata.version("flwr")
    heavy = "{'torch', 'flwr', 'diffusers', 'transformers', 'datasets', 'matplotlib', 'jinja2'}"
    code = (
        "import sys, fgl_app.results.plots, fgl_app.results.report, fgl_app.results.run_directory as r;"
        f"r.versions(); print({heavy} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


# Plots


def pixels(path):
    image = Image.open(path)
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def has_color(picture, color):
    return bool((np.abs(picture.astype(int) - color).max(axis=-1) <= 2).any())


@pytest.mark.parametrize(("clients", "classes"), [(2, 2), (10, 10), (50, 100)])
def test_label_distribution(tmp_path, clients, classes):
    counts = np.random.default_rng(0).integers(1, 400, (clients, classes))
    counts[::2, ::2] = 0
    plot_label_distribution(counts, [f"class {i}" for i in range(classes)], tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape[1] == 1000
    assert 400 < picture.shape[0] < 2600
    assert has_color(picture, [0x08, 0x30, 0x6B]), "the largest count has the darkest blue"
    assert has_color(picture, [0xF1, 0xF3, 0xF5]), "no examples is grey"


def test_label_distribution_darkens_the_cell_that_holds_more(tmp_path):
    plot_label_distribution(np.array([[400, 0], [0, 25]]), ["cat", "dog"], tmp_path / "a.png")
    dark = np.abs(pixels(tmp_path / "a.png").astype(int) - [0x08, 0x30, 0x6B]).max(axis=-1) <= 2
    rows, columns = np.nonzero(dark)
    # Client 0 is the upper row, class 0 the left column.
    assert np.median(columns) < 1000 / 2
    assert np.median(rows) < dark.shape[0] / 2


def test_label_distribution_wants_a_name_for_each_class(tmp_path):
    with pytest.raises(ValueError, match="must name 3 classes, got 2 names"):
        plot_label_distribution(np.ones((2, 3), dtype=int), ["a", "b"], tmp_path / "a.png")


def test_image_grid_shows_small_images_pixel_for_pixel(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    plot_image_grid(image, np.array([0]), ["noise"], tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    enlarged = image[0].repeat(12, axis=0).repeat(12, axis=1)  # 8 pixels become 96
    windows = np.lib.stride_tricks.sliding_window_view(picture, (96, 96, 3))[:, :, 0]
    starts = np.argwhere((windows[:, :, 0, 0] == enlarged[0, 0]).all(axis=-1))
    assert any((windows[top, left] == enlarged).all() for top, left in starts)


def test_image_grid_has_a_row_for_each_class_and_columns_for_its_images(tmp_path):
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
def test_accuracy(tmp_path, points):
    plot_metric(METRICS["accuracy"], points, tmp_path / "a.png")
    picture = pixels(tmp_path / "a.png")
    assert picture.shape == (620, 1000, 3)
    assert has_color(picture, [0x00, 0x72, 0xB2])


def test_frechet_distances_stand_on_a_logarithmic_scale(tmp_path):
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
def test_less_than_two_rounds_are_no_curve(tmp_path, points):
    with pytest.raises(ValueError, match=f"at least two rounds, got {len(points)}"):
        plot_metric(METRICS["accuracy"], points, tmp_path / "a.png")


def test_curves_of_runs_have_their_colours_and_a_single_point_is_seen(tmp_path):
    for axis in ("round", "bytes"):
        file = io.BytesIO()
        curves = [Curve("first", 0, [(1000, 0.2), (2000, 0.8)]), Curve("second", 2, [(1000, 0.5)])]
        plot_curves(METRICS["accuracy"], curves, axis, file)
        picture = pixels(file)
        assert has_color(picture, [0x00, 0x72, 0xB2])
        assert has_color(picture, [0x00, 0x9E, 0x73])
        assert not has_color(picture, [0xD5, 0x5E, 0x00])


def test_traffic_shows_a_kilobyte_beside_a_gigabyte_to_scale(tmp_path):
    lengths = []
    for size in (10**3, 10**6, 10**9):
        phases = {"setup": {"uplink": size, "downlink": 0}, "train": {"uplink": 10**3, "downlink": 10**9}}
        plot_traffic(phases, tmp_path / "a.png")
        picture = pixels(tmp_path / "a.png").astype(int)
        upper = picture[: picture.shape[0] // 2]
        blue = np.nonzero((np.abs(upper - [0x00, 0x72, 0xB2]).max(axis=-1) <= 2).any(axis=0))[0]
        lengths.append(blue.max() - blue.min())
    assert lengths[0] > 20
    # Logarithmic: a factor of a thousand is the same step everywhere.
    assert lengths[1] - lengths[0] == pytest.approx(lengths[2] - lengths[1], abs=3)


def test_traffic_without_any_bytes_is_drawn(tmp_path):
    plot_traffic({"setup": {"uplink": 0, "downlink": 0}}, tmp_path / "a.png")
    assert pixels(tmp_path / "a.png").min() < 128


def test_traffic_sets_another_method_beside(tmp_path):
    phases = {"setup": {"uplink": 1000, "downlink": 1000}}
    plot_traffic(phases, tmp_path / "a.png")
    plot_traffic(phases, tmp_path / "b.png", beside=("FedAvg, 9 rounds", 10**6))
    alone, both = pixels(tmp_path / "a.png"), pixels(tmp_path / "b.png")
    assert both.shape[0] == alone.shape[0] + 120  # a row of 0.6 inches at 200 pixels an inch
