"""ServerApp and ClientApp together, in one process: every method, its files, its summary."""

import json

import datasets
import pytest
from flwr.app import Context, RecordDict

from fgl_app.client_app import app as client_app
from fgl_app.config import ConfigError, config_keys
from fgl_app.server_app import app as server_app
from tests.fake_grid import FakeGrid, app_node
from tests.results.test_trackers import read_scalars

TINY = {
    "dirichlet-alpha": 1.0,
    "images-per-class": 4,
    "num-inference-steps": 2,
    "synthetic-epochs": 2,
    "local-epochs": 1,
    "batch-size": 128,
    "augmentation": "none",
    "device": "cpu",
}


def run(
    tmp_path,
    name="run",
    nodes=3,
    of=None,
    broken=(),
    spoil=None,
    second=None,
    first_node=100,
    sites=(),
    **changes,
):
    """Run the app.

    The second client can be odd: its config changed by ``second``, its reply by ``spoil``, which gets each
    message and reply. Of the clients over which the data are split, ``of``, the first ``nodes`` are there.
    ``sites`` holds the node config of each client that has data of its own.
    """
    values = {key.replace("_", "-"): value for key, value in changes.items()}
    config = config_keys() | TINY | {"output-dir": str(tmp_path), "run-name": name} | values
    grid = FakeGrid(
        {
            first_node - i: app_node(client_app, i, of or nodes, config, **(sites[i] if sites else {}))
            for i in range(nodes)
        }
        | {node: lambda message: 1 / 0 for node in broken}
    )
    if second:
        grid.nodes[first_node - 1] = app_node(client_app, 1, nodes, config | second)
    if spoil:
        honest = grid.nodes[first_node - 1]
        grid.nodes[first_node - 1] = lambda message: spoil(message, honest(message))
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config=config)
    server_app(grid, context)
    return json.loads((tmp_path / name / "summary.json").read_text())


def same(summary):
    """What of a summary must be equal in equal runs."""
    return {key: value for key, value in summary.items() if key not in {"seconds", "versions"}}


def test_one_shot_fgl_leaves_everything_promised(tmp_path):
    summary = run(tmp_path)
    folder = tmp_path / "run"
    assert summary["status"] == "completed"
    assert summary["num_clients"] == 3
    assert summary["rounds"] == 1
    assert summary["num_synthetic_images"] == 40
    assert summary["num_prompts"] == 10
    assert 0 <= summary["accuracy"] <= 1
    assert summary["uplink_bytes"]["total"] == summary["uplink_bytes"]["setup"] > 10 * 2048
    assert set(summary["seconds"]) >= {"total", "uploads", "synthesis", "training on synthetic images"}
    for name in ("label_distribution", "synthetic_images", "traffic"):
        assert (folder / f"{name}.png").stat().st_size > 1000
    assert not (folder / "accuracy.png").exists(), "one round is no curve"
    assert "FedAvg would upload" in (folder / "report.html").read_text()
    assert (folder / "classifier" / "model.safetensors").is_file()
    assert json.loads((folder / "config.json").read_text())["images-per-class"] == 4
    synthetic = datasets.load_dataset(str(folder / "synthetic"), cache_dir=str(tmp_path / "cache"))["train"]
    assert len(synthetic) == 40
    assert synthetic[0]["image"].size == (32, 32)
    events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [event["round"] for event in events if event["event"] == "round"] == [1]
    assert (tmp_path / "latest").resolve() == folder


def test_the_same_seed_gives_the_same_summary_and_another_does_not(tmp_path):
    options = {"num_server_rounds": 2, "server_epochs": 1, "augmentation": "affine"}
    first = run(tmp_path, "a", **options)
    assert same(run(tmp_path, "b", **options)) == same(first)
    assert same(run(tmp_path, "c", seed=1, **options))["loss"] != first["loss"]


def test_instance_prompts_describe_each_image(tmp_path):
    summary = run(tmp_path, prompts="instance", images_per_class=30)
    assert summary["num_prompts"] > 100
    assert summary["uplink_bytes"]["setup"] > 100 * 2048


def test_labels_only_uploads_nothing(tmp_path):
    summary = run(tmp_path, prompts="labels-only", guidance_scale=2.0)
    assert summary["uplink_bytes"]["total"] == 0
    assert summary["num_synthetic_images"] == 40


def test_class_prompts_of_all_classes_are_the_labels_only_prompts(tmp_path):
    """When all classes are held, only the bytes differ between class prompts and the control."""
    assert run(tmp_path, "a")["loss"] == run(tmp_path, "b", prompts="labels-only")["loss"]


def test_any_generator_folder_will_do(tmp_path, tiny_generator):
    summary = run(tmp_path, generator=str(tiny_generator), embedding_dtype="float32")
    assert summary["num_synthetic_images"] == 40
    cache = str(tmp_path / "cache")
    images = datasets.load_dataset(str(tmp_path / "run" / "synthetic"), cache_dir=cache)["train"]["image"]
    # The pipeline's own images: colour, 16 x 16 pixels, no two alike.
    assert {(image.mode, image.size) for image in images} == {("RGB", (16, 16))}
    assert len({image.tobytes() for image in images}) == 40


@pytest.mark.parametrize("inner", ["fedavg", "fedprox", "fedadam", "fedyogi"])
def test_inner_strategies_run_alone(tmp_path, inner):
    summary = run(tmp_path, method="classifier", inner_strategy=inner, num_server_rounds=2)
    assert summary["strategy"] == inner
    assert summary["rounds"] == 2
    # About 0.16 million float32 weights, three clients, two rounds, each way.
    assert summary["uplink_bytes"]["train"] > 2 * 3 * 150_000 * 4
    # What the report says that FedAvg would send is what FedAvg sends, but for its config and metrics.
    calculated = 2 * 3 * summary["model_bytes"]
    for way in ("uplink", "downlink"):
        assert calculated <= summary[f"{way}_bytes"]["train"] < 1.002 * calculated
    assert (tmp_path / "run" / "accuracy.png").is_file()
    assert (tmp_path / "run" / "label_distribution.png").is_file()


def test_trackers_write_into_the_run(tmp_path):
    pytest.importorskip("tensorboard")
    summary = run(tmp_path, method="classifier", num_server_rounds=2, trackers="tensorboard")
    scalars = read_scalars(tmp_path / "run" / "tensorboard")
    assert scalars["accuracy"][2] == summary["accuracy"]
    assert scalars["uplink bytes/train"][2] == summary["uplink_bytes"]["train"]
    assert set(scalars["seconds/clients' rounds"]) == {1, 2}


def test_fedprox_with_mu_zero_is_fedavg(tmp_path):
    options = {"method": "classifier", "num_server_rounds": 2}
    average = run(tmp_path, "a", inner_strategy="fedavg", **options)
    zero = run(tmp_path, "b", inner_strategy="fedprox", proximal_mu=0.0, **options)
    strong = run(tmp_path, "c", inner_strategy="fedprox", proximal_mu=1.0, **options)
    assert zero["loss"] == average["loss"]
    assert strong["loss"] != average["loss"]


def test_training_the_baselines_learns(tmp_path):
    options = {"method": "classifier", "partitioning": "iid", "local_epochs": 2, "batch_size": 64}
    assert run(tmp_path, "a", inner_strategy="centralized", num_server_rounds=3, **options)["accuracy"] > 0.9
    assert run(tmp_path, "b", inner_strategy="fedavg", num_server_rounds=3, **options)["accuracy"] > 0.85


def test_local_only_reports_every_client(tmp_path):
    summary = run(tmp_path, method="classifier", inner_strategy="local-only", num_server_rounds=2)
    assert len(summary["client_accuracy"]) == 3
    assert summary["accuracy"] == pytest.approx(sum(summary["client_accuracy"].values()) / 3)


def test_a_client_that_raises_is_left_out(tmp_path):
    summary = run(tmp_path, broken=[7])
    assert summary["status"] == "completed"
    assert summary["failures"] == [
        {"node": "7", "phase": "set-up", "reason": "ZeroDivisionError: division by zero", "site": ""}
    ]


@pytest.mark.parametrize("method", ["fgl", "classifier"])
def test_a_run_with_too_few_good_clients_fails_and_says_why(tmp_path, method):
    with pytest.raises(RuntimeError, match="good replies, at least 4 needed"):
        run(tmp_path, method=method, min_nodes=4, broken=[7])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "node 7: ZeroDivisionError" in summary["error"]
    assert len(summary["failures"]) == 1
    assert "failed" in (tmp_path / "run" / "report.html").read_text().lower()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"num_clients": 500}, "allow at most 400 clients"),
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


def test_a_finished_run_is_never_overwritten(tmp_path):
    run(tmp_path, prompts="labels-only")
    with pytest.raises(FileExistsError, match="must be new"):
        run(tmp_path, prompts="labels-only")
