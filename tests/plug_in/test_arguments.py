"""Invalid arguments and data of factories and handlers are rejected with one message."""

import subprocess
import sys

import pytest
import torch
from flwr.app import RecordDict
from flwr.clientapp import ClientApp
from torch import nn

from fgl_app.messages.weights import state_to_arrays
from fgl_app.models.assets import DIGIT_NAMES
from fgl_app.plug_in import (
    LabeledImages,
    LabeledLatents,
    PromptData,
    correct_with,
    register_fgl,
    sample_with,
    synthesize_with,
    train_on_synthetic,
)
from tests.plug_in.projects import (
    EMBEDDINGS,
    SYNTHESIS,
    cnn,
    colour_app,
    digits_app,
    private_digits,
    send,
    small_unet,
)


@pytest.mark.parametrize(
    ("data", "template", "message"),
    [
        (PromptData(torch.tensor([])), "{label}", "int64 tensor of shape .* got torch.float32"),
        (PromptData([1, 2]), "{label}", "int64 tensor of shape .* got list"),
        (PromptData(torch.zeros(0, dtype=torch.int64)), "{label}", "dataset_fn returned no examples"),
        (PromptData(torch.tensor([1, 10])), "{label}", "must be between 0 and 9, got 1 to 10"),
        (PromptData(torch.tensor([1])), "{label} {caption}", "uses captions, but dataset_fn"),
        (PromptData(torch.tensor([1]), domains=["a", "b"]), "{label} {domain}", "2 domains for 1 labels"),
    ],
)
def test_invalid_descriptions_are_rejected(data, template, message):
    with pytest.raises(ValueError, match=message):
        send(digits_app(dataset_fn=lambda context: data, prompt_template=template))


def test_images_that_do_not_fit_the_unet_are_rejected():
    content = RecordDict({"arrays": state_to_arrays(small_unet().state_dict())})
    wrong = LabeledImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"shape \(2, 3, 8, 8\) for this U-Net, got \(2, 1, 8, 8\)"):
        send(colour_app(dataset_fn=lambda context: wrong), content, "train.local_diffusion")
    with pytest.raises(TypeError, match="must return a UNet2DModel of diffusers, got Linear"):
        send(colour_app(unet_fn=lambda: nn.Linear(1, 1)), content, "train.local_diffusion")
    with pytest.raises(TypeError, match="must return a UNet2DModel of diffusers, got Linear"):
        sample_with(lambda: nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("data", "message"),
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
def test_examples_of_another_type_are_rejected(data, message):
    content = RecordDict({"arrays": state_to_arrays(small_unet().state_dict())})
    with pytest.raises(ValueError, match=message):
        send(colour_app(dataset_fn=lambda context: data), content, "train.local_diffusion")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: synthesize_with("nowhere", **SYNTHESIS), "generator must be 'embedded', a folder or"),
        (
            lambda: synthesize_with("embedded", **SYNTHESIS | {"num_inference_steps": 0}),
            "num_inference_steps must be .* 1, got 0",
        ),
        (lambda: synthesize_with("embedded", **SYNTHESIS | {"channels": 2}), "channels must be one of 1, 3"),
        (lambda: synthesize_with("embedded", **SYNTHESIS | {"device": "cuda:9"}), "device 'cuda:9' is not"),
        (
            lambda: synthesize_with("embedded", class_names="a", **SYNTHESIS)(EMBEDDINGS),
            "class_names has 1 names, but class 1 was uploaded",
        ),
        (lambda: train_on_synthetic(cnn, epochs=-1), "epochs must be an integer of at least 0, got -1"),
        (lambda: train_on_synthetic(cnn, epochs=1, std=0.0), "std must be a number above 0, got 0.0"),
        (lambda: train_on_synthetic(cnn, epochs=1, schedule="step"), "schedule must be one of 'constant'"),
        (lambda: sample_with(small_unet, sampler="euler"), "sampler must be one of 'ddim'"),
        (
            lambda: sample_with(small_unet, num_inference_steps=1001),
            "num_inference_steps must be at most 1000, got 1001",
        ),
        (lambda: correct_with(small_unet, prediction_type="x"), "prediction_type must be one of 'epsilon'"),
        (lambda: correct_with(small_unet, learning_rate=0), "learning_rate must be a number above 0, got 0"),
        (lambda: colour_app(batch_size=0), "batch_size must be an integer of at least 1, got 0"),
        (lambda: train_on_synthetic(cnn, epochs=1.5), "epochs must be an integer of at least 0, got 1.5"),
        (lambda: correct_with(small_unet, ema_decay=1.5), "ema_decay must be a number from 0 to below 1"),
        (lambda: digits_app(prompt_template="a digit"), "prompt-template must contain {label}"),
        (lambda: digits_app(class_names=("zero", "1")), "embedded' draws only handwritten digits .* not '1'"),
        (lambda: digits_app(class_names=()), "class_names must name at least one class"),
    ],
)
def test_invalid_arguments_are_rejected(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_an_app_takes_each_handler_once_and_no_client_fn():
    with pytest.raises(ValueError, match="'embed' is already registered"):
        register_fgl(digits_app(), dataset_fn=private_digits, class_names=DIGIT_NAMES, generator="embedded")
    legacy = ClientApp(client_fn=lambda context: None)
    with pytest.raises(ValueError, match="was created with a client_fn and takes no other handlers"):
        register_fgl(legacy, dataset_fn=private_digits, class_names=DIGIT_NAMES, generator="embedded")


def test_without_the_extra_the_error_names_it(monkeypatch):
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
new = {{name.split(".")[0] for name in set(sys.modules) - before}} - sys.stdlib_module_names
assert new == {{"fgl_app", "safetensors"}}, new
heavy = set({HEAVY!r}) & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_the_library_imports_only_flower_and_torch():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
