"""The commands behind docs/results.md still work, at tiny size."""

import json
from datetime import UTC, datetime

from datasets import load_dataset
from PIL import Image

from benchmarks.digits import rows
from benchmarks.style_correlation import correlations
from benchmarks.synthesis import engine, published_loop
from benchmarks.tables import changed_keys
from fgl_app.config import parse_config
from fgl_app.launch.config_sources import resolve_config
from fgl_app.synthesis.generator import generator_settings, load_generator


def test_the_text_carries_stroke_width_and_slant():
    config = parse_config({"prompts": "instance", "guidance-scale": 1.0})
    found = correlations(config, 200)
    # 1000 digits give 0.90 and 0.94; the standard error of r at 200 digits is below 0.02.
    assert found["width"] > 0.8
    assert found["slant"] > 0.8


def test_the_loop_and_the_engine_make_as_many_images_of_one_size(tiny_generator, tmp_path):
    values = {"generator": str(tiny_generator), "num-inference-steps": 1, "guidance-scale": 2.0}
    config = parse_config({**values, "images-per-class": 13, "image-size": 16, "device": "cpu"})
    pipeline = load_generator(generator_settings(config))
    assert published_loop(config, pipeline, 2, tmp_path / "loop") == 26
    assert engine(config, pipeline, 2, tmp_path / "engine") == 26
    pictures = sorted((tmp_path / "loop").rglob("*.png"))
    images = load_dataset(str(tmp_path / "engine"), cache_dir=str(tmp_path / "cache"))["train"]["image"]
    assert len(pictures) == len(images) == 26
    assert {Image.open(file).size for file in pictures} == {image.size for image in images} == {(16, 16)}


def test_a_row_of_the_table_is_mean_and_spread_over_seeds(tmp_path):
    folders = []
    for seed, accuracy in enumerate((0.5, 0.7)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        events = [
            {
                "event": "round",
                "round": n,
                "accuracy": accuracy + n / 100,
                "uplink_bytes": 100 + n,
                "downlink_bytes": 1000 * n,
                "elapsed": 4.0 * n + seed,
            }
            for n in range(1, 5)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        folders.append(folder)
    # Standard deviation of 0.5 and 0.7 is 0.1 * sqrt(2); bytes and seconds are those up to the round.
    assert rows("fgl-4-rounds", folders) == [
        "| fgl-4-rounds | 1 | 61.0 ± 14.1 (2) | 101 | 1,000 | 4 |",
        "| fgl-4-rounds | 2 | 62.0 ± 14.1 (2) | 102 | 2,000 | 8 |",
    ]


def test_a_run_with_other_values_is_noticed(tmp_path):
    arguments = ["method=diffusion", "dirichlet-alpha=0.5"]
    places = [f"output-dir={tmp_path}", "run-name=it"]
    config = resolve_config((), [*arguments, *places], None, tmp_path, datetime.now(UTC))
    (tmp_path / "it").mkdir()
    # A key that is gone, or new since then, says nothing.
    then = config.to_run_config() | {"gone": 1}
    (tmp_path / "it" / "config.json").write_text(json.dumps(then))
    assert changed_keys(tmp_path / "it", arguments) == []
    assert changed_keys(tmp_path / "it", [*arguments, "sampling-steps=7"]) == ["sampling-steps"]
