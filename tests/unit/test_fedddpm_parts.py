"""The small parts of federated diffusion: shares, detector, control variates, extractors, models."""

import pytest
import torch
from diffusers import DDPMPipeline, LDMPipeline
from torch import nn

from fgl_app.algorithms.apportion import apportion
from fgl_app.algorithms.diffusion import DiffusionProcess
from fgl_app.algorithms.image_space import ImageSpace
from fgl_app.algorithms.plateau import is_plateau, relative_improvement
from fgl_app.algorithms.scaffold import GradientControl
from fgl_app.client.state import (
    load_control,
    load_local_model,
    run_folder,
    save_control,
    save_local_model,
)
from fgl_app.data.sources import load_dataset
from fgl_app.models.autoencoders import load_autoencoder
from fgl_app.models.classifiers import build_classifier, save_classifier
from fgl_app.models.extractors import check_extractor, load_extractor
from fgl_app.models.image_pipeline import ClassConditionalPipeline, save_image_pipeline
from fgl_app.models.unets import build_unet, check_unet

CPU = torch.device("cpu")


# --- shares


@pytest.mark.parametrize(
    ("counts", "total", "shares"),
    [
        ([1, 1, 1], 10, [4, 3, 3]),
        ([400, 100, 0], 10, [8, 2, 0]),
        ([5], 7, [7]),
        # 1.25, 1.25 and 2.5 images: the one left over goes to the largest remainder.
        ([1, 1, 2], 5, [1, 1, 3]),
        ([3, 3], 0, [0, 0]),
        ([0, 0], 5, [0, 0]),
    ],
)
def test_shares_follow_the_counts_and_add_up(counts, total, shares):
    assert apportion(counts, total) == shares


# --- detector


def test_the_improvement_is_the_smoothed_fall_a_round():
    # Without smoothing, over two rounds: (4 - 2) / (2 * 4).
    assert relative_improvement([9, 4, 3, 2], window=2, smoothing=0.0) == pytest.approx(0.25)
    # Smoothed by one half: 8, then 6, then 4; over one round (6 - 4) / 6.
    assert relative_improvement([8, 4, 2], window=1, smoothing=0.5) == pytest.approx(1 / 3)


def test_without_enough_losses_there_is_no_verdict():
    assert relative_improvement([], window=1, smoothing=0.0) is None
    assert relative_improvement([1, 1], window=2, smoothing=0.0) is None
    assert not is_plateau([1, 1], window=2, smoothing=0.0, threshold=1.0)


def test_slow_is_below_the_threshold():
    losses = [1.0, 0.9, 0.89, 0.885]
    assert is_plateau(losses, window=1, smoothing=0.0, threshold=0.01)
    assert not is_plateau(losses[:2], window=1, smoothing=0.0, threshold=0.01)


# --- SCAFFOLD's client


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def descend_by_hand(model, batches, rate, control=None):
    for x in batches:
        model.zero_grad()
        model(x).square().mean().backward()
        if control:
            control.on_gradients(model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(rate * parameter.grad)


def test_with_sgd_the_new_variate_is_the_papers_option_two():
    model = linear()
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    torch.manual_seed(1)
    server = {name: torch.randn_like(tensor) for name, tensor in start.items()}
    own = {name: torch.randn_like(tensor) for name, tensor in start.items()}
    control = GradientControl(server, own)
    steps, rate = 4, 0.05
    descend_by_hand(model, torch.randn(steps, 6, 3), rate, control)
    new, change = control.finish()
    for name, parameter in model.named_parameters():
        option_two = own[name] - server[name] + (start[name] - parameter.detach()) / (steps * rate)
        assert torch.allclose(new[name], option_two, atol=1e-5)
        assert torch.allclose(change[name], new[name] - own[name])


def test_zero_variates_leave_every_bit():
    batches = torch.randn(5, 6, 3, generator=torch.Generator().manual_seed(0))
    plain, controlled = linear(), linear()
    zero = {name: torch.zeros_like(parameter) for name, parameter in plain.named_parameters()}
    descend_by_hand(plain, batches, 0.1)
    descend_by_hand(controlled, batches, 0.1, GradientControl(zero, None))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), controlled.parameters(), strict=True))


def test_a_client_without_a_step_keeps_its_variate():
    own = {"weight": torch.ones(2)}
    new, change = GradientControl({"weight": torch.zeros(2)}, own).finish()
    assert torch.equal(new["weight"], own["weight"])
    assert not change["weight"].any()


def test_a_variate_survives_on_disk(tmp_path):
    folder = run_folder(tmp_path, "0a1b")
    assert load_control(folder, 0) is None
    save_control(folder, 1, {"w": torch.arange(3.0)})
    save_control(folder, 2, {"w": torch.zeros(3)})
    # The server has not taken round 2: its variate is gone, that of round 1 is not.
    assert torch.equal(load_control(folder, 1)["w"], torch.arange(3.0))
    with pytest.raises(FileNotFoundError, match=r"state of round 2 is not in .*run-0a1b; keep"):
        load_control(folder, 2)


@pytest.mark.parametrize("token", ["", "..", "a/b", "../../etc", "A1"])
def test_a_servers_token_leads_nowhere_else(tmp_path, token):
    with pytest.raises(ValueError, match="hexadecimal digits"):
        run_folder(tmp_path, token)


def test_a_local_model_and_its_loss_are_kept_by_run(tmp_path):
    folder = run_folder(tmp_path, "0a1b")
    assert load_local_model(folder) is None
    save_local_model(folder, {"w": torch.arange(3.0)}, 0.1 + 0.2)
    model, loss = load_local_model(folder)
    assert torch.equal(model["w"], torch.arange(3.0))
    assert loss == 0.1 + 0.2
    assert load_local_model(run_folder(tmp_path, "ffff")) is None


# --- feature extractors


def test_the_digits_have_their_own_extractor():
    data = load_dataset("digits", 32).test
    extractor = load_extractor("auto", "digits", CPU)
    found, classes = extractor(data.images)
    assert extractor.name.startswith("digits_features-")
    assert found.shape == (1000, 128)
    assert (classes == data.labels).float().mean() > 0.97


def test_a_runs_classifier_is_an_extractor(tmp_path):
    model = build_classifier("resnet18", num_classes=3, in_channels=3, image_size=16, seed=0)
    save_classifier(model, tmp_path, ["a", "b", "c"])
    found, classes = load_extractor(str(tmp_path), "photos", CPU)(
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    )
    assert found.shape == (2, 512)
    assert classes.shape == (2,)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("auto", "exists for digits, not for 'photos'"),
        ("nothing", "must be 'auto', 'inception' or a"),
        ("inception", "needs the package torch-fidelity"),
    ],
)
def test_an_extractor_that_is_none_is_refused(name, sentence, monkeypatch):
    monkeypatch.setattr("fgl_app.models.extractors.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=sentence):
        check_extractor(name, "photos", num_classes=3, channels=3)


@pytest.mark.parametrize("name", ["cnn", "resnet18"])
def test_an_extractor_must_know_the_data_sets_classes(tmp_path, name):
    model = build_classifier(name, num_classes=3, in_channels=3, image_size=16, seed=0)
    save_classifier(model, tmp_path, ["a", "b", "c"])
    check_extractor(str(tmp_path), "photos", num_classes=3, channels=3)
    with pytest.raises(ValueError, match=r"must have the 4 classes of 'photos', .* has 3"):
        check_extractor(str(tmp_path), "photos", num_classes=4, channels=3)


def test_an_extractor_must_take_the_data_sets_channels(tmp_path):
    model = build_classifier("cnn", num_classes=3, in_channels=1, image_size=16, seed=0)
    save_classifier(model, tmp_path, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"must take the 3 channels of 'photos', .* takes 1"):
        check_extractor(str(tmp_path), "photos", num_classes=3, channels=3)


# --- models


@pytest.mark.parametrize(
    ("name", "channels", "side", "millions"), [("small", 4, 8, 0.65), ("ddpm", 3, 32, 35.7)]
)
def test_unets_have_the_size_they_are_known_for(name, channels, side, millions):
    model = build_unet(name, channels=channels, side=side, num_classes=0, seed=0)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_unet_follows_its_seed():
    first, same, other = (
        build_unet("small", channels=1, side=8, num_classes=2, seed=seed).conv_in.weight for seed in (0, 0, 1)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(("name", "side"), [("small", 7), ("small", 2), ("ddpm", 12), ("ddpm", 8)])
def test_a_size_the_unet_cannot_take_is_refused(name, side):
    with pytest.raises(ValueError, match="change image-size or diffusion-space"):
        check_unet(name, side)


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("space", ["pixel", "latent"])
def test_a_saved_model_is_a_pipeline(tmp_path, classes, space):
    vae = load_autoencoder("embedded", CPU) if space == "latent" else None
    unet = build_unet("small", channels=4 if vae else 1, side=8, num_classes=classes, seed=0).eval()
    sampler = DiffusionProcess("v_prediction", "linear").sampler("ddim")
    save_image_pipeline(unet, ImageSpace(vae), sampler, ["a", "b", "c"], tmp_path)
    side = 32 if vae else 8
    if classes:
        pipeline = ClassConditionalPipeline.from_pretrained(tmp_path)
        assert list(pipeline.config.class_names) == ["a", "b", "c"]
        images = pipeline([0, 2], num_inference_steps=2).images
        assert images == ClassConditionalPipeline(unet, sampler, vae)([0, 2], num_inference_steps=2).images
    else:
        kind = LDMPipeline if vae else DDPMPipeline
        images = kind.from_pretrained(tmp_path)(batch_size=2, num_inference_steps=2).images
    assert [image.size for image in images] == [(side, side)] * 2
