"""A Flower project with FGL or FedDDPM plugged in, on digits or colours."""

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg
from safetensors.torch import load_file

from fgl_app.algorithms.types import TextEmbeddings
from fgl_app.config import config_keys, parse_config
from fgl_app.data.partitions import load_client_data
from fgl_app.messages.weights import arrays_to_state, state_to_arrays
from fgl_app.models.assets import DIGIT_NAMES
from fgl_app.models.classifiers import build_classifier
from fgl_app.models.unets import build_unet
from fgl_app.plug_in import correct_with, register_fedddpm, register_fgl, sample_with, train_on_synthetic
from fgl_app.strategies import FedDDPMStrategy, FGLStrategy
from tests.app_runs import TINY
from tests.fake_grid import FakeGrid, app_node

SYNTHESIS = {
    "image_size": 32,
    "channels": 1,
    "images_per_class": 4,
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "batch_size": 128,
    "device": "cpu",
}
TRAINING = {"learning_rate": 0.05, "schedule": "one-cycle", "augmentation": "none", "device": "cpu"}
EMBEDDINGS = TextEmbeddings(
    {"prompt_embeds": torch.ones(2, 16, 64)}, torch.tensor([0, 1]), torch.tensor([5, 5])
)
UNET = {"prediction_type": "v_prediction", "device": "cpu"}
COLOURS = {}
"""Settings of a FedDDPM run on colours, from the fixture of that name."""


def cnn():
    return build_classifier("cnn", num_classes=10, in_channels=1, image_size=32, seed=0)


def start(strategy, clients, model, rounds=1, **options):
    """Run a strategy with three clients of an app and return its last weights."""
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


def small_unet():
    return build_unet("small", channels=3, side=8, num_classes=3, seed=0)


def colour_app(**changes):
    app = ClientApp()
    values = {key.replace("_", "-"): value for key, value in COLOURS.items()}
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
        "sample_fn": sample_with(small_unet, num_inference_steps=2, **UNET),
        "correct_fn": correct_with(small_unet, epochs=1, batch_size=10, **UNET),
        "auxiliary_size": 30,
        "num_classes": 3,
        "setup_timeout": 5.0,
    }
    return FedDDPMStrategy(inner, **(options | changes))


def send(app, content=None, kind="query.embed", **node_config):
    context = Context(7, 8, node_config, RecordDict(), {})
    return app(Message(content or RecordDict(), 8, kind), context)
