"""FGL from the request to the report, on digits."""

import json

import datasets
import pytest

from fgl_app.config import ConfigError
from tests.app_runs import run, same

ONE_SHOT = {"guidance_scale": 2.0}


@pytest.fixture(scope="module")
def one_shot(completed):
    """Folder and summary of a one-shot run of two clients."""
    folder = completed(**ONE_SHOT)
    return folder, json.loads((folder / "summary.json").read_text())


def load_synthetic_set(folder, tmp_path):
    return datasets.load_dataset(str(folder / "synthetic"), cache_dir=str(tmp_path / "cache"))["train"]


def test_one_shot_fgl_writes_all_results(one_shot, tmp_path):
    folder, summary = one_shot
    assert summary["status"] == "completed"
    assert summary["num_clients"] == 2
    assert summary["rounds"] == 1
    assert summary["num_synthetic_images"] == 40
    assert summary["num_prompts"] == 10
    assert 0 <= summary["accuracy"] <= 1
    assert summary["uplink_bytes"]["total"] == summary["uplink_bytes"]["setup"] > 10 * 2048
    assert set(summary["seconds"]) >= {"total", "uploads", "synthesis", "training on synthetic images"}
    for name in ("label_distribution", "synthetic_images", "traffic"):
        assert (folder / f"{name}.png").stat().st_size > 1000
    assert not (folder / "accuracy.png").exists(), "one round has no curve"
    assert "FedAvg would upload" in (folder / "report.html").read_text()
    assert (folder / "classifier" / "model.safetensors").is_file()
    assert json.loads((folder / "config.json").read_text())["images-per-class"] == 4
    synthetic = load_synthetic_set(folder, tmp_path)
    assert len(synthetic) == 40
    assert synthetic[0]["image"].size == (32, 32)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [event["round"] for event in events if event["event"] == "round"] == [1]
    assert (folder.parent / "latest").resolve() == folder


def test_labels_only_prompts_give_the_same_result_without_an_upload(one_shot, tmp_path):
    """The clients hold all classes, so their class prompts are the prompts of the server."""
    summary = run(tmp_path, prompts="labels-only", **ONE_SHOT)
    assert summary["uplink_bytes"]["total"] == 0
    assert summary["num_synthetic_images"] == 40
    assert summary["loss"] == one_shot[1]["loss"]


def test_a_finished_run_is_not_overwritten(one_shot):
    with pytest.raises(FileExistsError, match="must be new"):
        run(one_shot[0].parent, **ONE_SHOT)


def test_only_another_seed_changes_the_summary(tmp_path):
    options = {"num_server_rounds": 2, "server_epochs": 1, "augmentation": "affine", "broken": [7]}
    first = run(tmp_path, "a", **options)
    assert same(run(tmp_path, "b", **options)) == same(first)
    assert same(run(tmp_path, "c", seed=1, **options))["loss"] != first["loss"]
    # A client that raises is left out.
    assert first["status"] == "completed"
    error = {"node": "7", "reason": "ZeroDivisionError: division by zero", "site": ""}
    assert first["failures"] == [{**error, "phase": phase} for phase in ("set-up", "training round 1")]


def test_instance_prompts_describe_each_image(tmp_path):
    summary = run(tmp_path, prompts="instance", images_per_class=15)
    assert summary["num_prompts"] > 100
    assert summary["uplink_bytes"]["setup"] > 100 * 2048


def test_the_generator_can_be_any_folder(tmp_path, tiny_generator):
    summary = run(tmp_path, generator=str(tiny_generator), embedding_dtype="float32")
    assert summary["num_synthetic_images"] == 40
    images = load_synthetic_set(tmp_path / "run", tmp_path)["image"]
    # Images of the pipeline: colour, 16 x 16 pixels, all different.
    assert {(image.mode, image.size) for image in images} == {("RGB", (16, 16))}
    assert len({image.tobytes() for image in images}) == 40


@pytest.mark.parametrize("method", ["fgl", "classifier"])
def test_a_run_with_too_few_good_clients_fails_with_the_reason(tmp_path, method):
    with pytest.raises(RuntimeError, match="good replies, at least 3 needed"):
        run(tmp_path, method=method, min_nodes=3, broken=[7])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "node 7: ZeroDivisionError" in summary["error"]
    assert len(summary["failures"]) == 1
    assert "failed" in (tmp_path / "run" / "report.html").read_text().lower()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_clients": 500}, "allow at most 40 clients"),
        ({"dataset": "letters"}, "dataset must be 'digits', a folder or a hub id"),
        ({"generator": "nowhere"}, "generator must be 'embedded'"),
        ({"vocabulary": "WORDS"}, "'embedded' draws only handwritten digits .* not 'naught'"),
        ({"images_per_class": "many"}, "config key 'images-per-class' must be a valid integer"),
    ],
)
def test_a_bad_config_stops_before_any_message(tmp_path, changes, sentence):
    words = tmp_path / "words.toml"
    words.write_text("[labels]\nzero = 'naught'\n")
    changes = {key: str(words) if value == "WORDS" else value for key, value in changes.items()}
    with pytest.raises(ConfigError, match=sentence):
        run(tmp_path, **changes)
    assert not (tmp_path / "run").exists()
