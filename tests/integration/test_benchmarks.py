"""The commands behind docs/results.md still work, at tiny size."""

import json
from datetime import UTC, datetime

from benchmarks.digits import rows
from benchmarks.style_correlation import correlations
from benchmarks.tables import changed_keys
from fgl_app.config import parse_config
from fgl_app.launch_plan import resolve_config


def test_the_text_carries_stroke_width_and_slant():
    config = parse_config({"prompts": "instance", "guidance-scale": 1.0})
    found = correlations(config, 200)
    # 1000 digits give 0.90 and 0.94; the standard error of r at 200 digits is below 0.02.
    assert found["width"] > 0.8
    assert found["slant"] > 0.8


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
