"""The factories and handlers for other projects: what `fgl run` does, from plain values."""

import subprocess
import sys
from functools import partial

import pytest
import torch
from flwr.app import ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, fixedclipping_mod
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load_file
from torch import nn

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.config import config_keys, parse_config
from fgl_app.data.partitions import load_client_data
from fgl_app.messages.weights import arrays_to_state, state_to_arrays
from fgl_app.models.assets import DIGIT_NAMES
from fgl_app.models.classifiers import build_classifier
from fgl_app.models.unets import build_unet
from fgl_app.plug_in import (
    LabeledImages,
    LabeledLatents,
    PromptData,
    correct_with,
    register_fedddpm,
    register_fgl,
    sample_with,
    synthesize_with,
    train_on_synthetic,
)
from fgl_app.strategies import CheckpointedStrategy, FedDDPMStrategy, FGLStrategy, NoExchangeStrategy
from fgl_app.strategies.exchange import TooFewRepliesError
from tests.fake_grid import FakeGrid, app_node
from tests.integration import test_fedddpm_apps
from tests.integration.test_apps import TINY, run
from tests.integration.test_fedddpm_apps import colours  # noqa: F401 - a fixture for the second half

SYNTHESIS = {"image_size": 32, "channels": 1, "images_per_class": 4, "steps": 2, "guidance": 1.0}
SYNTHESIS |= {"batch_size": 128, "device": "cpu"}
TRAINING = {"learning_rate": 0.05, "schedule": "one-cycle", "augmentation": "none", "device": "cpu"}
EMBEDDINGS = TextEmbeddings(
    {"prompt_embeds": torch.ones(2, 16, 64)}, torch.tensor([0, 1]), torch.tensor([5, 5])
)


def cnn():
    return build_classifier("cnn", num_classes=10, in_channels=1, image_size=32, seed=0)


def start(strategy, clients, model, rounds=1, **options):
    """Run a strategy on a ClientApp's clients and return its last weights."""
    grid = FakeGrid({100 - i: app_node(clients, i, 3, {}) for i in range(3)})
    result = strategy.start(grid, state_to_arrays(model.state_dict()), num_rounds=rounds, **options)
    return arrays_to_state(result.arrays)


def equal(state, file):
    expected = {name: each for name, each in load_file(file).items() if each.is_floating_point()}
    return state.keys() == expected.keys() and all(torch.equal(state[n], expected[n]) for n in expected)


def private_digits(context):
    config = parse_config(config_keys() | TINY)
    return load_client_data(config, context.node_config["partition-id"], 3)[0]


def digits_app(**changes):
    app = ClientApp()
    options = {"dataset_fn": private_digits, "class_names": DIGIT_NAMES, "generator": "embedded"}
    register_fgl(
        app, **(options | {"prompt_template": "a handwritten digit {label}", "device": "cpu"} | changes)
    )
    return app


def fgl(synthesize, inner=None, epochs=2, **options):
    return FGLStrategy(
        inner or FedAvg(),
        synthesize_fn=synthesize,
        train_fn=train_on_synthetic(cnn, epochs=epochs, batch_size=128, **TRAINING),
        num_classes=10,
        setup_timeout=5.0,
        **options,
    )


def test_plugged_in_fgl_is_fgl_run_to_the_last_bit(tmp_path):
    run(tmp_path)
    synthesize = synthesize_with("embedded", class_names=DIGIT_NAMES, folder=tmp_path / "set", **SYNTHESIS)
    checks = {"encoder": synthesize.encoder, "embedding_shapes": synthesize.embedding_shapes}
    state = start(fgl(synthesize, **checks), digits_app(), cnn())
    assert equal(state, tmp_path / "run" / "classifier" / "model.safetensors")
    shards = [folder.joinpath("train-00000-of-00001.parquet").read_bytes() for folder in
              (tmp_path / "set", tmp_path / "run" / "synthetic")]  # fmt: skip
    assert shards[0] == shards[1]


def test_a_generator_of_another_kind_is_refused_by_the_clients(tiny_generator):
    """The fingerprint tells a client that it would encode for another generator than the server's."""
    synthesize = synthesize_with(str(tiny_generator), **SYNTHESIS)
    with pytest.raises(TooFewRepliesError, match=r"generator 'embedded'\) is not the server's"):
        start(fgl(synthesize, encoder=synthesize.encoder), digits_app(), cnn())


def test_private_training_follows_the_set_up_and_a_correction_each_round():
    """The user's own train stays as it is; with epochs=0 the factories change nothing."""
    app = digits_app()

    @app.train()
    def train(message, context):
        arrays = {name: array.numpy() + 1 for name, array in message.content["arrays"].items()}
        content = {"arrays": state_to_arrays({n: torch.from_numpy(a) for n, a in arrays.items()})}
        return Message(RecordDict(content | {"metrics": metrics(5)}), reply_to=message)

    calls = []

    def correct(state, images):
        calls.append(len(images))
        return train_on_synthetic(cnn, epochs=0, device="cpu")(state, images)

    inner = FedAvg(min_train_nodes=3, fraction_evaluate=0.0)
    strategy = fgl(synthesize_with("embedded", **SYNTHESIS), inner, epochs=0, correct_fn=correct)
    state = start(strategy, app, cnn(), rounds=3)
    expected = {n: t + 2 for n, t in cnn().state_dict().items() if t.is_floating_point()}
    assert all(torch.allclose(state[name], expected[name], atol=1e-5) for name in expected)
    assert calls == [40, 40]


def metrics(examples):
    from flwr.app import MetricRecord

    return MetricRecord({"num-examples": examples, "train-loss": 1.0})


def test_an_interrupted_synthesis_goes_on_and_another_set_has_another_folder(tmp_path):
    make = partial(synthesize_with, "embedded", **SYNTHESIS)
    images = make(folder=tmp_path / "set")(EMBEDDINGS)
    shard = tmp_path / "set" / "train-00000-of-00001.parquet"
    before = shard.stat().st_mtime_ns
    again = make(folder=tmp_path / "set")(EMBEDDINGS)
    assert torch.equal(images.images, again.images)
    assert shard.stat().st_mtime_ns == before
    other = make(folder=tmp_path / "set", seed=1)(EMBEDDINGS)
    assert not torch.equal(images.images, other.images)
    assert (tmp_path / "set-2" / shard.name).is_file()
    in_memory = make()(EMBEDDINGS)
    assert torch.equal(in_memory.images, images.images)
    assert in_memory.images.shape == (8, 1, 32, 32)


def test_each_training_has_its_own_order_and_the_count_survives_a_restart():
    images = LabeledImages(torch.randint(0, 256, (20, 1, 32, 32)).byte(), torch.arange(20) % 10)
    make = partial(train_on_synthetic, cnn, epochs=1, batch_size=4, device="cpu")
    whole, state = make(), cnn().state_dict()
    first, second = whole(state, images), whole(state, images)
    assert not torch.equal(first["0.weight"], second["0.weight"])
    resumed = make()
    resumed.load_state_dict({"done": 1})
    assert torch.equal(resumed(state, images)["0.weight"], second["0.weight"])


def test_pixels_come_with_the_mean_and_deviation_that_the_model_is_used_to():
    """An identity model that remembers what it saw: black and white, as Normalize(mean, std) has them."""
    seen = []

    class Remembering(nn.Linear):
        def forward(self, images):
            seen.append(images.detach())
            return super().forward(images.mean((2, 3)))

    images = LabeledImages(
        torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4), torch.tensor([0, 1])
    )
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    train = train_on_synthetic(lambda: Remembering(3, 2), epochs=1, augmentation="none", mean=mean, std=std,
                               device="cpu")  # fmt: skip
    train(nn.Linear(3, 2).state_dict(), images)
    black = next(each for each in seen[0] if each.mean() < 0)
    # (0 - 0.5) / 0.25, (0 - 0.4) / 0.2, (0 - 0.3) / 0.1
    assert black[:, 0, 0].tolist() == pytest.approx([-2.0, -2.0, -3.0], abs=1e-5)


UNET = {"prediction_type": "v_prediction", "device": "cpu"}


def small_unet():
    return build_unet("small", channels=3, side=8, num_classes=3, seed=0)


def colour_app(**changes):
    app = ClientApp()
    values = {key.replace("_", "-"): value for key, value in test_fedddpm_apps.TINY.items()}
    config = parse_config(config_keys() | TINY | values)
    options = {
        "dataset_fn": lambda context: load_client_data(config, context.node_config["partition-id"], 3)[0],
        "unet_fn": small_unet,
        "epochs": 1,
        "min_steps": 2,
        "batch_size": 10,
    }
    register_fedddpm(app, **(options | UNET | changes))
    return app


def fedddpm(inner, **changes):
    options = {
        "sample_fn": sample_with(small_unet, steps=2, **UNET),
        "correct_fn": correct_with(small_unet, epochs=1, batch_size=10, **UNET),
        "auxiliary_size": 30,
        "num_classes": 3,
        "setup_timeout": 5.0,
    }
    return FedDDPMStrategy(inner, **(options | changes))


def test_plugged_in_fedddpm_is_fgl_run_to_the_last_bit(tmp_path):
    """Without rounds on private data, since those are the project's own: set-up and two corrections."""
    settings = {"inner_strategy": "auxiliary-only", "num_server_rounds": 3, "round_decay": False}
    test_fedddpm_apps.run(tmp_path, method="fedddpm", **settings)
    state = start(fedddpm(NoExchangeStrategy()), colour_app(), small_unet(), rounds=3)
    assert equal(state, tmp_path / "run" / "diffusion" / "unet" / "diffusion_pytorch_model.safetensors")


def test_corrections_go_on_after_a_restart_as_if_nothing_had_been(tmp_path):
    whole = start(fedddpm(NoExchangeStrategy()), colour_app(), small_unet(), rounds=3)

    def checkpointed():
        correct = correct_with(small_unet, epochs=1, batch_size=10, **UNET)
        strategy = fedddpm(NoExchangeStrategy(), correct_fn=correct, sample_fn=kept)
        return CheckpointedStrategy(strategy, tmp_path / "checkpoint", parts={"correction": correct})

    sample, samples = sample_with(small_unet, steps=2, **UNET), []

    def kept(clients):
        samples.append(samples[0] if samples else sample(clients))
        return samples[0]

    start(checkpointed(), colour_app(), small_unet(), rounds=2)
    again = checkpointed()
    assert again.restore()
    rest = start(again, colour_app(), small_unet(), rounds=3)
    assert all(torch.equal(rest[name], whole[name]) for name in whole)


def test_a_mod_of_the_upload_alone_is_applied_to_it():
    """Local privacy: clipped to nothing and without noise, the upload is the model that was sent."""
    seen = []

    def sample(clients):
        seen.extend(client.state for client in clients)

    clipped = LocalDpMod(clipping_norm=1e-12, sensitivity=0.0, epsilon=1.0, delta=0.1)
    strategy = fedddpm(NoExchangeStrategy(), sample_fn=sample)
    start(strategy, colour_app(mods=[clipped]), small_unet())
    initial = small_unet().state_dict()
    assert len(seen) == 3
    assert all(torch.allclose(state[name], initial[name], atol=1e-9) for state in seen for name in state)


def test_a_clipping_mod_of_the_whole_app_is_told():
    """It wants weights in every message, and the request for embeddings has none."""
    app = ClientApp(mods=[fixedclipping_mod])
    register_fgl(app, dataset_fn=private_digits, class_names=DIGIT_NAMES, generator="embedded", device="cpu")
    with pytest.raises(TooFewRepliesError, match="fixedclipping_mod"):
        start(fgl(synthesize_with("embedded", **SYNTHESIS)), app, cnn())


def ask(app, content=None, kind="query.embed", **node_config):
    context = Context(7, 8, node_config, RecordDict(), {})
    return app(Message(content or RecordDict(), 8, kind), context)


@pytest.mark.parametrize(
    ("template", "fields", "texts"),
    [
        ("a {label}", {"captions": "ignored"}, 2),
        ("a {label}, {caption}", {"captions": ["thin", "thick", "thin"]}, 3),
        ("a {label}, {domain}", {"domains": ["a sketch", "a sketch", "a photo"]}, 2),
        ("a {label}, {caption}, {domain}", {"captions": "abc", "domains": "ddd"}, 3),
    ],
)
def test_prompts_are_written_from_what_the_template_asks_for(template, fields, texts):
    data = PromptData(torch.tensor([3, 3, 1]), **fields)
    reply = ask(digits_app(dataset_fn=lambda context: data, prompt_template=template))
    record = reply.content["embeddings"]
    assert len(record["labels"].numpy()) == texts
    assert record["counts"].numpy().sum() == 3
    assert reply.content["metrics"]["num-examples"] == 3
    # A site that has no name of its own goes by its node.
    assert reply.content["site"]["name"] == "8"


@pytest.mark.parametrize(
    ("data", "template", "sentence"),
    [
        (
            PromptData(torch.tensor([])),
            "{label}",
            "int64 tensor of shape .* got torch.float32",
        ),
        (PromptData([1, 2]), "{label}", "int64 tensor of shape .* got list"),
        (PromptData(torch.zeros(0, dtype=torch.int64)), "{label}", "dataset_fn returned no example"),
        (PromptData(torch.tensor([1, 10])), "{label}", "must be between 0 and 9, got 1 to 10"),
        (
            PromptData(torch.tensor([1])),
            "{label} {caption}",
            "asks for captions, but dataset_fn",
        ),
        (PromptData(torch.tensor([1]), domains=["a", "b"]), "{label} {domain}", "2 domains for 1 labels"),
    ],
)
def test_data_that_cannot_be_described_are_met_with_one_sentence(data, template, sentence):
    with pytest.raises(ValueError, match=sentence):
        ask(digits_app(dataset_fn=lambda context: data, prompt_template=template))


def test_images_that_do_not_fit_the_unet_are_met_with_one_sentence():
    content = RecordDict({"arrays": state_to_arrays(small_unet().state_dict())})
    wrong = LabeledImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 8, 8\) for this U-Net, got \(2, 1, 8, 8\)"):
        ask(colour_app(dataset_fn=lambda context: wrong), content, "train.local_diffusion")
    with pytest.raises(TypeError, match="must return a UNet2DModel of diffusers, got Linear"):
        ask(colour_app(unet_fn=lambda: nn.Linear(1, 1)), content, "train.local_diffusion")
    with pytest.raises(TypeError, match="must return a UNet2DModel of diffusers, got Linear"):
        sample_with(lambda: nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (LabeledImages(torch.rand(2, 3, 8, 8), torch.tensor([0, 1])), "must be uint8, got torch.float32"),
        (
            LabeledLatents(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1])),
            "must be finite floats, got torch.uint8",
        ),
        (
            LabeledLatents(torch.full((2, 3, 8, 8), torch.nan), torch.tensor([0, 1])),
            "must be finite floats, got torch.float32",
        ),
    ],
)
def test_examples_of_another_kind_are_met_with_one_sentence(data, sentence):
    content = RecordDict({"arrays": state_to_arrays(small_unet().state_dict())})
    with pytest.raises(ValueError, match=sentence):
        ask(colour_app(dataset_fn=lambda context: data), content, "train.local_diffusion")


def test_classes_that_the_strategy_does_not_know_of_are_told_before_anybody_trains():
    with pytest.raises(ValueError, match="num_classes must be that of the sampled U-Net, 3, got 0"):
        fedddpm(NoExchangeStrategy(), num_classes=0)
    sample = sample_with(small_unet, steps=2, **UNET)
    strategy = fedddpm(NoExchangeStrategy(), num_classes=0, sample_fn=sample.__call__)
    with pytest.raises(ValueError, match="num_class_embeds, 3, got 0"):
        start(strategy, colour_app(), small_unet())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: synthesize_with("nowhere", **SYNTHESIS),
            "generator must be 'embedded', a folder or",
        ),
        (
            lambda: synthesize_with("embedded", **SYNTHESIS | {"steps": 0}),
            "steps must be .* 1, got 0",
        ),
        (lambda: synthesize_with("embedded", **SYNTHESIS | {"channels": 2}), "channels must be one of 1, 3"),
        (lambda: synthesize_with("embedded", **SYNTHESIS | {"device": "cuda:9"}), "device 'cuda:9' is not"),
        (
            lambda: synthesize_with("embedded", class_names="a", **SYNTHESIS)(EMBEDDINGS),
            "class_names has 1 names, but class 1 came",
        ),
        (lambda: train_on_synthetic(cnn, epochs=-1), "epochs must be a whole number of at least 0, got -1"),
        (lambda: train_on_synthetic(cnn, epochs=1, std=0.0), "std must be a number above 0, got 0.0"),
        (lambda: train_on_synthetic(cnn, epochs=1, schedule="step"), "schedule must be one of 'constant'"),
        (lambda: sample_with(small_unet, sampler="euler"), "sampler must be one of 'ddim'"),
        (lambda: sample_with(small_unet, steps=1001), "steps must be at most 1000, got 1001"),
        (lambda: correct_with(small_unet, prediction_type="x"), "prediction_type must be one of 'epsilon'"),
        (lambda: correct_with(small_unet, learning_rate=0), "learning_rate must be a number above 0, got 0"),
        (lambda: colour_app(batch_size=0), "batch_size must be a whole number of at least 1, got 0"),
        (lambda: train_on_synthetic(cnn, epochs=1.5), "epochs must be a whole number of at least 0, got 1.5"),
        (lambda: correct_with(small_unet, ema_decay=1.5), "ema_decay must be a number from 0 to below 1"),
        (lambda: digits_app(prompt_template="a digit"), "prompt-template must contain {label}"),
        (lambda: digits_app(class_names=("zero", "1")), "embedded' draws handwritten digits .* and no '1'"),
        (lambda: digits_app(class_names=()), "class_names must name at least one class"),
    ],
)
def test_bad_arguments_are_met_with_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_app_takes_each_handler_once_and_only_beside_handlers():
    with pytest.raises(ValueError, match="'embed' is already registered"):
        register_fgl(digits_app(), dataset_fn=private_digits, class_names=DIGIT_NAMES, generator="embedded")
    legacy = ClientApp(client_fn=lambda context: None)
    with pytest.raises(ValueError, match="was made with a client_fn and takes no other handler"):
        register_fgl(legacy, dataset_fn=private_digits, class_names=DIGIT_NAMES, generator="embedded")


def test_without_the_extra_the_factories_say_what_to_install(monkeypatch):
    monkeypatch.setattr("fgl_app.plug_in.checks.find_spec", lambda name: None)
    for make in (
        lambda: synthesize_with("embedded", **SYNTHESIS),
        lambda: sample_with(small_unet),
        lambda: correct_with(small_unet),
        digits_app,
        colour_app,
    ):
        with pytest.raises(ImportError, match=r"pip install 'fgl-app\[app\]'"):
            make()
    assert train_on_synthetic(cnn, epochs=1, device="cpu")


HEAVY = [
    "diffusers",
    "transformers",
    "datasets",
    "accelerate",
    "pyarrow",
    "PIL",
    "pydantic",
    "scipy",
    "matplotlib",
    "mlxtend",
    "ray",
]
LIGHT = f"""
import sys
import torch, flwr.serverapp, flwr.clientapp
before = set(sys.modules)
import fgl_app.strategies, fgl_app.plug_in
new = {{name.split(".")[0] for name in set(sys.modules) - before}}
assert new == {{"fgl_app", "safetensors"}}, new
heavy = set({HEAVY!r}) & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_the_library_costs_flower_torch_and_nothing_else():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_arrays_of_flowers_own_state_dict_come_back_whole():
    """Flower's quickstart sends ``ArrayRecord(model.state_dict())``, integer buffers and all."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(10))
    model(torch.zeros(2, 1, 32, 32))
    grid = FakeGrid({i: app_node(digits_app(), i, 3, {}) for i in range(3)})
    strategy = FGLStrategy(
        FedAvg(),
        synthesize_fn=synthesize_with("embedded", **SYNTHESIS),
        train_fn=train_on_synthetic(lambda: model, epochs=1, device="cpu"),
        num_classes=10,
    )
    result = strategy.start(grid, ArrayRecord(model.state_dict()), num_rounds=1)
    assert list(result.arrays) == list(model.state_dict())
    model.load_state_dict(result.arrays.to_torch_state_dict())
