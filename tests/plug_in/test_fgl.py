"""FGL plugged into another project gives what `fgl run` gives."""

from functools import partial

import pytest
import torch
from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import fixedclipping_mod
from flwr.serverapp.strategy import FedAvg
from torch import nn

from fgl_app.messages.weights import state_to_arrays
from fgl_app.models.assets import DIGIT_NAMES
from fgl_app.plug_in import LabeledImages, PromptData, register_fgl, synthesize_with, train_on_synthetic
from fgl_app.strategies import FGLStrategy
from fgl_app.strategies.exchange import TooFewRepliesError
from tests.app_runs import run
from tests.fake_grid import FakeGrid, app_node
from tests.plug_in.projects import (
    EMBEDDINGS,
    SYNTHESIS,
    cnn,
    digits_app,
    equal,
    fgl,
    private_digits,
    send,
    start,
)


def test_plugged_in_fgl_is_fgl_run_to_the_last_bit(tmp_path):
    run(tmp_path, nodes=3)
    synthesize = synthesize_with("embedded", class_names=DIGIT_NAMES, folder=tmp_path / "set", **SYNTHESIS)
    checks = {"encoder": synthesize.encoder, "embedding_shapes": synthesize.embedding_shapes}
    state = start(fgl(synthesize, **checks), digits_app(), cnn())
    assert equal(state, tmp_path / "run" / "classifier" / "model.safetensors")
    shards = [folder.joinpath("train-00000-of-00001.parquet").read_bytes() for folder in
              (tmp_path / "set", tmp_path / "run" / "synthetic")]  # fmt: skip
    assert shards[0] == shards[1]


def test_clients_reject_another_generator(tiny_generator):
    """By the fingerprint a client detects that its text encoder is not the server's."""
    synthesize = synthesize_with(str(tiny_generator), **SYNTHESIS)
    with pytest.raises(TooFewRepliesError, match=r"generator 'embedded'\) is not the server's"):
        start(fgl(synthesize, encoder=synthesize.encoder), digits_app(), cnn())


def test_private_training_follows_the_set_up_and_a_correction_each_round():
    """The handler of the project trains; with epochs=0 the factories change nothing."""
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
    return MetricRecord({"num-examples": examples, "train-loss": 1.0})


def test_a_set_is_kept_and_another_set_gets_another_folder(tmp_path):
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


def test_each_training_has_another_order_and_the_count_can_be_restored():
    images = LabeledImages(torch.randint(0, 256, (20, 1, 32, 32)).byte(), torch.arange(20) % 10)
    make = partial(train_on_synthetic, cnn, epochs=1, batch_size=4, device="cpu")
    whole, state = make(), cnn().state_dict()
    first, second = whole(state, images), whole(state, images)
    assert not torch.equal(first["0.weight"], second["0.weight"])
    resumed = make()
    resumed.load_state_dict({"done": 1})
    assert torch.equal(resumed(state, images)["0.weight"], second["0.weight"])


def test_images_are_normalized_for_the_model():
    """A model that records its inputs: black and white images, as Normalize(mean, std) gives them."""
    seen = []

    class Recording(nn.Linear):
        def forward(self, images):
            seen.append(images.detach())
            return super().forward(images.mean((2, 3)))

    images = LabeledImages(
        torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 4, 4), torch.tensor([0, 1])
    )
    mean, std = (0.5, 0.4, 0.3), (0.25, 0.2, 0.1)
    train = train_on_synthetic(lambda: Recording(3, 2), epochs=1, augmentation="none", mean=mean, std=std,
                               device="cpu")  # fmt: skip
    train(nn.Linear(3, 2).state_dict(), images)
    black = next(each for each in seen[0] if each.mean() < 0)
    # (0 - 0.5) / 0.25, (0 - 0.4) / 0.2, (0 - 0.3) / 0.1
    assert black[:, 0, 0].tolist() == pytest.approx([-2.0, -2.0, -3.0], abs=1e-5)


def test_the_failure_of_a_clipping_mod_of_the_whole_app_is_reported():
    """It needs weights in every message, and the request for embeddings has none."""
    app = ClientApp(mods=[fixedclipping_mod])
    register_fgl(app, dataset_fn=private_digits, class_names=DIGIT_NAMES, generator="embedded", device="cpu")
    with pytest.raises(TooFewRepliesError, match="fixedclipping_mod"):
        start(fgl(synthesize_with("embedded", **SYNTHESIS)), app, cnn())


@pytest.mark.parametrize(
    ("template", "fields", "texts"),
    [
        ("a {label}", {"captions": "ignored"}, 2),
        ("a {label}, {caption}", {"captions": ["thin", "thick", "thin"]}, 3),
        ("a {label}, {domain}", {"domains": ["a sketch", "a sketch", "a photo"]}, 2),
        ("a {label}, {caption}, {domain}", {"captions": "abc", "domains": "ddd"}, 3),
    ],
)
def test_prompts_use_what_the_template_contains(template, fields, texts):
    data = PromptData(torch.tensor([3, 3, 1]), **fields)
    reply = send(digits_app(dataset_fn=lambda context: data, prompt_template=template))
    record = reply.content["embeddings"]
    assert len(record["labels"].numpy()) == texts
    assert record["counts"].numpy().sum() == 3
    assert reply.content["metrics"]["num-examples"] == 3
    # A site without a name is identified by its node.
    assert reply.content["site"]["name"] == "8"


def test_all_arrays_of_a_state_dict_are_returned():
    """The quickstart of Flower sends ``ArrayRecord(model.state_dict())``, including integer buffers."""
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
